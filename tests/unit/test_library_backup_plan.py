"""The unit of the library's backup, its configuration, and what its settings must not be. Nothing runs here."""

import copy
import json
import time

import pytest

from immich_backup import library_plan, library_problems
from immich_core import library_backups
from immich_diagnosis import library_backup
from immich_io import library_backup_files

PILLAR = {
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-12", "admin_password": "admin-secret-123"},
}
LIBRARY = {"repository": "/mnt/usb/immich", "password": "library-secret-1"}
SFTP = {
    **LIBRARY,
    "repository": "sftp:backup@nas:/srv",
    "ssh_key": "-----BEGIN\nkey-secret\n",
    "ssh_known_hosts": "nas x",
}


@pytest.fixture
def settings(loaders, modules):
    """A function from what the pillar says of the library's backup to the settings."""

    def make(library, **more):
        loaders.opts["pillar"]["immich"] = {**copy.deepcopy(PILLAR), **more, "backup": {"library": library}}
        return modules["immich_settings.get"]()

    return make


@pytest.fixture
def errors(settings, modules):
    """A function from what the pillar says of the library's backup to what is wrong with it, by path."""

    def make(library, **more):
        settings(library, **more)
        prefix = "immich:backup:library:"
        return {each["path"].removeprefix(prefix): each["seen"] for each in modules["immich_settings.errors"]()}

    return make


def test_without_a_repository_there_is_none(settings, modules):
    assert modules["immich.library_backup_plan"](settings({})) is None


def test_folders_on_other_disks_are_in_the_library(settings, errors, modules):
    elsewhere = {"storage": {"thumbs": "/mnt/ssd/my thumbs"}}
    declared = settings(LIBRARY, **elsewhere)
    plan = modules["immich.library_backup_plan"](declared)
    assert 'BindReadOnlyPaths="/mnt/ssd/my thumbs":/run/immich-library/library/thumbs' in plan["sandbox"]
    assert '"/mnt/ssd/my thumbs"' in plan["mounts"]
    assert 'BindPaths="/mnt/ssd/my thumbs":/run/immich-library/library/thumbs' in library_plan.writing(
        declared, json.dumps
    )
    inside = {**LIBRARY, "repository": "/mnt/ssd/backup"}
    assert errors(inside, storage={"thumbs": "/mnt/ssd"})["repository"].startswith("overlaps immich:storage:thumbs")


def test_a_repository_on_this_host_needs_no_network(settings, modules):
    plan = modules["immich.library_backup_plan"](settings(LIBRARY, upload_location="/srv/my photos 100%"))
    assert "PrivateNetwork=yes" in plan["sandbox"]
    assert "RestrictAddressFamilies=AF_UNIX" in plan["sandbox"]
    assert 'ReadWritePaths="/mnt/usb/immich"' in plan["sandbox"]
    assert 'BindReadOnlyPaths="/srv/my photos 100%%":/run/immich-library/library' in plan["sandbox"]
    assert (plan["local"], plan["ssh"], plan["packages"]) == ("/mnt/usb/immich", False, ["restic"])
    assert "secret" not in json.dumps(plan)


def test_one_elsewhere_is_reached_by_the_unit_and_writes_nothing_here(settings, modules):
    plan = modules["immich.library_backup_plan"](settings(SFTP))
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6" in plan["sandbox"]
    assert not [line for line in plan["sandbox"] if line.startswith(("PrivateNetwork", "ReadWritePaths"))]
    assert plan["declared"] == ["ssh_key", "ssh_known_hosts"]
    assert plan["packages"] == ["restic", "openssh-client"]
    assert "key-secret" not in json.dumps(plan)


def test_it_can_read_all_files_and_nothing_else(settings):
    lines = library_plan.sandbox(settings(LIBRARY), json.dumps)
    assert "User=immich-backup" in lines
    assert "CapabilityBoundingSet=CAP_DAC_READ_SEARCH" in lines
    assert "ProtectSystem=strict" in lines


def test_external_libraries_are_read_on_request_as_the_container_sees_them(settings, modules, errors):
    folders = ["/mnt/photos", {"path": "/home/ana/My Pictures", "mount": "/mnt/ana 100%"}]
    asked = {**LIBRARY, "external_libraries": True}
    plan = modules["immich.library_backup_plan"](settings(asked, external_libraries=folders))
    bound = 'BindReadOnlyPaths=-"/home/ana/My Pictures":"/run/immich-library/external/mnt/ana 100%%"'
    assert bound in plan["sandbox"]
    assert json.loads(plan["config"])["external"] == ["external/mnt/photos", "external/mnt/ana 100%"]
    assert '"/mnt/photos"' in plan["mounts"]
    assert not [line for line in plan["sandbox"] if line.startswith("BindPaths")], "which only a restore writes to"
    plan = modules["immich.library_backup_plan"](settings(LIBRARY, external_libraries=folders))
    assert "external" not in str(plan["sandbox"])
    found = errors({**LIBRARY, "repository": "/mnt/photos/immich"}, external_libraries=folders)
    assert "overlaps immich:external_libraries:0" in found["repository"]


@pytest.mark.parametrize(
    ("library", "path", "words"),
    (
        ({"password": "library-secret-1"}, "repository", "is missing"),
        ({"repository": "/mnt/usb/immich"}, "password", "is required"),
        ({**LIBRARY, "password": "short"}, "password", "too short"),
        ({**LIBRARY, "password": " library-secret-1"}, "password", "space"),
        ({**LIBRARY, "repository": "nas:/srv"}, "repository", "must be a repository of restic"),
        ({**LIBRARY, "repository": "sftp:nas"}, "repository", "sftp:USER@HOST:PATH"),
        ({**LIBRARY, "repository": "rest:https://a:b@nas/"}, "repository", "RESTIC_REST_PASSWORD"),
        ({**LIBRARY, "repository": "/srv/immich/upload/backup"}, "repository", "overlaps immich:upload_location"),
        ({**LIBRARY, "repository": "/var/backups/immich/a"}, "repository", "overlaps immich:backup:directory"),
        ({**LIBRARY, "repository": "/run/a"}, "repository", "do not persist"),
        ({**LIBRARY, "repository": "/home"}, "repository", "take a directory below it"),
        ({**LIBRARY, "ssh_key": "a"}, "ssh_key", "begins with sftp:"),
        ({**LIBRARY, "environment": {"LD_PRELOAD": "a"}}, "environment:LD_PRELOAD", "is set by the formula"),
        ({**LIBRARY, "environment": {"a b": "a"}}, "environment:a b", "not the name of a variable"),
        (
            {**LIBRARY, "environment": {"B2_ACCOUNT_KEY": {"file": "/nonexistent"}}},
            "environment:B2_ACCOUNT_KEY",
            "cannot be read",
        ),
        ({**LIBRARY, "environment": {"B2_ACCOUNT_KEY": {}}}, "environment:B2_ACCOUNT_KEY", "must be a text"),
        ({**LIBRARY, "exclude": ["upload"]}, "exclude:0", "must not be left out"),
        ({**LIBRARY, "exclude": ["thumbs/../upload"]}, "exclude:0", "must not be left out"),
    ),
)
def test_what_is_refused(errors, library, path, words):
    found = errors(library)
    assert words in found[path], found
    assert "secret" not in str(found)


def test_what_is_accepted(errors):
    more = {"environment": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, "exclude": ["thumbs"]}
    assert errors({**LIBRARY, "repository": "s3:https://s3.example.org:9000/photos", **more}) == {}
    assert errors(SFTP) == {}


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """A function that makes what the program has noted."""
    monkeypatch.setattr(library_backup_files, "STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(library_backup_files, "RECORD", str(tmp_path / "record"))
    monkeypatch.setitem(library_plan.FILES, "config", str(tmp_path / "config"))

    def note(last=None, record=None):
        for name, value in (("status", last), ("record", record)):
            (tmp_path / name).write_text(json.dumps(value or {}), encoding="utf8")

    (tmp_path / "config").write_text("{}", encoding="utf8")
    return note


def test_a_failed_run_and_an_old_snapshot_are_reported(settings, noted):
    here, now = settings(LIBRARY), time.time()
    for last, made, codes in (
        ({"state": "failed", "error": "no route"}, now, ["library-backup-failed"]),
        ({"state": "done"}, now, []),
        ({"state": "done"}, now - 3 * 86400, ["library-backup-outdated"]),
        ({"state": "done"}, now + 86400, ["library-backup-outdated"]),
        ({"state": "running"}, now - 3 * 86400, []),
    ):
        noted(last, {"last": {"made": made}})
        assert [each["code"] for each in library_problems.found(here)] == codes
    noted()
    assert library_problems.found(here) == [], "it was set up just now"
    assert library_problems.found(settings({})) == []


def test_the_doctor_tells_how_far_it_is_and_how_old(noted, settings):
    salt = {"systemd_unit.status": lambda _: {"active": "inactive", "text": ""}}
    here = {"settings": settings(LIBRARY), "salt": {**salt, "immich.library_backup_warnings": library_problems.found}}

    def rows():
        return list(library_backup.GROUPS[0][0].function(here))

    noted()
    assert [row[:2] for row in rows()] == [("warning", "there is no snapshot of the library yet")]
    noted({"state": "running", "phase": "backing up", "done": 1e9, "expected": 4e9})
    assert rows() == [("ok", "one is under way, backing up: 25 % of 4.0 GB")]
    noted({"state": "done"}, {"last": {"made": time.time() - 7200, "files": 5, "bytes": 3e9}, "checked": 1795868829})
    assert rows() == [("ok", "the newest snapshot is 2 hours old: 5 files, 3.0 GB, repository checked 2026-11-28")]
    noted({"state": "failed", "error": "no route"})
    assert [(row[0], row[3]) for row in rows()] == [("failed", "library-backup-failed")]
    salt["systemd_unit.status"] = lambda _: {"active": "failed", "text": "exit-code"}
    noted({"state": "done"})
    here["salt"].update(salt)
    assert [row[0] for row in rows()] == ["failed"]


def test_a_record_that_is_none_is_empty(noted, tmp_path):
    (tmp_path / "record").write_text("[1]", encoding="utf8")
    assert library_backup_files.record() == {}
    (tmp_path / "record").write_text("{", encoding="utf8")
    assert library_backup_files.record() == {}
    assert library_backups.is_check_due(library_backup_files.record(), time.time())
