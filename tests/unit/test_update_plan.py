"""Which version an apply may go to, by all that knows what the data belongs to."""

import pytest

from immich_core import findings, update_plan

IMAGE = "ghcr.io/immich-app/immich-server"
DIGEST = "@sha256:" + "0" * 64
# The last migrations of releases.
V2_7, V3_2_1, V3_3, NEWER = (
    "1775165531374-AddPersonNameTrigramIndex",
    "1789419229196-ConvertUserOAuthIdEmptyStringToNull",
    "1790693088454-AddPersonUserTableSharedBySharedWithConstraint",
    "1793000000000-AddAssetRating",
)


def restore(record):
    return f"salt-call immich.restore {record['backup']}"


class Host:
    """An installation: what the database has noted, its newest migration, the compose file, the record of an update."""

    def has(self, *noted, migration=V3_3, compose=None, record=None):
        self.noted = {"tables": 2, "migrations": [migration], "versions": list(noted)}
        self.image = compose and f"{IMAGE}:{compose}"
        self.record = record

    def plan(self, version, **update):
        settings = {
            "version": version,
            "server": {"image": f"{IMAGE}:{version}"},
            "update": {"backup": True, "database_version": None, **update},
        }
        if update_plan.stays(self.image, settings["server"]["image"], self.record):
            return {}
        return update_plan.decided(settings, self.image, self.record, self.noted, restore)

    def refusal(self, version, **update):
        """In words, as the state has it."""
        return findings.sentence(self.plan(version, **update)["refusal"])

    def start_refusal(self):
        return update_plan.start_refusal(self.image, self.record, self.noted, restore)


@pytest.fixture
def host():
    return Host()


def record(to, migrations, backup="/var/backups/immich/immich_20261124T203000Z_v3.3.1.dump"):
    """What an update from v3.3.1 has kept, with the migrations that there were before."""
    return {"from": "v3.3.1", "to": to, "image": f"{IMAGE}:{to}", "migrations": migrations, "backup": backup}


def test_migrations_count_though_nothing_else_tells_of_the_newer_version(host):
    host.has("2.5.6", migration=V2_7, compose="v2.5.5")
    refusal = host.refusal("v2.5.6")
    assert "v2.5.6 is older than v2.7.0, which the migrations in the database need at least" in refusal
    assert host.plan("v2.7.5")["refusal"] is None
    host.has("3.3.1", migration=NEWER, compose="v3.3.0")
    assert "set v3.3.2 or a newer version" in host.refusal("v3.3.1")


def test_an_update_that_never_saw_the_database_is_given_up_freely(host):
    host.has("3.3.1", compose="v3.4.0", record=record("v3.4.0", [V3_3]))
    assert host.plan("v3.3.1")["refusal"] is None
    assert host.refusal("v3.3.0").startswith("immich:version: v3.3.0 is older than v3.3.1")
    assert "immich.restore" not in host.refusal("v3.3.0")
    assert host.start_refusal() is None


def test_a_moving_tag_that_is_pinned_to_what_it_was_is_no_update(host):
    host.has("3.3.1", compose="v3")
    assert host.plan("v3.3.1") == {}
    plan = host.plan("v3.3.2")
    assert (plan["from"], plan["to"], plan["backup"]) == ("v3.3.1", "v3.3.2", True)
    host.has("3.3.1", compose="v3.3.1")
    assert host.plan(f"v3.3.1{DIGEST}") == {}
    assert host.refusal(f"v3.3.0{DIGEST}").startswith("immich:version: v3.3.0 is older than v3.3.1")
    assert host.refusal("v2").startswith("immich:version: v2 is older than v3.3.1")


def test_images_of_one_version_are_called_by_their_tags(host):
    host.has("3.3.1", compose="v3.3.1")
    plan = host.plan("v3.3.1-of-mine")
    assert (plan["from"], plan["to"], plan["backup"]) == ("v3.3.1", "v3.3.1-of-mine", True)
    host.has("3.3.1", compose="v3")
    plan = host.plan("release")
    assert (plan["from"], plan["to"]) == ("v3.3.1", "release")


@pytest.mark.parametrize("noted", ("999.0.0", "3.5.0"))
def test_a_version_that_cannot_be_true_is_named_with_the_line_that_overrides_it(host, noted):
    host.has(noted, compose="v3.3.1")
    refusal = host.plan("v3.3.2")["refusal"]
    assert refusal["path"] == "immich:version"
    assert refusal["seen"].startswith(f"v3.3.2 is older than v{noted}, which only the table version_history")
    assert "no newer image than v3.3.1 is known to have run on it" in refusal["seen"]
    assert refusal["remedy"] == "immich:update:database_version: v3.3.1"
    assert refusal["remedy"] in refusal["seen"]
    assert host.start_refusal() is None
    overridden = host.plan("v3.3.2", database_version="v3.3.1")
    assert (overridden["refusal"], overridden["from"], overridden["to"]) == (None, "v3.3.1", "v3.3.2")
    # The word is against that note alone.
    host.has("3.3.1", compose="v3.3.1")
    assert host.refusal("v3.3.0", database_version="v3.2.0").startswith("immich:version: v3.3.0 is older than v3.3.1")


def test_a_version_that_cannot_be_true_hides_no_other_that_is_noted(host):
    host.has("3.2.2", "999.0.0", migration=V3_2_1)
    for update in ({}, {"database_version": "v3.2.1"}):
        assert "v3.2.1 is older than v3.2.2, which is installed" in host.refusal("v3.2.1", **update)
    assert "v3.2.2 is older than v999.0.0" in host.refusal("v3.2.2")
    assert host.plan("v3.2.2", database_version="v3.2.1") == {}
    host.has("3.2.2", "999.0.0", migration=V3_2_1, compose="v3.2.2")
    assert host.start_refusal() is None


def test_without_a_compose_file_migrations_contradict(host):
    host.has("999.0.0", migration=V2_7)
    refusal = host.plan("v2.7.5")["refusal"]
    assert "the migrations in the database belong to v2.7.0 or a release soon after it" in refusal["seen"]
    assert refusal["remedy"] == "immich:update:database_version: v2.7.0"
    assert host.plan("v2.7.5", database_version="v2.7.5") == {}


def test_without_a_backup_the_advice_is_to_restore_one_of_ones_own(host):
    host.has("3.3.1", migration=NEWER, compose="v3.3.1", record=record("v3.4.97", [V3_3], backup=None))
    assert "restore one of your own" in host.refusal("v3.3.1")
    refused = host.start_refusal()
    assert refused["remedy"] == "immich:version: v3.4.97, then salt-call state.apply immich"


def test_an_empty_database_goes_to_any_version(host):
    host.has()
    host.noted = {"tables": 0, "migrations": [], "versions": []}
    assert host.plan("v1.90.0") == {}


def test_no_backup_is_due_where_the_pillar_says_so(host):
    host.has("3.3.1", compose="v3.3.1")
    assert host.plan("v3.3.2")["backup"] is True
    assert host.plan("v3.3.2", backup=False)["backup"] is False


def test_an_update_has_changed_the_database_if_its_migrations_differ():
    update = {"migrations": ["1"]}
    assert update_plan.changed_by(update, ["1", "2"]) == update
    assert update_plan.changed_by(update, ["1"]) is None
    assert update_plan.changed_by(None, ["1"]) is None
