"""What the backup's unit and configuration are made of, and what a person is told about backups. Nothing runs here."""

import copy
import json
import os
import time

import pytest
from salt.exceptions import CommandExecutionError

from host_core.command import CommandError
from immich_backup import problems, unit
from immich_io import backup_files

PILLAR = {
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-12", "admin_password": "admin-secret-123"},
}
HOUR = 3600
POSTGRES = 17  # of Debian 13, whose grains conftest.py gives


@pytest.fixture
def plan(loaders, modules):
    """A function from what the pillar says of PostgreSQL to the plan."""

    def make(**postgres):
        pillar = copy.deepcopy(PILLAR)
        pillar["postgres"].update(postgres)
        loaders.opts["pillar"]["immich"] = pillar
        return modules["immich.backup_plan"](modules["immich_settings.get"]())

    return make


def test_the_servers_own_user_dumps_over_the_socket(plan):
    made = plan()
    assert (made["user"], made["network"], made["password_pillar"]) == ("postgres", False, None)
    assert made["after"] == ["postgresql.service", f"postgresql@{POSTGRES}-main.service"]
    environment = json.loads(made["config"])["environment"]
    assert environment == {
        "PGHOST": "/var/run/postgresql",
        "PGPORT": "5432",
        "PGUSER": "postgres",
        "PGDATABASE": "immich",
    }


def test_a_server_elsewhere_is_asked_as_root_with_a_password_from_a_file(plan):
    admin = {"host": "db.example", "user": "boss", "password": "dba-secret-55555", "sslmode": "verify-full"}
    made = plan(managed=False, admin=admin)
    assert (made["user"], made["network"], made["after"]) == ("root", True, [])
    assert made["password_pillar"] == "immich:postgres:admin:password"
    environment = json.loads(made["config"])["environment"]
    assert environment["PGPASSFILE"] == made["files"]["passfile"]
    assert (environment["PGUSER"], environment["PGSSLMODE"]) == ("boss", "verify-full")
    assert "secret" not in json.dumps(made)


def test_a_socket_of_a_server_managed_otherwise_is_used_as_its_user(plan):
    made = plan(managed=False, admin={"host": "/run/pg", "os_user": "pgadmin"})
    assert (made["user"], made["network"], made["password_pillar"]) == ("pgadmin", False, None)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A function that says what is told, from hours since the timer elapsed and of the newest backup, and a status."""
    monkeypatch.setattr(backup_files, "STATUS", str(tmp_path / "status.json"))
    monkeypatch.setattr(problems, "STAMP", str(tmp_path / "stamp"))
    (tmp_path / "backups").mkdir()

    def ask(elapsed=None, newest=None, enabled=True, named=(), **last):
        if last:
            (tmp_path / "status.json").write_text(json.dumps(last), encoding="utf8")
        if elapsed is not None:
            (tmp_path / "stamp").touch()
            os.utime(tmp_path / "stamp", 2 * (time.time() - elapsed * HOUR,))
        if newest is not None:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - newest * HOUR))
            (tmp_path / f"backups/immich_{stamp}_v3.3.1.dump").touch()
            (tmp_path / "backups/immich_copy.dump").touch()
        for name in named:
            (tmp_path / f"backups/immich_{name}.dump").touch()
        settings = {
            "backup": {"directory": str(tmp_path / "backups"), "enabled": enabled},
            "postgres": {"database": "immich"},
        }
        return "".join(each["seen"] for each in problems.found(settings))

    return ask


@pytest.mark.parametrize(
    "found",
    (
        {},
        {"elapsed": 0},  # the timer was made just now, and has not run
        {"elapsed": 10, "newest": 9.9},
        {"elapsed": 10, "newest": 200, "enabled": False},
        {"elapsed": 0.1, "newest": 24, "state": "running"},
        {"elapsed": 10, "newest": 9.9, "state": "done"},
        {"elapsed": 10, "named": ["29990101T000000Z_v3.3.1_immich.empty"]},  # nobody has signed up yet
        {"elapsed": 10, "named": ["29990101T000000Z_v3.3.1_immich", "20260101T000000Z_v3.3.1_immich.empty"]},
    ),
)
def test_nothing_is_told_where_all_is_well(told, found):
    assert told(**found) == ""


@pytest.mark.parametrize(
    ("found", "words"),
    (
        ({"state": "failed", "error": "no room in /srv"}, "failed: no room in /srv"),
        ({"state": "failed", "error": "it was stopped", "enabled": False}, "it was stopped"),
        ({"elapsed": 10, "newest": 34}, "the newest backup is of"),
        ({"elapsed": 72}, "There is no backup of the database"),
        ({"elapsed": 72, "named": ["20260230T250000Z_v3.3.1_immich"]}, "There is no backup of the database"),
        ({"elapsed": 72, "named": ["29990101T000000Z_v3.3.1_photos"]}, "There is no backup of the database"),
        (
            {"elapsed": 10, "named": ["29990101T000000Z_v3.3.1_immich.empty", "20260101T000000Z_v3.3.1"]},
            "has no users",
        ),
    ),
)
def test_a_backup_that_is_missing_is_told(told, found, words):
    assert words in told(**found)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A function that starts the unit: ``last`` is what its program says, and ``fails`` what systemctl says."""
    monkeypatch.setattr(backup_files, "STATUS", str(tmp_path / "status.json"))
    monkeypatch.setitem(unit.FILES, "service", str(tmp_path / "immich-backup.service"))
    (tmp_path / "immich-backup.service").touch()

    def start(last=None, fails=None):
        def run(*words):
            if last:
                (tmp_path / "status.json").write_text(json.dumps({"time": time.time(), **last}), encoding="utf8")
            if fails:
                raise CommandError(["systemctl", *words], 1, fails)

        monkeypatch.setattr(unit.systemctl, "run", run)
        return unit.run()

    return start


def test_a_backup_that_was_made_is_returned(started):
    assert started({"state": "done", "result": {"name": "x"}}) == {"name": "x"}


@pytest.mark.parametrize(
    ("last", "fails", "reason"),
    (
        (
            {"state": "failed", "error": "no room in /srv"},
            "Job failed.",
            "There is no new backup: no room in /srv.",
        ),
        (None, "Job failed.\nSee systemctl", "There is no new backup: Job failed. See systemctl See `journalctl"),
        ({"state": "running"}, None, "There is no new backup: the program was killed"),
        # What the run before has said counts for nothing.
        ({"state": "done", "time": 1, "result": {}}, None, "There is no new backup: the program was killed"),
    ),
)
def test_why_there_is_no_new_backup_is_said(started, last, fails, reason):
    with pytest.raises(CommandExecutionError) as raised:
        started(last, fails)
    assert str(raised.value).startswith(reason)


def test_without_the_unit_its_component_is_named(started, tmp_path):
    (tmp_path / "immich-backup.service").unlink()
    with pytest.raises(CommandExecutionError, match=r"apply immich\.backup"):
        started(fails="Unit not found.")


def test_how_far_a_run_is_is_said_while_it_runs(tmp_path):
    so_far = {"done": 12 * 10**6, "expected": 48 * 10**6, "seconds": 3}
    run = {"state": "running", "pid": os.getpid(), "phase": "dumping", **so_far}
    assert backup_files.how_far(run) == "dumping: 12.0 MB of about 48.0 MB, 25 %, 4.0 MB/s, 3 s, about 9 s left"
    assert backup_files.how_far({**run, "done": 0, "expected": 0}) == "dumping: 0.0 MB, 3 s"
    assert backup_files.how_far({**run, "pid": 2**30}) == backup_files.how_far({}) == ""
