"""What becomes of an installation when the pillar describes another one."""

import json
import os
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

from _states import immich_identity as states_immich_identity
from immich_core import compose, findings, run_facts, storage
from immich_core import identity as core
from immich_host import identity as on_host
from immich_host import update
from immich_io import installation

THERE = {
    "server": "host.containers.internal:5432",
    "database": "immich",
    "role": "immich",
    "library": "/srv/immich/upload",
    "network": "immich",
    "project_dir": "/opt/podman/immich",
    "valkey_database": 0,
    "valkey_user": "immich",
    "server_user": "0:0",
    "machine_learning_user": "60884:60884",
}
# The chunks of a run, as Salt's states find them.
MIGRATES = (
    {"state": "immich_identity", "fun": "compared", "name": "x"},
    {"state": "immich_identity", "fun": "migrated", "name": "y"},
)
OWN = {"server_user": "60883:60883"}
MOUNTED = {"mounts": {"server_user": ["/srv/immich/upload/my thumbs"]}, "desired_users": OWN}
THUMBS = {"storage": {"thumbs": "/mnt/ssd"}}
INSIDE = "/srv/immich/upload/thumbs"
HERE = {"moved_from": None, "is_there": True, "has_marker": True}
GONE = {**HERE, "is_there": False, "has_marker": False}


def at_thumbs(**facts):
    """What is at the places of the library's folders, of which that of the thumbnails differs."""
    return {"storage": {**FACTS["storage"], "thumbs": {**HERE, **facts}}}


FACTS = {
    "library_is_there": True,
    "storage": dict.fromkeys(storage.FOLDERS, HERE),
    "library_moved_from": None,
    "os_user": "postgres",
    "database_moved_from": None,
    "database_is_there": True,
    "database_is_immichs": False,
    "former_is_there": True,
    "unasked": None,
    "network_users": [],
    "mounts": {"server_user": [], "machine_learning_user": []},
    "desired_users": {},
}
ELSEWHERE = {"server": "db.example:5432"}
PHOTOS = {"database": "photos"}
MOVED = {"library": "/srv/photos"}
# What the pillar changes, what the host says, and a part of the refusal, or None.
DECISIONS = {
    "nothing": ({}, {}, None),
    "database to one that is not there": (
        PHOTOS,
        {"database_is_there": False},
        'runuser -u postgres -- psql -c \'ALTER DATABASE "immich" RENAME TO "photos"\'',
    ),
    "database to an empty one": (PHOTOS, {}, "immich:postgres:database_moved_from: immich"),
    "database of a server elsewhere": (PHOTOS, {"os_user": None}, 'TO "photos"` as its superuser'),
    "database was renamed": (PHOTOS, {"database_is_immichs": True, "former_is_there": False}, None),
    "two databases of Immich": (PHOTOS, {"database_is_immichs": True}, "is a database of Immich too"),
    "database was restored": (PHOTOS, {"database_is_immichs": True, "database_moved_from": "immich"}, None),
    "database was not restored": (
        PHOTOS,
        {"database_moved_from": "immich"},
        "is not a database of Immich. Next step: restore it",
    ),
    "another was restored": (PHOTOS, {"database_is_immichs": True, "database_moved_from": "x"}, "set immich"),
    "both databases are gone": (
        PHOTOS,
        {"former_is_there": False},
        "is not a database of Immich. Next step: restore it",
    ),
    "database is gone": ({}, {"database_is_there": False}, 'CREATE DATABASE "immich"\''),
    "PostgreSQL is down": ({}, {"database_is_there": None, "unasked": "no answer"}, None),
    "PostgreSQL is down, database changed": (PHOTOS, {"database_is_there": None, "unasked": "no answer"}, "no answer"),
    "empty server": (ELSEWHERE, {"former_is_there": False}, "immich:postgres:host: the installation's database immich"),
    "server with the database": (ELSEWHERE, {"database_is_immichs": True}, None),
    "library": (MOVED, {}, "immich:upload_location_moved_from: /srv/immich/upload"),
    "library that was moved": (MOVED, {"library_moved_from": "/srv/immich/upload"}, None),
    "library that was not moved": (
        MOVED,
        {"library_moved_from": "/srv/immich/upload", "library_is_there": False},
        "/srv/photos does not exist",
    ),
    "library is gone": ({}, {"library_is_there": False}, "a mount missing?"),
    "folder": (THUMBS, {}, f"immich:storage_moved_from:thumbs: {INSIDE}"),
    "folder that was moved": (THUMBS, at_thumbs(moved_from=INSIDE), None),
    "folder that was not moved": (
        THUMBS,
        at_thumbs(moved_from=INSIDE, has_marker=False),
        f"cp -a {INSIDE}/. /mnt/ssd",
    ),
    "folder and library that were moved": (
        {**THUMBS, **MOVED},
        {**at_thumbs(moved_from=INSIDE), "library_moved_from": "/srv/immich/upload"},
        None,
    ),
    "network": ({"network": "photos"}, {}, None),
    "network that others use": ({"network": "photos"}, {"network_users": ["shop"]}, "immich, which shop use"),
    "directory": ({"project_dir": "/srv/projects/immich"}, {}, None),
    "role": ({"role": "photographer"}, {}, None),
    "Valkey's number": ({"valkey_database": 3}, {}, None),
    "Valkey's user": ({"valkey_user": "photographer"}, {}, None),
    "the server's user": (OWN, {}, None),
    "the server's user, with a mount below": (
        OWN,
        MOUNTED,
        "chown -R 60883:60883 '/srv/immich/upload/my thumbs'; then apply again",
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_a_part_is_migrated_or_refused(case):
    desired, facts, words = DECISIONS[case]
    plan = core.compare(THERE, {**THERE, **desired}, {**FACTS, **facts})
    changed = {part: {"old": THERE.get(part), "new": value} for part, value in desired.items()}
    # A folder that leaves the library is a change of what was not on record.
    assert plan["changes"] == {part: change for part, change in changed.items() if change["old"] is not None}
    text = "".join(map(findings.sentence, plan["refusals"]))
    assert (words in text) if words else plan["refusals"] == []


def test_a_folder_elsewhere_is_missed_where_it_is_gone_and_where_the_pillar_no_longer_names_it():
    apart = {**THERE, **THUMBS}
    (gone,) = core.compare(apart, apart, {**FACTS, **at_thumbs(**GONE)})["refusals"]
    assert (gone["code"], gone["seen"]) == (
        "storage-gone",
        "/mnt/ssd was this installation's folder thumbs and is gone: is a mount missing?",
    )
    plan = core.compare(apart, {**THERE, "storage": None}, FACTS)
    assert plan["changes"] == {"storage": {"old": {"thumbs": "/mnt/ssd"}, "new": None}}
    assert [each["seen"] for each in plan["refusals"]] == [
        f"the installation's folder thumbs is /mnt/ssd, not {INSIDE}"
    ]
    back = core.compare(apart, {**THERE, "storage": None}, {**FACTS, **at_thumbs(moved_from="/mnt/ssd")})
    assert back["refusals"] == []


def test_clean_keeps_the_folders_with_the_library():
    apart = {**THERE, **THUMBS}
    kept = core.kept(apart, {"delete_uploads": None, "delete_database": None})
    assert kept["storage"] == {"thumbs": "/mnt/ssd"}
    assert "storage" not in core.kept(apart, {"delete_uploads": apart["library"], "delete_database": None})


def test_all_refusals_come_at_once_and_name_the_pillar():
    desired = {**THERE, **PHOTOS, **MOVED, "network": "photos"}
    refusals = core.compare(THERE, desired, {**FACTS, "network_users": ["shop"]})["refusals"]
    paths = ["immich:upload_location", "immich:postgres:database", "immich:network"]
    assert [refusal["path"] for refusal in refusals] == paths
    assert all(refusal["remedy"] for refusal in refusals)


@pytest.mark.parametrize("there", ({}, {"library": "/srv/immich/upload"}))
def test_what_is_not_known_cannot_differ(there):
    facts = {**FACTS, "database_is_there": False}
    assert core.compare(there, THERE, facts) == {"refusals": [], "changes": {}}


@pytest.fixture
def identity(monkeypatch, tmp_path):
    """What is known of the installation, with record and unit below ``tmp_path``."""
    monkeypatch.setattr(installation, "RECORD", tmp_path / "lib/installation.json")
    monkeypatch.setattr(on_host, "UNIT", tmp_path / "immich.service")
    return on_host


@pytest.fixture
def migration(identity, modules, monkeypatch):
    """The module of the states, with the same record, in a run of its own."""
    monkeypatch.setattr(states_immich_identity, "__context__", {}, raising=False)
    monkeypatch.setattr(states_immich_identity, "__salt__", modules, raising=False)
    return states_immich_identity


@pytest.fixture
def deployed(modules, settings, tmp_path):
    """A function that writes compose file and unit of settings into a directory with an awkward name."""
    directory = tmp_path / 'pro$ject 100% "x"'
    directory.mkdir()
    settings["project_dir"] = str(directory)
    settings["upload_location"] = "/srv/a$b"
    (directory / "docker-compose.yml").write_text(compose.text(settings, "pgvector"), encoding="utf8")
    word = modules.immich_app.unit(settings)["directory"]
    (tmp_path / "immich.service").write_text(f"[Service]\nExecStart=/x run --directory {word}\n", encoding="utf8")
    return settings


def test_an_installation_without_a_record_is_known_by_unit_and_compose_file(identity, deployed):
    assert identity.known("/nonexistent") == {
        part: value for part, value in core.declared(deployed).items() if value is not None
    }
    assert not installation.record()


def test_a_compose_file_of_somebody_else_says_what_it_says(identity, deployed, tmp_path):
    theirs = {"services": {"immich-server": {"image": "x", "volumes": ["/photos:/data"], "environment": ["A=b"]}}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other/docker-compose.yml").write_text(json.dumps(theirs), encoding="utf8")
    (tmp_path / "immich.service").unlink()
    directory = str(tmp_path / "other")
    assert identity.known(directory) == {"project_dir": directory, "library": "/photos"}
    theirs["services"]["immich-server"]["volumes"].append("/mnt/s$$d:/data/thumbs")
    (tmp_path / "other/docker-compose.yml").write_text(json.dumps(theirs), encoding="utf8")
    assert identity.known(directory)["storage"] == {"thumbs": "/mnt/s$d"}
    assert identity.known("/nonexistent") == {}


def test_the_record_is_written_whole_and_for_root_alone(migration, tmp_path):
    migration._note(role="immich", former_role="old")
    assert not run_facts.of(migration.__context__).migrated
    migration._note(network="photos", former_role=None)
    assert run_facts.of(migration.__context__).migrated
    record = tmp_path / "lib/installation.json"
    assert json.loads(record.read_text(encoding="utf8")) == {
        "format": 1,
        "parts": {"network": "photos", "role": "immich"},
    }
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in record.parent.iterdir()] == [record.name]
    installation.forget()
    assert not record.parent.exists()


def test_a_record_for_which_the_disk_is_full_is_named_and_nothing_half_stays(full_disk, monkeypatch, tmp_path):
    record = tmp_path / "installation.json"
    record.write_text('{"format": 1, "parts": {"role": "before"}}')
    monkeypatch.setattr(installation, "RECORD", record)
    with pytest.raises(OSError, match=f"{record} cannot be written: File too large"), full_disk():
        installation.note(role="after")
    assert os.listdir(tmp_path) == [record.name]
    assert json.loads(record.read_text())["parts"] == {"role": "before"}


@pytest.mark.parametrize(
    ("text", "words"),
    (("{", "cannot be read"), ("[]", "cannot be read"), ('{"format": 9, "parts": {}}', "newer formula")),
)
def test_a_record_that_cannot_be_understood_is_no_missing_one(identity, modules, deployed, tmp_path, text, words):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/installation.json").write_text(text, encoding="utf8")
    with pytest.raises(CommandExecutionError, match=words):
        identity.plan(deployed, modules)
    assert identity.current(deployed) == core.declared(deployed)


def test_a_former_directory_keeps_what_is_not_the_formulas(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "secrets").mkdir(parents=True)
    new.mkdir()
    secrets = ("db_password", "redis_password", "server_settings", "ca_certificates")
    for name in ("docker-compose.yml", "update.json", "notes", *(f"secrets/{name}" for name in secrets)):
        (old / name).write_text(name, encoding="utf8")
    assert installation.move_project(str(old), str(new)) == ["notes"]
    assert {path.name: path.stat().st_mode & 0o777 for path in new.iterdir()} == {"update.json": 0o600}
    (old / "notes").unlink()
    # As after a run that ended before the record was written.
    assert installation.move_project(str(old), str(new)) == []
    assert not old.exists()
    assert (new / "update.json").read_text(encoding="utf8") == "update.json"


CLEANED = {
    "nothing deleted": ({}, {"server", "database", "role", "library"}),
    "library deleted": ({"delete_uploads": "/srv/immich/upload"}, {"server", "database", "role"}),
    "database deleted": ({"delete_database": "immich"}, {"library"}),
    "both deleted": ({"delete_uploads": "/srv/immich/upload", "delete_database": "immich"}, set()),
    "others named": ({"delete_uploads": "/srv/x", "delete_database": "x"}, {"server", "database", "role", "library"}),
}


@pytest.mark.parametrize("case", CLEANED)
def test_clean_leaves_on_record_what_it_leaves_on_the_host(identity, settings, case):
    clean, kept = CLEANED[case]
    settings["clean"].update(clean)
    installation.note(**THERE)
    assert set(core.kept(identity.known(), settings["clean"])) == kept


def test_owners_that_cannot_be_changed_are_found_while_immich_serves(monkeypatch, testmode):
    """A container can make directories without end: its doing must not be found once it is stopped."""

    def too_deep(*_):
        raise OSError(40, "nested more than 100 directories deep", "/srv/immich/upload/a")

    plan = {"refusals": [], "changes": {"server_user": {"old": "0:0", "new": "60883:60883"}}}
    monkeypatch.setattr(update, "plan", lambda *_: {})
    monkeypatch.setattr(on_host, "plan", lambda *_: plan)
    monkeypatch.setattr(on_host, "known", lambda _: THERE)
    monkeypatch.setattr(states_immich_identity, "_planned_owner", too_deep)
    monkeypatch.setattr(states_immich_identity, "__context__", {}, raising=False)
    monkeypatch.setattr(states_immich_identity, "__salt__", {}, raising=False)
    monkeypatch.setattr(states_immich_identity, "__opts__", {"test": testmode}, raising=False)
    monkeypatch.setattr(states_immich_identity, "__lowstate__", MIGRATES, raising=False)
    ret = states_immich_identity.compared("x", settings={"project_dir": "/opt/podman/immich"})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "nested more than 100" in ret["comment"]
    assert ret["comment"].endswith("Nothing was changed")


@pytest.fixture
def comparing(migration, settings, monkeypatch, testmode):
    """A function that compares an installation whose network the pillar changes, and how often that was asked."""
    asked = []

    def plan(*_):
        asked.append("plan")
        return {"refusals": [], "changes": {"network": {"old": "immich", "new": "photos"}}}

    monkeypatch.setattr(update, "plan", lambda *_: {})
    monkeypatch.setattr(on_host, "plan", plan)
    monkeypatch.setattr(on_host, "known", lambda _: THERE)
    monkeypatch.setattr(migration, "__salt__", {})
    monkeypatch.setattr(migration, "__opts__", {"test": testmode}, raising=False)
    monkeypatch.setattr(migration, "__lowstate__", MIGRATES, raising=False)
    installation.note(**THERE)
    return SimpleNamespace(asked=asked, compare=lambda: migration.compared("x", settings))


def test_only_a_run_that_migrates_may_change_the_installation(migration, comparing, monkeypatch):
    monkeypatch.setattr(migration, "__lowstate__", MIGRATES[:1])
    refused = comparing.compare()
    assert refused["result"] is False
    assert "immich becomes photos. Next step: salt-call state.apply immich" in refused["comment"]
    monkeypatch.setattr(migration, "__lowstate__", MIGRATES)
    allowed = comparing.compare()
    assert (allowed["result"], allowed["changes"]) == (True, {})


def test_what_changes_is_asked_once_and_again_after_a_change_of_the_record(migration, comparing, settings, monkeypatch):
    monkeypatch.setattr(migration, "__opts__", {"test": True})
    comparing.compare()
    assert migration.network_replaced("x", settings)["changes"]
    assert len(comparing.asked) == 1
    migration._note(network="photos")
    migration.network_replaced("x", settings)
    assert len(comparing.asked) == 2
    comparing.compare()
    assert len(comparing.asked) == 3


def test_a_dry_run_knows_what_it_would_remove_before_the_network(migration, comparing, monkeypatch, settings, testmode):
    given = {}
    steps = {"podman_network.present": lambda **arguments: given.update(arguments)}
    monkeypatch.setattr(migration, "__states__", steps, raising=False)
    migration.network_present("photos", {"name": "photos", "subnet": "172.20.0.0/16"})
    assert given == {"name": "photos", "subnet": "172.20.0.0/16", "removed_containers": (), "replaces": None}
    monkeypatch.setattr(migration, "_replace_network", lambda *_: "The network immich was removed")
    assert migration.network_replaced("x", settings)["result"] is (None if testmode else True)
    run_facts.of(migration.__context__).removed_containers = ("immich-server",)
    migration.network_present("photos", {"subnet": "172.20.0.0/16"})
    assert (given["removed_containers"], given["replaces"]) == (("immich-server",), "immich")
