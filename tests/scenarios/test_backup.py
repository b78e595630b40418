"""Backups on a deployed host: the unit, its timer and Salt's functions, and what may happen to them in the middle."""

import json
import re

import pytest

from tests.host.cache import run
from tests.host.machine import HostError
from tests.scenarios.conftest import on_terminal, pillar_with, post
from tests.scenarios.test_changes import applied

DIRECTORY = "/var/backups/immich"
PSQL = "runuser -u postgres -- psql -qAt immich"
# Whatever wants to read the table waits, as pg_dump then does: in the middle, for as long as a test needs.
LOCK = f"systemd-run --quiet --unit=t-lock {PSQL} -c 'begin; lock asset in access exclusive mode; select pg_sleep(600)'"
LOCKED = f"{PSQL} -c \"select 1 from pg_locks where mode = 'AccessExclusiveLock' and relation = 'asset'::regclass\""
# Its client gone, a backend that sleeps goes on sleeping.
RELEASE = (
    f'{PSQL} -c "select pg_terminate_backend(pid) from pg_locks '
    "where mode = 'AccessExclusiveLock' and relation = 'asset'::regclass\""
)
TIMER = "systemctl is-enabled immich-backup.timer; systemctl is-active immich-backup.timer"
WAITING = (
    f'{PSQL} -c "select 1 from pg_stat_activity'
    " where application_name ~ '^immich-backup-' and wait_event_type = 'Lock'\" "
)
CALLER = """
import os, time
import salt.config, salt.loader
opts = salt.config.minion_config("/etc/salt/minion")
opts["file_client"] = "local"
opts["grains"] = salt.loader.grains(opts)
modules = salt.loader.minion_mods(opts)
from immich_io import lock
with lock.held("update"):
    print(modules["immich.backup"]()["name"], flush=True)
    while not os.path.exists("/root/go"):
        time.sleep(0.1)
"""


def listed(backup):
    """What `immich.backups` says of what `immich.backup` has made."""
    return {key: backup[key] for key in ("path", "name", "time", "size", "version", "database", "empty")}


def refusal(host):
    """Why `immich.backup` makes none."""
    with pytest.raises(HostError) as raised:
        host.salt("immich.backup")
    return str(raised.value)


def files(host):
    return set(host.out(f"ls -A {DIRECTORY}").split())


def in_the_middle(host, start="systemctl start --no-block immich-backup"):
    """A backup that has begun and cannot end before RELEASE."""
    host.run(LOCK)
    host.wait_for(f"{LOCKED} | grep -q 1")
    host.run(start)
    host.wait_for(f"{WAITING} | grep -q 1")


def ended(host):
    """Wait as long as systemd may: on a busy test host it can miss that a killed unit's last process is gone."""
    host.wait_for("! systemctl list-jobs immich-backup.service | grep -q immich-backup", 200)
    host.wait_for("! systemctl is-active immich-backup | grep -q activating", 200)


@pytest.fixture(scope="module")
def hooked_host(deployed_host):
    """The deployed host, with a command that notes why a backup failed."""
    deployed_host.pillar(pillar_with(backup={"on_failure": 'echo "$IMMICH_BACKUP_ERROR" >>/root/failures'}))
    deployed_host.apply("immich.backup")
    return deployed_host


@pytest.fixture
def host(hooked_host):
    """That host without backups or failures, and no test's leftovers after it."""
    hooked_host.run(f"rm -rf {DIRECTORY}/* {DIRECTORY}/.i* /root/failures; echo >/root/failures")
    yield hooked_host
    hooked_host.run("systemctl start postgresql@17-main")
    hooked_host.wait_for(RELEASE)
    hooked_host.run("systemctl stop t-lock t-first; systemctl reset-failed", check=False)
    ended(hooked_host)


def failures(host, text):
    """Wait until the hook was run with a reason."""
    host.wait_for(f"grep -q -- '{text}' /root/failures")


def test_a_backup_is_made_listed_and_scheduled(host):
    post(host, "/standin/assets")
    shared = "ls /dev/shm | grep PostgreSQL | sort"
    before = host.out(shared)
    backup = host.salt("immich.backup")
    assert backup["version"] == "v3.3.1"
    assert backup["tables"] == int(
        host.out(f"{PSQL} -c \"select count(*) from pg_tables where schemaname = 'public'\"")
    )
    assert host.salt("immich.backups") == [listed(backup)]
    assert host.salt("immich.backups", "verify=True") == [{**listed(backup), "verified": "ok"}]
    assert files(host) == {backup["name"], f"{backup['name']}.sha256"}
    assert host.out(f"stat -c '%a %U' {DIRECTORY} {backup['path']}").split() == ["700", "postgres", "600", "postgres"]
    host.wait_for("journalctl -u immich-backup --output=cat | grep -q 'Reading it back'")
    assert host.out(TIMER).split() == ["enabled", "active"]
    # RemoveIPC= in the unit would have taken it away: the unit's user is the server's.
    assert host.out(shared) == before != ""
    exposure = json.loads(host.out("systemd-analyze security --json=short immich-backup.service"))
    assert sum(float(each["exposure"] or 0) for each in exposure) < 1.5


@pytest.mark.long
def test_what_the_settings_say_is_applied_and_planned(host):
    changes = {
        "enabled": False,
        "schedule": "Sun 04:00",
        "keep": 2,
        "keep_days": 30,
        "directory": "/srv/my backups 100%",
    }
    applied(host, backup=changes)
    assert host.out(TIMER, check=False).split() == ["disabled", "inactive"]
    names = [host.salt("immich.backup")["name"] for _ in range(3)]
    assert [backup["name"] for backup in host.salt("immich.backups")] == names[:0:-1]
    host.run("rm -r '/srv/my backups 100%'")
    host.pillar(pillar_with(backup={"on_failure": 'echo "$IMMICH_BACKUP_ERROR" >>/root/failures'}))
    host.apply("immich.backup")


def test_no_room_is_told_before_anything_is_written(host):
    host.run(f"mount -t tmpfs -o size=1m,mode=700,uid=postgres tmpfs {DIRECTORY}")
    try:
        assert f"no room in {DIRECTORY}" in refusal(host)
        assert files(host) == set()
    finally:
        host.run(f"umount {DIRECTORY}")
    failures(host, "no room")


@pytest.mark.long
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(host):
    host.run(f"{PSQL} -c 'create table t_fill as select md5(g::text) from generate_series(1, 200000) g'")
    host.run(f"mount -t tmpfs -o size=1m,mode=700,uid=postgres tmpfs {DIRECTORY}")
    old = "immich_20200101T000000Z_v3.3.0.dump"  # so small that there seems to be room
    try:
        host.run(f"cd {DIRECTORY} && echo old >{old} && chown postgres {old}")
        assert "No space left on device" in refusal(host)
        assert files(host) == {old}
    finally:
        host.run(f"umount {DIRECTORY}; {PSQL} -c 'drop table t_fill'")
    failures(host, "No space left on device")
    host.wait_for("systemctl is-failed immich-backup")
    verified = [state for state in host.apply("immich.verify") if state["id"] == "Immich is as declared"]
    assert "No space left on device" in str(verified[0]["warnings"])
    host.salt("immich.backup")
    verified = [state for state in host.apply("immich.verify") if state["id"] == "Immich is as declared"]
    # The warning of the first sign-up names a route of Immich's with this word.
    warned = [warning for warning in verified[0].get("warnings", []) if "database-backups" not in warning]
    assert "backup" not in str(warned)


@pytest.mark.long
def test_a_server_killed_in_the_middle_fails_loudly(host):
    whole = host.salt("immich.backup")
    in_the_middle(host)
    host.run("kill -KILL $(systemctl show --property=MainPID --value postgresql@17-main)")
    ended(host)
    failures(host, "pg_dump: error")
    assert files(host) == {whole["name"], f"{whole['name']}.sha256"}
    host.run("systemctl start postgresql@17-main")
    host.wait_for(f"{PSQL} -c 'select 1'")
    host.salt("immich.backup")
    assert [backup["verified"] for backup in host.salt("immich.backups", "verify=True")] == ["ok", "ok"]


def test_a_program_killed_in_the_middle_is_told_and_swept_up_after(host):
    in_the_middle(host)
    host.run("systemctl kill --kill-whom=main --signal=KILL immich-backup")
    ended(host)
    failures(host, "was killed (result: signal)")
    host.run(RELEASE)
    assert [name for name in files(host) if name.endswith(".part")]
    assert host.salt("immich.backups") == []
    backup = host.salt("immich.backup")
    assert files(host) == {backup["name"], f"{backup['name']}.sha256"}


def test_a_backup_that_is_stopped_leaves_nothing(host):
    in_the_middle(host)
    host.run("systemctl stop immich-backup")
    assert files(host) == set()
    failures(host, "stopped")


def test_a_missing_mount_is_told(host):
    host.run(f"echo 'none {DIRECTORY} nosuchfs noauto 0 0' >>/etc/fstab; systemctl daemon-reload")
    try:
        refusal(host)
        failures(host, "could not be started")
        refused = [state for state in host.apply("immich.backup", check=False) if state["result"] is False]
        assert f"mount {DIRECTORY}" in refused[0]["comment"]
    finally:
        host.run("sed -i '$d' /etc/fstab; systemctl daemon-reload")


@pytest.mark.long
def test_how_far_it_is_is_shown_on_the_terminal_and_in_the_journal(host):
    far = r"[\d.]+ MB of about [\d.]+ MB, \d+ %, "
    host.run(f"journalctl --rotate; {LOCK}")
    host.wait_for(f"{LOCKED} | grep -q 1")
    told = f"journalctl -u immich-backup -o cat --since @{host.out('date +%s').strip()} | grep -q Dumping:"
    host.run(f"(for n in $(seq 60); do ! {told} || break; sleep 1; done; {RELEASE}) >/dev/null 2>&1 &")
    seen = on_terminal(host, "salt-call --local immich.backup")
    assert re.search(f"Backup, dumping: {far}", seen), seen
    assert seen.count("Backup, dumping") > 20
    host.wait_for("journalctl -u immich-backup -o cat | tail -n 5 | grep -q 'Reading it back'")
    journal = host.out("journalctl -u immich-backup -o cat")
    assert re.search(r"Dumping: \S+ \w+ of about \S+ \w+, \d+ %, .*\d\d s", journal), journal
    assert re.search(r"Dumped \S+ kB in \d\d\.\d s. Reading it back", journal), journal


# The program as it is, but it stops itself at a step: that is what Python tells its audit hooks about the directory of
# the backups, or about a program that is started.
STOPPING = """
import importlib.machinery, importlib.util, os, signal, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "/usr/local/lib/immich-formula")
loader = importlib.machinery.SourceFileLoader("program", "/usr/local/lib/immich-formula/immich-backup")
program = importlib.util.module_from_spec(importlib.util.spec_from_loader("program", loader))
loader.exec_module(program)
steps, last = 0, int(sys.argv[1])
def hook(event, arguments):
    global steps
    told = event in ("subprocess.Popen", "open", "os.rename", "os.remove", "os.chmod", "os.listdir", "os.scandir")
    if told and (event == "subprocess.Popen" or "/var/backups/immich" in str(arguments)):
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(hook)
sys.argv[1:] = ["run"]
sys.exit(program.main())
"""
# Cuts the power of the disk at each step in turn, and prints what is there when the disk is back. A file system that is
# shut down so (EXT4_IOC_SHUTDOWN without flushing the log, in the kernel's fs/ext4/ext4.h) loses what was not written.
CUTTING = """
import fcntl, json, os, signal, struct, subprocess, sys, time
directory, image = "/var/backups/immich", "/srv/disk.img"
def cut(step):
    run = subprocess.Popen(["/usr/bin/python3", "/root/stopping.py", str(step)], start_new_session=True)
    if not os.WIFSTOPPED(os.waitpid(run.pid, os.WUNTRACED)[1]):
        return False
    disk = os.open(directory, os.O_RDONLY)
    fcntl.ioctl(disk, 0x8004587D, struct.pack("I", 2))
    os.close(disk)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return True
step, there = 1, []
while cut(step):
    for _ in range(600):  # what was killed with it may still have its files open
        if not subprocess.run(["umount", directory]).returncode:
            break
        time.sleep(0.2)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    command = ["/usr/local/lib/immich-formula/immich-backup", "list", "--verify"]
    there.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    step += 1
print(json.dumps(there))
"""


@pytest.mark.long
def test_a_power_cut_at_any_moment_leaves_no_half_file_that_looks_whole(own_host):
    host = own_host
    loops = "for i in $(seq 0 15); do mknod /dev/loop$i b 7 $i || true; done; mknod /dev/loop-control c 10 237 || true"
    host.run(loops)
    # The hosts have no mkfs.
    image = host.root / "srv/disk.img"
    run("truncate", "--size=64M", image)
    run("mkfs.ext4", "-q", image)
    host.run(f"mount -o loop /srv/disk.img {DIRECTORY} && chown postgres {DIRECTORY} && chmod 700 {DIRECTORY}")
    first = host.salt("immich.backup")
    host.write("/root/stopping.py", STOPPING)
    host.write("/root/cutting.py", CUTTING)
    after = json.loads(host.out("python3 /root/cutting.py", timeout=600).splitlines()[-1])
    assert len(after) > 15
    for step, there in enumerate(after, 1):
        assert {backup["verified"] for backup in there} == {"ok"}, step
        assert first["name"] in [backup["name"] for backup in there], step
    assert len(after[-1]) > len(after[0]), "no step lies behind the renaming"
    # The whole host, in the middle of one.
    in_the_middle(host)
    host.crash()
    host.boot()
    host.run(f"{loops}; mount -o loop /srv/disk.img {DIRECTORY}")
    host.wait_for("systemctl is-active postgresql@17-main")
    left = host.salt("immich.backups", "verify=True")
    assert {backup["verified"] for backup in left} == {"ok"}
    made = host.salt("immich.backup")
    assert files(host) - {"lost+found"} == {
        f"{name}{end}" for name in {made["name"], *(each["name"] for each in left)} for end in ("", ".sha256")
    }


def test_two_at_once_are_one_and_a_refusal(host):
    in_the_middle(host, "systemd-run --quiet --unit=t-first salt-call --local immich.backup")
    assert "Backup under way since 20" in refusal(host)
    # The timer comes while it runs: the same run, not a second one.
    host.run(f"systemctl start --no-block immich-backup; {RELEASE}")
    host.wait_for("! systemctl is-active t-first", 300)
    ended(host)
    assert len(host.salt("immich.backups")) == 1
    assert host.out("cat /root/failures") == ""


def test_an_update_takes_a_backup_under_its_own_lock(host):
    host.write("/root/caller.py", CALLER)
    host.run("systemd-run --quiet --unit=t-first /opt/salt/bin/python /root/caller.py")
    try:
        host.wait_for(f"ls {DIRECTORY}/*.dump")
        host.wait_for("! systemctl is-active immich-backup | grep -q activating")
        assert "Update under way since 20" in refusal(host)
        host.run("systemctl start --no-block immich-backup")
        ended(host)
        failures(host, "Update under way")
    finally:
        host.run("touch /root/go")
    host.wait_for("! systemctl is-active t-first", 300)
    host.salt("immich.backup")
    # A test before has killed PostgreSQL.
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping")
