"""What bin/deploy makes of plans, logs and configurations, on recorded ones. It runs without Salt."""

import io
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from installer import DeployError, downloads, formula, plan, run, salt, screen

DATA = Path(__file__).parent / "data"
TOP = Path(__file__).resolve().parents[2]
OVERVIEW = {
    "urls": ["http://192.168.1.20:2283"],
    "local_only": False,
    "port": 2283,
    "version": "v3.3.1",
    "packages": {"postgres": ["postgresql-17"], "valkey": ["valkey-server"]},
    "gateway": {"address": "10.88.0.1", "ports": {"postgres": 5432, "valkey": 6379}},
    "network": {"name": "immich", "subnet": "172.20.0.0/16"},
    "folders": {"photos": "/srv/immich/upload", "models": "/srv/immich/model-cache", "backups": "/var/backups/immich"},
    "backup": "*-*-* 02:30:00",
}
IMAGES = {
    "ghcr.io/immich-app/immich-server:v3.3.1": 600_000_000,
    "ghcr.io/immich-app/immich-machine-learning:v3.3.1": 450_000_000,
}
APT = [("http://deb.debian.org/debian/pool/main/p/podman/podman_5.4.2_amd64.deb", 13_000_000)] * 66


@pytest.fixture
def first():
    """The states of a first plan, recorded on a bare Debian 13."""
    return run.ordered(json.loads((DATA / "first_plan.json").read_text(encoding="utf8")))


def state(function, **kwargs):
    return {
        "function": function,
        "id": function,
        "name": function,
        "result": True,
        "comment": "",
        "changes": {},
        **kwargs,
    }


# -- the plan ----------------------------------------


@pytest.mark.parametrize("width", (80, 100))
def test_a_first_plan_fits_on_a_screen(first, width):
    rows = plan.rows(first, OVERVIEW, {"packages": APT, "images": IMAGES})
    lines = screen.table(rows, width)
    assert len(lines) <= 25
    assert max(map(len, lines)) <= width
    assert [label for label, _ in rows] == [
        "Packages", "Download", "Starts", "Ports", "Users", "Folders", "Files", "PostgreSQL", "Valkey", "Network",
        "Kept",
    ]  # fmt: skip


def test_a_first_plan_names_what_is_brought(first):
    rows = dict(plan.rows(first, OVERVIEW, {"packages": APT, "images": IMAGES}))
    assert "postgresql-17-pgvector" in rows["Packages"][0]
    assert "and 58 that they need" in rows["Packages"][0]
    assert rows["Download"][0] == "858 MB of packages from deb.debian.org"
    assert rows["Download"][1].startswith("1.1 GB of images: ghcr.io/immich-app/immich-server:v3.3.1")
    assert "valkey-server" in rows["Starts"][0]
    assert "http://192.168.1.20:2283" in rows["Ports"][0]
    assert "5432 (PostgreSQL) and 6379 (Valkey) at 10.88.0.1" in rows["Ports"][1]
    assert rows["Users"] == ["immich-server, immich-ml, for Immich's containers"]
    assert "/srv/immich/upload (photos)" in rows["Folders"][0]
    assert not plan.nothing_to_do(first)
    assert plan.failures(first) == []
    assert plan.warnings(first) == []


def test_unknown_sizes_are_called_rough(first):
    rows = dict(plan.rows(first, OVERVIEW, {"packages": [], "images": dict.fromkeys(IMAGES)}))
    assert "about 1 GB (their registry does not say)" in rows["Download"][0]


def test_restarts_say_why():
    states = [
        state("valkey_config.managed", changes={"aclfile": {}}, restarts={"valkey-server": ["aclfile", "bind"]}),
        state(
            "immich_app.running",
            changes={"immich-server": {"old": "running", "new": "recreated: its image"}},
            recreated=["immich-server"],
        ),
    ]
    rows = dict(plan.rows(states, OVERVIEW, {"packages": [], "images": {}}))
    assert rows["Restarts"] == ["valkey-server, to apply aclfile, bind", "immich-server (recreated: its image)"]
    assert "what Valkey holds for others" in rows["Kept"][0]


def test_what_no_row_is_about_is_named_all_the_same():
    states = [
        state("cmd.run", changes={"pid": 1}, id="PostgreSQL has a data directory"),
        state("immich_app.verified", result=None, comment="Valkey's user immich may do more than it should"),
        state("immich_app.verified", result=None, comment="Would be verified once it runs", deferred=True),
    ]
    rows = dict(plan.rows(states, OVERVIEW, {"packages": [], "images": {}}))
    assert rows["Also"] == ["PostgreSQL has a data directory", "Valkey's user immich may do more than it should"]


@pytest.mark.parametrize(
    ("valkey", "installed", "kept"),
    (
        (["valkey-server"], ["postgresql-17", "valkey-server"], []),
        (["redis-server"], ["postgresql-17", "redis-server"], []),
        (["redis-server"], ["postgresql-17-pgvector"], ["PostgreSQL", "Valkey"]),
        (["redis-server", "redis-tools"], ["redis-tools", "postgresql-17"], ["Valkey"]),
    ),
)
def test_what_a_server_holds_is_kept_unless_this_run_brings_it(valkey, installed, kept):
    overview = {**OVERVIEW, "packages": {**OVERVIEW["packages"], "valkey": valkey}}
    states = [state("pkg.installed", changes={name: {"old": "", "new": "1"} for name in installed})]
    rows = dict(plan.rows(states, overview, {"packages": [], "images": {}}))
    held = [f", what {server} holds for others" for server in kept]
    assert rows["Kept"] == [f"everything: nothing is deleted, the photos{''.join(held)}"]


def test_what_a_host_without_servers_asks_of_others_is_kept():
    rows = dict(plan.rows([], {**OVERVIEW, "packages": {}}, {"packages": [], "images": {}}))
    assert rows["Kept"][0].endswith("what PostgreSQL holds for others, what Valkey holds for others")


def test_nothing_to_do():
    assert plan.nothing_to_do([state("file.managed")])
    assert not plan.nothing_to_do([state("immich_app.verified", result=None, comment="broken")])


def test_a_failure_is_told_once():
    states = [
        state("immich.applied", result=False, comment="immich was applied and failed; see below"),
        state("immich_folder.present", result=False, comment="The library is elsewhere"),
        state("pkg.installed", result=False, comment="One or more requisite failed", __state_ran__=False),
    ]
    assert plan.failures(states) == ["The library is elsewhere"]


def test_warnings_are_told_once():
    states = [state("a.b", warnings=["sign up"]), state("immich.applied", warnings=["sign up", "pin it"])]
    assert plan.warnings(states) == ["sign up", "pin it"]


def test_in_full_every_state_stands_with_its_changes(first):
    text = plan.in_full(first)
    for each in first:
        assert each["id"] in text
    assert "listen_addresses" in text


def test_nothing_that_a_terminal_acts_on_is_shown_or_written():
    nasty = "a \x1b]0;title\x07\x9b31m\x1b[2J\u202ename"
    failed = state("immich_app.verified", result=False, comment=f"{nasty}\nb", changes={nasty: {"old": nasty}})
    text = plan.in_full([failed])
    assert all(line.isprintable() for line in text.split("\n"))
    assert "    a  31m name\n    b\n" in text
    out = io.StringIO()
    screen.Screen(out).paragraph(nasty)
    screen.Screen(out).table([("Also", [nasty])])
    assert all(line.isprintable() for line in out.getvalue().split("\n"))


def test_next_steps_of_an_address_that_no_phone_reaches():
    steps = dict(plan.next_steps({**OVERVIEW, "urls": ["http://127.0.0.1:2283"], "local_only": True, "backup": None}))
    assert "docs/howto/reverse-proxy.md" in steps["Open"][1]
    assert steps["Backups"][0].startswith("none")


# -- Salt's log ----------------------------------------

LOG = """\
2026-11-27 04:45:21,101 [salt.state       :2383][INFO    ][2201] Executing state pkg.installed for [PostgreSQL is installed]
2026-11-27 04:46:23,540 [salt.state       :2556][INFO    ][2201] Completed state [PostgreSQL is installed] at time 04:46:23.5 (duration_in_ms=62439.0)
2026-11-27 04:46:23,601 [salt.state       :2383][INFO    ][2201] Executing state file.managed for [/etc/immich-gateway.nft]
""".splitlines()  # noqa: E501


def test_what_is_at_work_is_read_from_the_log():
    out = io.StringIO()
    titles = {("file.managed", "/etc/immich-gateway.nft"): "The gateway's firewall rules are written"}
    shown = run._Shown(screen.Screen(out), titles, lambda: "setting up postgresql-17", False)
    shown.log(LOG[0])
    assert shown.in_apt
    shown.log(LOG[1])
    assert not shown.in_apt
    assert out.getvalue() == "    62 s  PostgreSQL is installed\n"
    shown.log(LOG[2])
    assert shown.title == "The gateway's firewall rules are written"


def test_only_what_the_modules_say_is_shown_of_standard_error():
    shown = run._Shown(screen.Screen(io.StringIO()), {}, None, False)
    shown.error("[WARNING ] something of Salt's own")
    assert shown._told == ""
    shown.error("\x1b[0mPulling ghcr.io/immich-app/immich-server:v3.3.1: 3.4 of 86.0 MiB, 12 s")
    assert shown._told == "Pulling ghcr.io/immich-app/immich-server:v3.3.1: 3.4 of 86.0 MiB, 12 s"


# -- downloads ----------------------------------------


def test_addresses_of_apt():
    printed = (
        "Reading package lists...\n"
        "'http://deb.debian.org/debian/pool/main/v/valkey/valkey-server_8.1_amd64.deb' valkey-server_8.1.deb 46824 "
        "SHA256:abc\n'file:/srv/apt/tini_0.19_amd64.deb' tini_0.19_amd64.deb 255000 MD5Sum:1\n"
    )
    assert [(address[:6], size) for address, _, size, _ in downloads.URI.findall(printed)] == [
        ("http:/", "46824"),
        ("file:/", "255000"),
    ]


@pytest.mark.parametrize(
    ("number", "text"), ((999, "1 kB"), (46_824, "47 kB"), (9_500_000, "9.5 MB"), (185e6, "185 MB"), (1.05e9, "1.1 GB"))
)
def test_sizes(number, text):
    assert downloads.size(number) == text


@pytest.fixture
def failing(monkeypatch):
    """A function that lets each command end with this on its standard error."""

    def fail(error, status=100):
        def run(command, **kwargs):
            return subprocess.CompletedProcess(command, status, "", error)

        monkeypatch.setattr(subprocess, "run", run)

    return fail


def test_without_a_package_of_pgvector_it_says_where_there_is_one(failing):
    failing("E: Unable to locate package postgresql-15-pgvector\n")
    with pytest.raises(DeployError, match="Nothing of the plan was done") as stop:
        downloads.packages(["podman", "postgresql-15-pgvector"])
    ((file, heading),) = re.findall(r'see (\S+), "(.+)"', str(stop.value))
    text = (TOP / file).read_text(encoding="utf8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert "https://wiki.postgresql.org/wiki/Apt" in section


def test_another_package_that_is_missing_is_no_matter_of_pgvector(failing):
    failing("E: Unable to locate package podman\n")
    with pytest.raises(DeployError, match=r"Unable to locate package podman\nNothing of the plan was done\.$"):
        downloads.packages(["podman"])


def test_mirrors_that_do_not_answer_are_named(failing):
    failing("Err:1 http://deb.debian.org/p.deb\n  Could not resolve 'deb.debian.org'\nE: Failed to fetch p.deb\n")
    with pytest.raises(DeployError, match=r"deb\.debian\.org[\s\S]*/etc/apt name mirrors that answer\?"):
        downloads.have_mirrors(APT)


def test_without_pypi_it_says_what_it_needs(failing, monkeypatch):
    failing("WARNING: Retrying\nERROR: No matching distribution found for salt~=3008.0\n")
    monkeypatch.setattr(salt, "_run", lambda command, **kwargs: None)
    monkeypatch.setattr(salt, "apt_install", lambda packages: None)
    with pytest.raises(DeployError, match=r"No matching distribution found .*\nDoes this machine reach https://pypi"):
        salt.install(screen.Screen(io.StringIO()))


def test_each_download_of_apt_is_shown(tmp_path, monkeypatch):
    """Podman, PostgreSQL and Valkey are a state each: apt downloads and dpkg unpacks for one after the other."""
    log, partial = tmp_path / "dpkg.log", tmp_path / "archives/partial"
    partial.mkdir(parents=True)
    monkeypatch.setattr(downloads, "ARCHIVES", partial.parent)
    monkeypatch.setattr(downloads, "DPKG_LOG", log)
    clock = iter(range(int(time.time()) + 10, 1 << 40, 10))
    progress = downloads.apt_progress(200_000_000)

    def comes(name, size):
        with open(partial / name, "wb") as file:
            file.truncate(size)
        at(partial / name, partial)

    def came(name):
        (partial / name).rename(partial.parent / name)
        os.utime(partial.parent / name, (1, 1))
        at(partial, partial.parent)

    def dpkg(line):
        log.write_text(f"2026-11-27 04:36:16 {line} 5.4.2 <none>\n", encoding="ascii")
        at(log)

    def at(*paths):
        now = next(clock)
        for path in paths:
            os.utime(path, (now, now))

    assert progress() == "0 kB of 200 MB downloaded"
    comes("podman.deb", 50_000_000)
    came("podman.deb")
    assert progress() == "50 MB of 200 MB downloaded"
    dpkg("install podman:amd64")
    assert progress() == "unpacking podman"
    dpkg("configure podman:amd64")
    assert progress() == "setting up podman"
    comes("postgresql.deb", 70_000_000)
    assert progress() == "120 MB of 200 MB downloaded"
    came("postgresql.deb")
    comes("valkey.deb", 0)
    assert progress() == "120 MB of 200 MB downloaded"
    dpkg("install postgresql-17:amd64")
    assert progress() == "unpacking postgresql-17"


# -- which Salt ----------------------------------------


@pytest.fixture
def minion(tmp_path, monkeypatch):
    """A minion's configuration folder and a salt-call on the PATH; a function that looks for Salt there."""
    folder, programs = tmp_path / "salt", tmp_path / "bin"
    (folder / "minion.d").mkdir(parents=True)
    programs.mkdir()
    (programs / "salt-call").write_text("#!/bin/sh\n", encoding="ascii")
    (programs / "salt-call").chmod(0o755)
    (folder / "minion").write_text("#master: salt\n\n# file_roots:\n#   base:\n", encoding="ascii")
    monkeypatch.setattr(salt, "MINION", folder)
    return folder, programs


def test_no_salt_is_installed_here(tmp_path):
    found = salt.find(str(tmp_path))
    assert (found.kind, found.program) == ("own", salt.VENV / "bin/salt-call")


def test_its_own_wrapper_is_not_a_salt_of_the_machine(minion):
    _, programs = minion
    (programs / "salt-call").write_text(f"#!/bin/sh\n{salt.MARK}\nexec true\n", encoding="ascii")
    assert salt.find(str(programs)).kind == "own"


def test_a_distributions_salt_as_it_comes(minion):
    folder, programs = minion
    assert salt.find(str(programs)).kind == "machine's"
    (folder / "minion.d/immich-formula.conf").write_text(salt.ROOTS, encoding="ascii")
    assert salt.find(str(programs)).kind == "machine's"


@pytest.mark.parametrize("line", ("file_roots:\n  base: [/srv/salt]", "pillar_roots: {base: [/srv/pillar]}"))
def test_roots_of_its_administrator_stay(minion, line):
    folder, programs = minion
    (folder / "minion.d/own.conf").write_text(f"file_client: local  # here\n{line}\n", encoding="ascii")
    assert salt.find(str(programs)).kind == "configured"


def test_a_masters_minion_is_refused(minion):
    folder, programs = minion
    (folder / "minion.d/master.conf").write_text("master: salt.example.org\n", encoding="ascii")
    with pytest.raises(DeployError, match=r"docs/howto/master\.md"):
        salt.find(str(programs))
    (folder / "minion.d/local.conf").write_text("file_client: local\n", encoding="ascii")
    assert salt.find(str(programs)).kind == "machine's"
    (folder / "pki/minion").mkdir(parents=True)
    (folder / "pki/minion/minion_master.pub").touch()
    with pytest.raises(DeployError):
        salt.find(str(programs))


def test_a_foreign_file_in_the_wrappers_place_stays(tmp_path, monkeypatch):
    foreign = tmp_path / "salt-call"
    foreign.write_text("#!/bin/sh\n", encoding="ascii")
    monkeypatch.setattr(salt, "WRAPPER", foreign)
    with pytest.raises(DeployError, match="move it away"):
        salt.on_the_path(salt.Salt("own", salt.VENV / "bin/salt-call"))
    assert foreign.read_text(encoding="ascii") == "#!/bin/sh\n"


# -- the formula's place ----------------------------------------


def test_an_update_takes_the_place_of_the_formula(tmp_path, monkeypatch):
    monkeypatch.setattr(formula, "OPT", tmp_path / "opt")
    monkeypatch.setattr(formula, "CURRENT", tmp_path / "opt/formula")
    clone = tmp_path / "clone"
    (clone / "immich").mkdir(parents=True)
    (clone / "FORMULA").write_text("version: 202607\nfiles:\n  - FORMULA\n  - immich\n", encoding="ascii")
    (clone / "immich/init.sls").write_text("one", encoding="ascii")
    first = formula.install(clone)
    assert formula.install(clone) == first
    assert formula.use(first) is None
    (clone / "immich/init.sls").write_text("two", encoding="ascii")
    second = formula.install(clone)
    assert (formula.CURRENT / "immich/init.sls").read_text(encoding="ascii") == "one"
    assert formula.use(second) == first
    assert (formula.CURRENT / "immich/init.sls").read_text(encoding="ascii") == "two"
    # Run from its own place, as after the clone was deleted.
    assert formula.install(formula.CURRENT) == second
    formula.forget_others()
    assert list((tmp_path / "opt/releases").iterdir()) == [second]


def test_all_that_salt_needs_is_copied():
    copied = formula.copied(TOP)
    assert {"immich", "_beacons", "_modules", "_states", "_utils", "_output", "bin/installer", "docs"} <= set(copied)
    assert all((TOP / name).exists() for name in copied)
