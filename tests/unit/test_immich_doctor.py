"""What of the doctor no test host can cause, given what the kernel and the system would show; and its table."""

import importlib
import os
import re
import sys
import time
from pathlib import Path

import pytest
import yaml
from salt.exceptions import CommandExecutionError

from _output import immich_doctor as table
from immich_core import stack_status
from immich_diagnosis import (
    application,
    backups,
    check,
    examination,
    facts,
    folders,
    host,
    leftovers,
    parts,
    permissions,
    postgres,
    reachability,
    running,
    servers,
    valkey,
    words,
)
from immich_io import containers

REPO = Path(__file__).resolve().parents[2]
READS_PROC = pytest.mark.only(sys.platform == "linux")


# /proc/cpuinfo of an AMD Phenom II, of 2008, whose users Immich's machine learning left behind.
PHENOM = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD Phenom(tm) II X4 955 Processor
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht \
syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm 3dnowext 3dnow constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid \
aperfmperf pni monitor cx16 popcnt lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch
"""


def test_a_cpu_that_is_too_old_is_named_with_what_it_lacks():
    """The test host has the CPU it has."""
    ((result, seen, do),) = host._cpu_rows(PHENOM, "x86_64")
    assert (result, do) == ("failed", "immich:machine_learning:enabled: false")
    assert "lacks sse4_1, sse4_2, ssse3" in seen
    newer = PHENOM.replace(" pni ", " pni ssse3 sse4_1 sse4_2 ")
    assert host._cpu_rows(newer, "x86_64") == [("ok", "x86-64-v2")]
    assert host._cpu_rows("Features\t: fp asimd\n", "aarch64") == [("ok", "aarch64")]


def test_selinux_that_keeps_the_containers_from_their_volumes():
    """The test host's kernel has no SELinux."""
    services = {"immich-server": {"security_opt": ["no-new-privileges"]}}
    ((result, seen, do),) = host._selinux_rows("1", {"services": services})
    assert result == "failed"
    assert "immich-server" in seen
    assert "state.apply immich.app" in do
    services["immich-server"]["security_opt"].append("label=disable")
    assert host._selinux_rows("1", {"services": services})[0][0] == "ok"
    assert host._selinux_rows("0", {"services": {"immich-server": {}}})[0][0] == "ok"
    assert host._selinux_rows("", {"services": {}})[0][0] == "ok"


MOUNTINFO = """22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:44 / /var/lib/postgresql rw,relatime shared:2 - {} nas:/volume rw,vers=4.2,addr=192.0.2.7
41 40 0:45 / /var/lib/postgresql/other\\040one rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize("kind", ("nfs4", "nfs", "cifs", "fuse.sshfs", "9p", "ceph"))
def test_a_database_on_a_network_share_is_told(kind):
    """No test host can mount one: there is no server of shares in it, and not every kernel has the client."""
    ((result, seen, do),) = postgres._storage_rows("/var/lib/postgresql/17/main", MOUNTINFO.format(kind))
    assert (result, "local disk" in do) == ("failed", True)
    assert f"network share ({kind})" in seen


def test_a_database_on_a_local_disk_below_a_share_or_beside_it():
    info = MOUNTINFO.format("nfs4")
    assert postgres._storage_rows("/var/lib/postgresql/other one/main", info)[0][0] == "ok"
    assert postgres._storage_rows("/var/lib/postgresql2", info)[0][0] == "ok"


@pytest.mark.parametrize(
    ("free", "size", "inodes", "result"),
    (
        (500, 1000, 10**6, "ok"),
        (30, 1000, 10**6, "ok"),
        (19, 1000, 10**6, "warning"),
        (4, 10, 10**6, "ok"),
        (0.9, 1000, 10**6, "failed"),
        (500, 1000, 12, "failed"),
    ),
)
def test_space(free, size, inodes, result):
    row = folders._space_row("/srv", free * folders.GIB, size * folders.GIB, inodes, 10**7)
    assert row[0] == result
    assert result == "ok" or row[2]


def test_space_on_a_file_system_that_counts_no_inodes():
    assert folders._space_row("/srv", 500 * folders.GIB, 1000 * folders.GIB, 0, 0)[0] == "ok"


@pytest.mark.parametrize(("hours", "result"), (([1], "ok"), ([300, 40], "ok"), ([50, 300], "warning"), ([], "warning")))
def test_age_of_the_newest_backup(hours, result):
    now = 10**9
    assert backups._newest_row([now - each * 3600 for each in hours], now, "/var/backups/immich")[0] == result


def messages():
    """The messages of the table of troubles that Immich, its containers or Podman write."""
    table = (REPO / "docs/howto/troubleshooting.md").read_text(encoding="utf8")
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    by_immich = "NOPERM|NOAUTH|WRONGPASS|ENOTFOUND|authentication|pg_hba|must be owner|vchord|Failed to read|Illegal"
    return [message for row in rows if re.search(by_immich, row) for message in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("message", [text for text in messages() if text not in ("immich-machine-learning",)])
def test_every_message_of_the_table_has_a_cure(message):
    assert words.remedy_for(message.replace("…", '"/data/upload/'))


@pytest.mark.parametrize(
    ("text", "cure"),
    (
        ('Error: Failed to read "/data/thumbs/.immich": ENOENT', "mount"),
        ("error: must be owner of extension vector", "immich.postgres"),
        ("ReplyError: NOPERM No permissions to access a channel", "immich.valkey"),
        ("getaddrinfo EAI_AGAIN host.containers.internal", "immich.gateway"),
        ("exited 3 time(s) in a row, last with code 132: Illegal instruction", "machine_learning:enabled: false"),
        ("PermissionError: [Errno 13] Permission denied: '/cache/clip'", "cache_location"),
    ),
)
def test_cure_for_a_message(text, cure):
    assert cure in words.remedy_for(text)


def test_no_cure_is_made_up():
    assert words.remedy_for("everything is fine") == ""


@pytest.mark.parametrize(
    ("error", "known", "cure"),
    (
        ("Valkey does not accept the credentials of the user default.", {"refused": True}, "immich:valkey:admin_"),
        ("PostgreSQL: Zugriff verweigert.", {"sqlstate": "42501"}, "immich.postgres"),
        ("Cannot connect to the database", {"absent": "database"}, "immich.postgres"),
        # A server that does not run has a row of its own.
        ("Cannot connect to PostgreSQL", {"absent": "server"}, ""),
        ("podman: pinging container registry", {}, "immich:version"),
    ),
)
def test_an_error_is_known_by_what_it_carries_before_its_words(error, known, cure):
    raised = CommandExecutionError(error)
    vars(raised).update(known)
    remedy = words.remedy_of(raised)
    assert cure in remedy if cure else remedy == ""


@pytest.mark.parametrize(
    ("answer", "stopped"),
    (
        ("db:5432\n", None),
        ("db:5432 name getaddrinfo ENOTFOUND db\n", (containers.NAME, "getaddrinfo ENOTFOUND db")),
        ("db:5432 port Connection refused\n", (containers.PORT, "Connection refused")),
        ("db:5432 name\x1b[2J x\n", (containers.PORT, "name x")),
        ("", (containers.PORT, "its answer is not there")),
    ),
)
def test_where_a_container_stops_on_the_way(monkeypatch, answer, stopped):
    monkeypatch.setattr(containers.podman, "run", lambda *words, **limits: answer)
    assert containers.reach("immich-server", ["db:5432"]) == {"db:5432": stopped}


@pytest.mark.parametrize(
    ("mode", "owner", "uid", "desired", "may"),
    (
        (0o700, (0, 0), 0, 7, True),
        (0o700, (1000, 1000), 0, 7, False),  # root without capabilities is no exception
        (0o770, (0, 1000), 1000, 7, True),
        (0o077, (1000, 1000), 1000, 7, False),
        (0o644, (0, 0), 1000, 4, True),
        (0o644, (0, 0), 1000, 6, False),
    ),
)
def test_what_a_mode_gives_a_user(mode, owner, uid, desired, may):
    held = os.stat_result((mode, 0, 0, 0, *owner, 0, 0, 0, 0))
    assert permissions.may(held, uid, uid, desired) is may


def group(*functions, gates=()):
    return tuple(check.Check(function.__name__, function, function.__name__ in gates) for function in functions)


def good(here):
    yield "ok", here["settings"]


def bad(here):
    yield "failed", "broken", "mend it"


def wrong(here):
    return 1 / 0


def hanging(here):
    time.sleep(1000)


def run(*groups, seconds=30):
    rows, _ = running.run_groups(groups, {"settings": "x"}, seconds)
    return [(row["part"], row["result"], row["seen"]) for row in rows]


@READS_PROC
def test_rows_come_in_the_order_of_the_checks_and_behind_a_gate_nothing_is_checked():
    first, second = group(bad, good), group(bad, good, gates=["bad"])
    assert run(first, second) == [
        ("bad", "failed", "broken"),
        ("good", "ok", "x"),
        ("bad", "failed", "broken"),
        ("good", "warning", "not checked: needs bad"),
    ]


@READS_PROC
def test_a_check_that_breaks_hides_no_other():
    broken, fine = run(group(wrong, good))
    assert broken[:2] == ("wrong", "warning")
    assert "ZeroDivisionError" in broken[2]
    assert fine == ("good", "ok", "x")


def wait_for_children(seconds):
    """Wait until those that were killed have ended; ChildProcessError once none is left."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)


@READS_PROC
def test_a_check_that_hangs_costs_the_time_that_was_given_and_is_named(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))  # the machine of the tests may be busy
    rows = run(group(hanging, good), group(good), seconds=3)
    assert rows == [
        ("hanging", "failed", "no answer within 3 s"),
        ("good", "warning", "not checked: hanging took longer than 3 s"),
        ("good", "ok", "x"),
    ]
    with pytest.raises(ChildProcessError):
        wait_for_children(60)


def test_silence_on_a_busy_host_proves_nothing(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (999, 1, 1))
    ((part, result, seen),) = run(group(hanging), seconds=1)
    assert (part, result) == ("hanging", "warning")
    assert seen.startswith("not checked: took longer than 1 s; this host is busy, with a load of 999")


def slow(here):
    time.sleep(1.5)
    yield "ok", "slow"


@READS_PROC
def test_each_check_has_its_own_time():
    """Slow ones use up none of the others': under load 18 of 38 were not checked."""
    assert [seen for _, _, seen in run(group(slow, slow, slow, good), seconds=4)] == ["slow"] * 3 + ["x"]


@READS_PROC
def test_a_check_that_may_take_longer_does():
    def slow(_):
        time.sleep(2)
        return [("ok", "was woken")]

    checks = [(check.Check("card", slow, times=times),) for times in (1, 600)]
    assert run(*checks, seconds=0.1)[-1] == ("card", "ok", "was woken")
    assert run(checks[0], seconds=0.1) != [("card", "ok", "was woken")]


def test_on_a_busy_host_a_check_has_more_time(monkeypatch):
    given = []
    monkeypatch.setattr(examination, "run_groups", lambda groups, here, seconds: given.append(seconds) or ([], {}))
    for load in (0.1, 2 * os.cpu_count(), 999):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, load, load))
        examination.rows({}, {}, 5)
    assert given[::2] == [5, 10, 30]


@READS_PROC
def test_without_a_pillar_and_a_deployment_nothing_breaks_and_no_name_is_made_up(monkeypatch, tmp_path):
    """No test host is without units of these names; the modules that the checks ask are not there either."""
    monkeypatch.setattr(facts, "UNIT_FILE", str(tmp_path / "immich.service"))
    monkeypatch.setattr(facts, "DEPLOYED", str(tmp_path))
    monkeypatch.setattr(backups.backups, "CONFIG", str(tmp_path / "backup.json"))
    salt = {
        "systemd_unit.status": lambda unit: {"loaded": "not-found", "active": "inactive", "text": ""},
    }
    here = {**facts.gather(None), "salt": salt, "pillar": {}, "working": {}, "seconds": 30}
    rows, _ = running.run_groups(parts.GROUPS, here, 30)
    told = {row["part"]: row["seen"] for row in rows}
    assert not any("broke" in seen for seen in told.values()), told
    for part in ("PostgreSQL service", "PostgreSQL", "Valkey service", "Valkey"):
        assert told[part] == f"not checked: needs a pillar or {tmp_path}/immich.service, to know the service"
    assert told["backups"].startswith("not checked: needs a pillar or")
    assert "valkey-server" not in str(rows)


def test_what_a_unit_reported_before_it_was_stopped_is_no_reason(monkeypatch):
    """systemd keeps the text: "network removed" after "uploads of another owner" has shown it, within a minute."""
    text = stack_status.text("http://127.0.0.1:2283", {"immich-server": (stack_status.EXITED, "2 time(s) in a row")})
    monkeypatch.setattr(application.last_words, "of", str)
    assert "exited: 2" in application._why_down({"active": "failed", "text": text})
    assert "exited: 2" in application._why_down({"active": "activating", "text": text})
    assert application._why_down({"active": "inactive", "text": text}) == ""
    monkeypatch.setattr(application.last_words, "of", lambda: "immich-stack: no such image")
    assert application._why_down({"active": "inactive", "text": text}) == "immich-stack: no such image"


EXITED = stack_status.text("http://127.0.0.1:2283", {"immich-server": (stack_status.EXITED, "1 time(s): Serving: x")})
REMOVED = stack_status.text("http://127.0.0.1:2283", {"immich-server": (stack_status.REMOVED, "by hand, it exited")})


@pytest.mark.parametrize(
    ("text", "recreate", "result", "words"),
    (
        (EXITED, {"immich-server": "it is exited"}, "failed", "immich-server exited: 1 time"),
        (EXITED, {"immich-machine-learning": "its definition changed"}, "warning", "runs again: immich-server exited"),
        (REMOVED, {"immich-server": "it does not exist"}, "warning", "immich-server removed: by hand"),
        ("Starting the containers", {}, "warning", "Starting the containers"),
    ),
)
def test_a_unit_says_what_became_of_its_containers(monkeypatch, text, recreate, result, words):
    status = {"active": "active", "enabled": "enabled", "outdated": False, "text": text}
    monkeypatch.setattr(application, "_compared", lambda _: {"recreate": recreate, "remove": []})
    monkeypatch.setattr(application.untrusted, "output", lambda *_args, **_kwargs: "")
    here = {"salt": {"systemd_unit.status": lambda _unit: status}, "seconds": 5}
    ((found, seen, *_),) = application._unit(here)
    assert found == result
    assert seen.startswith(words)


@pytest.mark.parametrize(
    ("compose_text", "words", "remedy"),
    (
        ("", "is failed: no reason", "systemctl start immich"),
        ("services: {}", "not the one that Salt wrote", "salt-call state.apply immich.app"),
        (
            "{x-immich-stack: {}, services: {a: {volumes: [{type: bind, source: /no/photos, target: /data}]}}}",
            "is failed: /no/photos, a volume of a, is not there",
            "mount it, then: systemctl restart immich",
        ),
        # Of somebody's own.
        (
            "{x-immich-stack: {}, services: {a: {volumes: [{type: tmpfs, target: /tmp}]}}}",
            "is failed: no reason",
            "systemctl start immich",
        ),
    ),
)
def test_what_the_program_refuses_to_start_is_looked_at(monkeypatch, compose_text, words, remedy):
    status = {"active": "failed", "text": "no reason"}
    monkeypatch.setattr(application.untrusted, "output", lambda *_args, **_kwargs: "")
    here = {"salt": {"systemd_unit.status": lambda _unit: status}, "seconds": 5, "settings": {}, "directory": "/x"}
    here.update(compose_text=compose_text, compose=facts._parsed(compose_text))
    ((result, seen, do),) = application._unit(here)
    assert (result, do) == ("failed", remedy)
    assert words in seen


def test_containers_of_a_foreign_compose_file_are_not_looked_at():
    """The row above names the file and the remedy."""
    here = {"directory": "/x", "compose_text": "services: {a: {}}", "compose": {"services": {"a": {}}}}
    with pytest.raises(check.NotCheckedError, match=r"^compose file$"):
        list(application._containers(here))


@pytest.mark.parametrize("active", ("active", "reloading"))
def test_a_unit_that_reloads_serves(active):
    status = {"active": active, "enabled": "enabled", "outdated": False, "text": "Serving: http://127.0.0.1:2283"}
    here = {
        "salt": {"systemd_unit.status": lambda _unit: status},
        "postgres": {"managed": True, "units": ["postgresql"]},
    }
    assert [row[0] for row in application._unit(here)] == ["ok"]
    assert [row[0] for row in servers.service("postgres")(here)] == ["ok"]


def test_the_firewall_is_told_the_interface_of_the_network(monkeypatch):
    """ufw and firewalld would take over the test host's own rules."""
    monkeypatch.setattr(reachability.shutil, "which", lambda program: program == "ufw")
    monkeypatch.setattr(reachability.command, "run", lambda *_args, **_kwargs: "Status: active")
    asked = {
        "salt": {"podman_network.inspect": {"photos": {"interface_name": "podman3"}}.__getitem__},
        "seconds": 5,
    }
    here = {"settings": {"network": {"name": "photos", "interface_name": "br-photos"}}, "compose": {}, **asked}
    assert reachability._firewall_program(here) == "ufw allow in on br-photos"
    here["settings"]["network"]["interface_name"] = None  # netavark 1.4 does not let it be chosen
    assert reachability._firewall_program(here) == "ufw allow in on podman3"
    here = {"settings": None, "compose": {"networks": {"immich": {"external": True, "name": "photos"}}}, **asked}
    assert reachability._firewall_program(here) == "ufw allow in on podman3"


WORK = {"what": "restore", "since": "2026-11-27T04:09:25Z", "pid": 4711}


def test_while_a_restore_is_under_way_nobody_is_told_to_start_immich():
    row = {"part": "immich.service", "result": "failed", "seen": "is inactive: x", "remedy": "systemctl start immich"}
    during = examination._meanwhile(row, WORK)
    assert (during["result"], during["part"]) == ("warning", "immich.service")
    assert during["seen"] == "is inactive: x: restore under way since 2026-11-27T04:09:25Z"
    assert "systemctl start" not in during["remedy"]
    assert "4711" in during["remedy"]
    assert examination._meanwhile({**row, "part": "disk space"}, WORK)["result"] == "failed"
    assert examination._meanwhile({**row, "result": "ok"}, WORK)["result"] == "ok"
    for working in ({}, {**WORK, "what": "backup"}):
        assert examination._meanwhile(row, working) == row


def test_a_backup_that_is_under_way_is_no_lack_of_one(tmp_path):
    salt = {
        "systemd_unit.status": lambda _unit: {"loaded": "loaded", "active": "activating", "text": ""},
        "immich.backup_warnings": lambda _settings: [],
    }
    here = {"salt": salt, "settings": {"backup": {"directory": str(tmp_path)}}, "working": {**WORK, "what": "backup"}}
    assert list(backups._backups(here)) == [("ok", f"one is under way since {WORK['since']}")]
    ((result, seen, _),) = backups._backups({**here, "working": {}})
    assert (result, seen[:18]) == ("warning", "there is no backup")


def test_what_is_under_way_says_how_far_it_is(monkeypatch):
    asked = []

    def journal(words, **_):
        asked.append(words)
        return "Restoring: 1.0 MB of 4.0 MB, 25 %\x1b[2J\n"

    monkeypatch.setattr(leftovers.untrusted, "output", journal)
    monkeypatch.setattr(leftovers.backup_files, "last_run", dict)
    row, here = ("ok", "restore under way"), {"working": WORK, "seconds": 4}
    _, seen = leftovers._with_progress(here, row)
    assert seen.startswith("restore under way; Restoring: 1.0 MB of 4.0 MB, 25 %")
    assert seen.isprintable()
    assert "2026-11-27 04:09:25 UTC" in asked[0]
    assert leftovers._with_progress({**here, "working": {**WORK, "what": "update"}}, row) == row


def test_that_there_is_no_backup_is_said_only_of_directories_that_were_read(tmp_path):
    now = 10**9
    (tmp_path / "none").mkdir()
    assert "there is no backup" in backups._backups_row(str(tmp_path / "none"), now)[1]
    unreadable = tmp_path / "file"
    unreadable.write_text("")
    assert backups._backups_row(str(unreadable), now)[1].startswith(f"not checked: {unreadable} cannot be read")
    folder = tmp_path / "backups"
    folder.mkdir()
    for name, age in (("a.dump", 3600), ("b.txt", 1)):
        (folder / name).write_text("")
        os.utime(folder / name, (now - age, now - age))
    (folder / "c.dump").symlink_to("/proc/self")
    assert backups._backups_row(str(folder), now) == ("ok", "the newest is 1 hours old")
    # The name counts too: a copy has the time of copying.
    (folder / "immich_29990101T000000Z_v3.3.1_immich.dump").write_text("")
    os.utime(folder / "immich_29990101T000000Z_v3.3.1_immich.dump", (now - 1, now - 1))
    assert backups._backups_row(str(folder), now)[:2] == (
        "failed",
        f"immich_29990101T000000Z_v3.3.1_immich.dump in {folder} has a time in the future: is the clock right?",
    )
    (folder / "immich_29990101T000000Z_v3.3.1_immich.dump").unlink()
    (folder / "d.dump").write_text("")
    os.utime(folder / "d.dump", (now + 99999, now + 99999))
    assert backups._backups_row(str(folder), now)[:2] == (
        "failed",
        f"d.dump in {folder} has a time in the future: is the clock right?",
    )


def test_what_others_have_written_reaches_no_terminal():
    assert words.one_line("a\x1b[31mred\x1b[39m\n\x1b]0;b\x07c\u202ed") == "ared c d"


def test_a_row_reaches_no_terminal_whoever_has_written_it():
    row = check.table_row("database", "failed", "a view \x1b]0;title\x07\x9b31m", "drop \x1b[2Jit")
    assert (row["seen"], row["remedy"], row["code"]) == ("a view  31m", "drop it", "database")


@READS_PROC
def test_an_answer_without_end_fails_one_check(monkeypatch):
    def endless(_):
        return [("ok", str(len("x" * folders.GIB)))]

    monkeypatch.setattr(running, "LARGEST_CHECK", folders.GIB // 4)
    checks = (check.Check("an answer", endless, False), check.Check("the next", lambda _: [("ok", "is well")], False))
    rows, _ = running.run_groups((checks,), {}, 20)
    assert [(row["result"], row["seen"]) for row in rows] == [
        ("warning", "not checked: the answer takes more than 256 MiB"),
        ("ok", "is well"),
    ]


def test_table(monkeypatch):
    monkeypatch.setattr(table, "__opts__", {"color": False}, raising=False)
    rows = [
        {"part": "CPU", "result": "ok", "seen": "x86-64-v2", "remedy": ""},
        {"part": "mounts", "result": "failed", "seen": "/srv is not mounted", "remedy": "mount /srv"},
        {"part": "mounts", "result": "ok", "seen": "/mnt", "remedy": ""},
    ]
    assert table.output({"photos": rows}).splitlines() == [
        "photos:",
        "    CPU     ok       x86-64-v2",
        "    mounts  failed   /srv is not mounted",
        "                     → mount /srv",
        "            ok       /mnt",
        "",
        "    2 ok, 0 warning, 1 failed: begin with mounts",
    ]
    assert table.output({"photos": "Minion did not return"}) == "photos:\n    Minion did not return"


def test_the_docs_name_every_check():
    text = (REPO / "docs/howto/doctor.md").read_text(encoding="utf8")
    for each in (parts.FORMULA, *parts.GROUPS):
        for one in each:
            assert f"| {one.part} |" in text, one.part


def test_every_part_is_registered_once():
    """One that is not is never checked."""
    files = sorted(Path(parts.__file__).parent.glob("*.py"))
    found = [importlib.import_module(f"immich_diagnosis.{file.stem}") for file in files if file.stem != "__init__"]
    grouped = [module for module in found if hasattr(module, "GROUPS") and module is not parts]
    assert sorted(part.__name__ for part in parts.PARTS) == [module.__name__ for module in grouped]
    names = [one.part for group in (parts.FORMULA, *parts.GROUPS) for one in group]
    assert sorted(set(names)) == sorted(names)


class Asked(dict):
    """Execution functions that find nothing, whichever is called; ``names`` are those that were."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        self.names.add(name)
        answer = {"loaded": "loaded", "active": "active", "text": ""} if name == "systemd_unit.status" else []
        return lambda *_arguments, **_kwargs: answer


ASKING = [check for group in parts.GROUPS for check in group if check.asks]


@pytest.mark.parametrize("asking", ASKING, ids=[check.part for check in ASKING])
def test_a_check_calls_what_it_asks(settings, asking):
    """What the registry names and a check claims is asked by nobody else: a finding of it would not be shown."""
    salt = Asked()
    services = {"immich-server": {}, "immich-machine-learning": {}}
    here = {
        **facts.gather({**settings, "metrics": {**settings["metrics"], "enabled": True}}),
        "compose": {"services": services},
        "ping": "http://127.0.0.1:2283/api/server/ping",
    }
    list(asking.function({**here, "salt": salt, "pillar": {}, "working": {}, "seconds": 5}))
    assert set(asking.asks) <= salt.names


def test_what_a_check_asks_is_named_by_its_component():
    """Else nothing but the doctor would find it."""
    registry = yaml.safe_load((REPO / "immich/components.yaml").read_text(encoding="utf8"))
    kinds = ("checks", "warnings")
    named = {name for entry in registry.values() for kind in kinds for name in entry.get(kind, [])}
    assert not parts.ASKED - named


@READS_PROC
def test_a_large_library_is_looked_through_as_long_as_there_is_time(tmp_path):
    for number in range(100):
        (tmp_path / str(number)).mkdir()
        for name in range(100):
            (tmp_path / str(number) / str(name)).touch()
    here = {"uploads": str(tmp_path), "storage": {}, "volumes": [], "cache": None}
    began = time.monotonic()
    assert folders._planted({**here, "seconds": 60}) == [("ok", "none among 10100 files")]
    assert time.monotonic() - began < 30
    ((result, seen),) = folders._planted({**here, "seconds": 0.001})
    assert (result, "the rest was not checked" in seen) == ("ok", True)


def held(used, limit, policy="noeviction"):
    return {"used": used << 20, "limit": limit << 20, "policy": policy}


@pytest.mark.parametrize(
    ("server", "managed", "setting", "result", "words", "advice"),
    (
        (held(100, 512), True, None, "ok", "100 of 512 MiB", ""),
        (held(420, 512), True, None, "warning", "420 of 512 MiB", "immich:valkey:maxmemory: 1024m"),
        (held(420, 512), False, None, "warning", "420 of 512 MiB", "raise maxmemory on that server"),
        (held(600, 512), True, "512m", "failed", "queues stop", "immich:valkey:maxmemory: 1200m"),
        (held(10, 512, "allkeys-lru"), True, None, "warning", "allkeys-lru", "immich:valkey:maxmemory: 512m"),
        (held(10, 0), True, None, "warning", "no limit", "salt-call state.apply immich.valkey"),
        (held(10, 0, "allkeys-lru"), True, "0", "ok", "without a limit", ""),
        (held(10, 0), False, None, "ok", "without a limit", ""),
    ),
)
def test_valkeys_memory(server, managed, setting, result, words, advice):
    found, seen, *do = valkey._memory_row(server, managed, setting)
    assert (found, do or [""]) == (result, [advice])
    assert words in seen


@pytest.mark.parametrize(("threshold", "result"), ((5000, "ok"), (0, "warning"), (-1, "warning"), (3600000, "warning")))
def test_a_threshold_without_which_no_script_can_be_ended(threshold, result):
    ((found, seen, *_),) = valkey._scripts_rows(threshold)
    assert found == result
    assert str(threshold) in seen


def test_a_log_of_any_size_is_read_at_its_end(tmp_path):
    log = tmp_path / "log"
    log.write_text("x" * 10**6 + "the end")
    assert valkey._end_of(log)[-8:] == "xthe end"
    assert len(valkey._end_of(log)) < 10**5
    assert valkey._end_of(tmp_path / "none") == ""
