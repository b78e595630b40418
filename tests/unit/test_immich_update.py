"""Versions of Immich: what a tag says, which can follow which, and to which one a database belongs."""

import json
import os
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from immich_core import run_facts, update_plan, versions
from immich_host import update

MIGRATIONS = Path(__file__).resolve().parents[1] / "standin/server/migrations.json"
DIGEST = "@sha256:" + "0" * 64
IMAGE = "ghcr.io/immich-app/immich-server"
VERSIONS = {
    "v3.3.1": [3, 3, 1],
    "3.3.1": [3, 3, 1],
    f"{IMAGE}:v1.132.3": [1, 132, 3],
    "registry.test:5000/immich-server:v3.3.1-cuda": [3, 3, 1],
    "3.2.0-rc.0": [3, 2, 0],
    f"{IMAGE}:v3.3.1{DIGEST}": [3, 3, 1],
    "registry.test:5000/immich-server": None,
    f"{IMAGE}:v3": None,
    f"{IMAGE}:v3{DIGEST}": None,
    f"{IMAGE}:release": None,
    f"{IMAGE}{DIGEST}": None,
    "v3.3.1.4": None,
    "v3.3.1x": None,
    "v3.03.1": None,
    "v3.3." + "9" * 5000: None,
    "v\u0663.3.1": None,
    "": None,
}
# From, to, and a part of the refusal.
WAYS = (
    ("v3.3.1", "v3.3.1", None),
    ("v3.3.1", "v3.3.2", None),
    ("v2.7.0", "v3.4.0", None),
    ("v3.0.9", "v3.0.10", None),
    ("v3.3.2", "v3.3.1", "cannot be downgraded"),
    ("v3.4.0", "v3.3.98", "cannot be downgraded"),
    ("v3.0.10", "v3.0.9", "cannot be downgraded"),
    ("v3.3.1", "v1.132.3", "cannot be downgraded"),
    ("v3.3.1", "v2", "cannot be downgraded"),
    ("v3.3.1", f"v3.2{DIGEST}", "cannot be downgraded"),
    ("v3.3.1", "v3", None),
    ("v3.3.1", "v3.3", None),
    # https://docs.immich.app/errors#typeorm-upgrade
    ("v1.131.3", "v3.3.1", "Set v1.132.3"),
    ("v1.131.3", "v3", "Set v1.132.3"),
    ("v1.131.3", "v1", "Set v1.132.3"),
    ("v1.90.0", "v1.137.0", "Set v1.132.3"),
    ("v1.131.0", "v1.136.0", "Set v1.132.3"),
    ("v1.131.3", "v1.135.3", None),
    ("v1.131.3", "v1.132.3", None),
    ("v1.131.3", "v1.132.0", None),
    ("v1.132.0", "v3.3.1", None),
    ("v1.132.2", "v1.137.0", None),
    ("v1.132.3", "v3.3.1", None),
    ("v3", "v3.3.1", None),
    ("v3.3.1", "release", None),
)
SAME = (
    ("ghcr.io/a/server:v3.3.1", "registry.test:5000/server:v3.3.1", True),
    (f"{IMAGE}:v3.3.1", f"{IMAGE}:v3.3.1{DIGEST}", True),
    (f"{IMAGE}:v3.3.1", f"{IMAGE}:v3.3.1-of-mine", False),
    (f"{IMAGE}:v3", f"{IMAGE}:v3", True),
    (f"{IMAGE}:v3", f"{IMAGE}:v3{DIGEST}", False),
    (f"{IMAGE}:v3{DIGEST}", f"{IMAGE}:v3{DIGEST}", True),
    (f"{IMAGE}:v3", f"{IMAGE}:v3.3.1", False),
)
LAST_OF_2_7_5 = "1775165531374-AddPersonNameTrigramIndex"
LAST_OF_3_3_1 = "1790693088454-AddPersonUserTableSharedBySharedWithConstraint"
# What the database has noted, its newest migration, the image that runs, and to which version it belongs.
DATA = (
    ([], [], None, None),
    (["3.3.1", "2.7.5"], [], None, [3, 3, 1]),
    (["2.5.6"], [LAST_OF_2_7_5], None, [2, 7, 0]),
    (["2.5.6"], [LAST_OF_2_7_5], f"{IMAGE}:v2.7.5", [2, 7, 5]),
    (["2.5.6"], [LAST_OF_2_7_5], f"{IMAGE}:v2.5.6", [2, 7, 0]),
    (["2.5.6"], [LAST_OF_2_7_5], f"{IMAGE}:release", [2, 7, 0]),
    (["2.7.5"], [LAST_OF_2_7_5], f"{IMAGE}:v3.3.1", [2, 7, 5]),
    (["rubbish", "3.3.1; rm"], [LAST_OF_2_7_5], None, [2, 7, 0]),
    (["1.131.3"], ["AddMissingIndex1744910873956"], None, [1, 131, 3]),
    ([], ["1799999999999-NobodyKnows"], None, [3, 3, 2]),
    (["3.9.0"], ["1799999999999-NobodyKnows"], None, [3, 9, 0]),
    (["999.0.0", "2.7.5"], [LAST_OF_2_7_5], None, [2, 7, 5]),
    (["999.0.0"], [LAST_OF_2_7_5], f"{IMAGE}:v2.7.5", [2, 7, 5]),
    (["3.9.0", "2.7.5"], [LAST_OF_2_7_5], None, [2, 7, 5]),
    (["3.3.2", "3.3.1"], [LAST_OF_3_3_1], None, [3, 3, 2]),
    (["3.3.2", "3.3.1"], [LAST_OF_3_3_1], f"{IMAGE}:v3.3.1", [3, 3, 1]),
)
# What the database has noted, its newest migration, the images that may have run, and what contradicts the newest note.
CONTRADICTIONS = (
    ([], [], [], None),
    (["rubbish"], [LAST_OF_2_7_5], [], None),
    (["999.0.0"], [], [], None),
    (["999.0.0"], [LAST_OF_2_7_5], [], "the migrations in the database belong to v2.7.0"),
    (["999.0.0"], [LAST_OF_3_3_1], [], "the migrations in the database belong to v3.3.0"),
    (["999.0.0"], ["AddMissingIndex1744910873956"], [], "the migrations in the database are older than v1.132.0"),
    (["999.0.0"], [], [f"{IMAGE}:v3.3.1"], "no newer image than v3.3.1"),
    (["999.0.0"], [], [f"{IMAGE}:v3"], "no newer image than v3 "),
    (["999.0.0"], [LAST_OF_3_3_1], [f"{IMAGE}:release"], "belong to v3.3.0"),
    (["3.3.2"], [LAST_OF_3_3_1], [f"{IMAGE}:v3.3.1"], "no newer image than v3.3.1"),
    (["3.3.2"], [LAST_OF_3_3_1], [f"{IMAGE}:v3.3.1", f"{IMAGE}:v3.3.2"], None),
    (["3.3.2"], [LAST_OF_3_3_1], [f"{IMAGE}:v3.3.1", f"{IMAGE}:release"], None),
    # A release without migrations of its own may be the one that nobody here knows.
    (["3.9.0"], [LAST_OF_3_3_1], [], None),
    (["2.7.5"], [LAST_OF_2_7_5], [], None),
    (["3.0.0"], [LAST_OF_2_7_5], [], None),
    (["3.0.3"], [LAST_OF_2_7_5], [], "belong to v2.7.0"),
    # An update that has changed the database, and the image before is back.
    (["3.4.0"], ["1793000000000-AddAssetRating"], [f"{IMAGE}:v3.3.1"], None),
)


@pytest.mark.parametrize("text", VERSIONS)
def test_version_of_a_tag_or_image(text):
    assert versions.parse(text) == (VERSIONS[text] and tuple(VERSIONS[text]))


@pytest.mark.parametrize(("found", "desired", "refusal"), WAYS)
def test_ways_from_version_to_version(found, desired, refusal):
    found, desired = versions.parse(found), versions.highest(desired)
    refused = update_plan.obstacle(found, desired, "immich:server:image")
    if refusal is None:
        assert refused is None
    else:
        assert refusal in refused["seen"]
        assert f"et {versions.allowed(found, desired)}" in refused["seen"]
        assert refused["remedy"] == f"immich:version: {versions.allowed(found, desired)}"
        assert refused["path"] == "immich:server:image"


@pytest.mark.parametrize(("one", "other", "same"), SAME)
def test_images_of_one_version(one, other, same):
    assert versions.same(one, other) is same
    assert versions.same(other, one) is same


@pytest.mark.parametrize(("noted", "migrations", "image", "version"), DATA)
def test_the_version_that_a_database_belongs_to(noted, migrations, image, version):
    found = versions.of_data(noted, migrations, image)
    assert (found and list(found)) == version


@pytest.mark.parametrize(("noted", "migrations", "images", "why"), CONTRADICTIONS)
def test_a_version_that_cannot_be_true_is_contradicted(noted, migrations, images, why):
    credible, doubt = versions.credible(noted, migrations, images)
    newest = max(filter(None, map(versions.parse, noted)), default=None)
    if why:
        assert (credible, doubt[0]) == (None, newest)
        assert why in doubt[1]
    else:
        assert (credible, doubt) == (newest, None)


def test_each_migration_that_is_known_belongs_to_its_release():
    """As a database has them: all that came before, in whatever order."""
    before = []
    for release, names in json.loads(MIGRATIONS.read_text(encoding="utf8")).items():
        for name in names:
            before.insert(0, name)
            # Of a release that is made up it is known that it is newer than any that is known.
            expected = "v3.3.2" if release == "3.4.0" else f"v{release}"
            assert versions.text(versions.since(before)) == expected, name
        assert versions.credible([release], before) == (versions.parse(release), None)
    assert len([name for name in before if name <= LAST_OF_2_7_5]) == 68  # counted in a database of v2.7.5


def test_after_a_migration_it_is_said_that_nothing_is_put_back():
    context = {}
    run_facts.of(context).migrated = True
    said = update.roll_back("immich.service", {}, "port 2283 is in use", context, {})
    assert said.startswith("immich.service does not serve: port 2283 is in use\n")
    assert "not put back, as the installation was migrated in this run" in said


def test_a_full_disk_is_named_and_nothing_half_stays(full_disk, tmp_path):
    """Through its own writer: on a whole host the disk is full for the backup before."""
    record = tmp_path / "update.json"
    record.write_text("before")
    with pytest.raises(CommandExecutionError, match=f"{record} cannot be written: File too large"), full_disk():
        update._write(record, "x" * 100000, 0o600)
    assert os.listdir(tmp_path) == [record.name]
    assert record.read_text() == "before"


SERVING = "x-immich-stack: {ping: http://127.0.0.1:2283/api/server/ping}\n"


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """A project's directory with a compose file and Immich's own settings, and the formula's settings for it."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "docker-compose.yml").write_text(SERVING)
    (tmp_path / "secrets/server_settings").write_text('{"trash": {"days": 7}}\n')
    monkeypatch.setattr(update.identity, "project_dir", lambda _settings: str(tmp_path))
    monkeypatch.setattr(update.service, "serves", lambda _settings, _run: True)
    return tmp_path, {"server": {"user": f"{os.getuid()}:{os.getgid()}"}}


def test_both_files_are_kept_before_one_of_them_changes(installation):
    directory, settings = installation
    update.keep_former(settings, {}, compose=SERVING)
    update.keep_former(settings, {}, server_settings='{"trash": {"days": 7}}\n')
    assert not (directory / "update.json").exists()
    update.keep_former(settings, {}, server_settings="{}\n")
    (directory / "secrets/server_settings").write_text("{}\n")
    update.keep_former(settings, {}, compose="another")
    record = json.loads((directory / "update.json").read_text())
    assert record == {"what": "settings", "compose": SERVING, "server_settings": '{"trash": {"days": 7}}\n'}
    assert (directory / "update.json").stat().st_mode & 0o777 == 0o600


def test_both_files_are_put_back(installation):
    directory, settings = installation
    own = directory / "secrets/server_settings"
    update._put_back(settings, {"compose": "former", "server_settings": "of Immich"})
    assert ((directory / "docker-compose.yml").read_text(), own.read_text()) == ("former", "of Immich")
    assert own.stat().st_mode & 0o777 == 0o400
    # What was not there before is named by no compose file any more.
    update._put_back(settings, {"compose": "of an older formula"})
    assert ((directory / "docker-compose.yml").read_text(), own.read_text()) == ("of an older formula", "of Immich")
