"""From one version of Immich to another, and back where the other does not serve."""

import json
import re

import pytest

from tests.scenarios.conftest import PRINTABLE, changed, get, on_terminal, pillar_with, post, recreated
from tests.scenarios.test_interrupted import KILL_AT
from tests.scenarios.test_service import ids

PSQL = "runuser -u postgres -- psql -At"
RECORD = "/opt/podman/immich/update.json"
# Broken versions that the stand-in plays: see tests/standin/images.py.
NEVER_ANSWERS, EXITS_AT_START = "v3.3.96", "v3.3.97"
EXITS_AFTER_MIGRATION, UNHEALTHY_AFTER_MIGRATION = "v3.4.97", "v3.4.98"
# A secret that changes in the run that updates: Salt calls `mod_watch` of a state that watches it, after a failure too.
OTHER_PASSWORDS = {
    "postgres": {"password": PRINTABLE[7:] + PRINTABLE[:7]},
    "valkey": {"password": PRINTABLE[9:] + PRINTABLE[:9]},
}


def failures(host, **kwargs):
    return [state for state in host.apply(check=False, **kwargs) if state["result"] is False]


def told(host):
    """All that a failed run says."""
    return "\n".join(state["comment"] for state in failures(host))


def data(host):
    """What must not be lost: rows as PostgreSQL has them, and files."""
    names = ("user", "smart_search", "face_search", "asset_ocr", "ocr_search")
    tables = {table: f'SELECT * FROM "{table}" ORDER BY 1' for table in names}
    # A newer version may have added columns.
    tables["asset"] = 'SELECT id, "originalPath", "originalFileName", checksum, "createdAt" FROM asset ORDER BY 1'
    rows = {name: host.out(f"{PSQL} immich", stdin=f"{query};") for name, query in tables.items()}
    # The server writes its markers anew at each start.
    files = host.out("cd /srv/immich/upload && find . -type f ! -name .immich | sort | xargs sha256sum")
    return {**rows, "files": files}


def fill(host):
    """Some rows and files; what is there afterwards."""
    for _ in range(5):
        post(host, "/standin/assets")
    return data(host)


def database_versions(host):
    return sql(host, 'SELECT version FROM version_history ORDER BY "createdAt"').splitlines()


def noted(host, version):
    """Whether the server comes to note its version, which it does some seconds after it serves."""
    host.wait_for(f"{PSQL} immich -c \"SELECT 1 FROM version_history WHERE version = '{version}'\" | grep -q 1", 300)
    return database_versions(host)[-1] == version


def sql(host, statement):
    return host.out(f"{PSQL} immich", stdin=f"{statement};")


def backups(host):
    return host.salt("immich.backups")


def test_update_with_a_backup_before_it_and_the_downtime_after_it(own_host):
    host = own_host
    before, known = fill(host), len(backups(host))
    host.pillar(pillar_with(version="v3.4.0"))
    planned = host.apply(test=True)
    assert len(backups(host)) == known
    done = host.apply()
    assert {name: set(changes) for name, changes in changed(planned).items()} == {
        name: set(changes) for name, changes in changed(done).items()
    }
    comments = {state["id"]: state["comment"] for state in done}
    assert "from v3.3.1 to v3.4.0" in comments["Immich's update is prepared"]
    assert "downtime was" in comments["Immich is running"]
    (backup,) = [
        each for each in backups(host) if each["path"] == changed(done)["Immich's update is prepared"]["backup"]["new"]
    ]
    assert backup["version"].lstrip("v") == "3.3.1"
    assert data(host) == before
    # As it is in the seconds before the new version is noted.
    assert noted(host, "3.4.0")
    sql(host, "DELETE FROM version_history WHERE version = '3.4.0'")
    host.pillar(pillar_with())
    for test in (True, False):
        assert "immich:version: v3.3.1 is older than v3.4.0" in failures(host, test=test)[0]["comment"]
    assert get(host, "/api/server/version")["minor"] == 4
    host.pillar(pillar_with(version="v3.4.0"))
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1
    assert changed(host.apply()) == {}


@pytest.mark.long
def test_what_immich_cannot_do_is_refused_before_anything_changes(host):
    before = ids(host)

    def refused(*parts, **changes):
        host.pillar(pillar_with(**changes))
        for test in (True, False):
            first = failures(host, test=test)[0]
            assert first["id"] == "Immich can go to the version that is asked for"
            assert all(part in first["comment"] for part in parts), first["comment"]
        assert ids(host) == before

    refused("immich:version: v2.7.0 is older than v3.3.1", version="v2.7.0")
    refused("immich:version: v3.3.0 is older than v3.3.1", version="v3.3.0")
    image = "ghcr.io/immich-app/immich-server:v3.3.0"
    refused("immich:server:image: v3.3.0", server={"image": image})
    # The database knows better than the compose file, where both are there.
    sql(host, "INSERT INTO version_history (version) VALUES ('3.3.2')")
    refused("v3.3.1 is older than v3.3.2", version="v3.3.1", server={"image": f"{image[:-6]}v3.3.1-of-mine"})
    # Its migrations know better than both.
    sql(host, "DELETE FROM version_history WHERE version = '3.3.2'")
    sql(host, "INSERT INTO kysely_migrations VALUES ('1793000000000-AddAssetRating', 'x')")
    refused("v3.3.1 is older than v3.3.2", version="v3.3.1", server={"image": f"{image[:-6]}v3.3.1-of-mine"})
    sql(host, "DELETE FROM kysely_migrations WHERE timestamp = 'x'")
    host.pillar(pillar_with(version="v3", update={"require_pinned": True}))
    for test in (True, False):
        comment = failures(host, test=test)[0]["comment"]
        assert "immich:version: is a moving tag" in comment
    assert ids(host) == before
    assert get(host, "/api/server/ping") == {"res": "pong"}


@pytest.mark.long
def test_a_version_that_never_answers_is_left_again(host):
    before = fill(host)
    host.pillar(pillar_with(version=NEVER_ANSWERS, service={"start_timeout": 60}))
    text = told(host)
    assert "did not answer within 60 s" in text
    assert re.search(
        r"Waiting for Immich: .* does not answer yet, [1-9]\d s",
        host.out("journalctl --sync; journalctl -t immich-apply -o cat"),
    )
    assert "v3.3.1 serves again" in text
    assert get(host, "/api/server/version")["patch"] == 1
    assert data(host) == before


SLOW = (
    "nft add table inet slow; nft add chain inet slow input '{ type filter hook input priority -30; policy accept; }';"
    " nft add rule inet slow input tcp sport 5000 limit rate over 4 mbytes/second drop"
)


@pytest.mark.long
def test_how_far_an_update_is_is_shown_on_the_terminal_and_in_the_journal(own_host):
    host = own_host
    host.run(f"systemctl stop immich; podman rmi --all --force; {SLOW}")
    host.pillar(pillar_with(version="v3.4.0"))
    seen = on_terminal(host, "salt-call --local state.apply immich")
    assert "Failed:     0" in re.sub(r"\x1b\[[\d;]*m", "", seen), seen[-3000:]
    for told in (seen, host.out("journalctl --sync; journalctl -t immich-apply -o cat")):
        assert re.search(r"Pulling ghcr\S+:v3.4.0: [1-9][\d.]* of [1-9][\d.]* MiB, [1-9]\d s", told), told[:3000]
        assert re.search(r"Pulled ghcr\S+:v3.4.0 in \d+ s", told), told[:3000]
    assert "Backup, " in seen


@pytest.mark.long
def test_a_version_that_migrates_and_exits_says_how_to_restore(own_host):
    host = own_host
    before, known = fill(host), recreated(host)
    assert noted(host, "3.3.1")
    host.pillar(pillar_with(version=EXITS_AFTER_MIGRATION, service={"start_timeout": 60}, **OTHER_PASSWORDS))
    text = told(host)
    assert "has changed the database" in text
    assert "There were no errors" not in text
    record = json.loads(host.read(RECORD))
    assert f"salt-call immich.restore {record['backup']} confirm=" in text
    assert data(host) == before
    assert host.out("systemctl is-active immich", check=False) == "inactive"
    assert "immich-server:v3.3.1" in host.read("/opt/podman/immich/docker-compose.yml")
    assert recreated(host) == known + 1  # the former version was not started on the new one's database
    # The backup from before the migration is the one that stays known, however often it is tried.
    assert record["backup"] in told(host)
    assert json.loads(host.read(RECORD))["backup"] == record["backup"]
    # The old version is no way out while the database is the new one's, though that was never noted.
    assert database_versions(host) == ["3.3.1"]
    host.pillar(pillar_with(**OTHER_PASSWORDS))
    for test in (True, False):
        first = failures(host, test=test)[0]
        assert first["id"] == "Immich can go to the version that is asked for"
        assert f"v3.3.1 is older than {EXITS_AFTER_MIGRATION}, which has changed the database" in first["comment"]
        assert f"salt-call immich.restore {record['backup']} confirm=" in first["comment"]
    assert host.out("systemctl is-active immich", check=False) == "inactive"
    assert "systemctl start immich" not in host.out("salt-call --local immich.doctor", check=False)
    # Nothing says by which version, only that it is newer than any that is known.
    assert host.salt("immich.backup")["version"] == "v3.3.2"
    # Whatever kept it from serving is mended: it goes on from there.
    mended = {"environment": {"STANDIN_EXIT_AFTER_MIGRATIONS": "false"}}
    host.pillar(pillar_with(version=EXITS_AFTER_MIGRATION, server=mended, **OTHER_PASSWORDS))
    host.apply()
    assert changed(host.apply()) == {}
    assert data(host) == before
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1


@pytest.mark.long
def test_a_version_that_migrates_and_does_not_serve_is_taken_back_with_its_backup_if_told(host):
    before = fill(host)
    # A version that never was: it is refused, overridden, and not in the way of the restore, which nobody watches.
    sql(host, "INSERT INTO version_history (version, \"createdAt\") VALUES ('999.0.0', '2020-01-01')")
    restoring = {"service": {"start_timeout": 60}, "update": {"rollback": "restore"}}
    host.pillar(pillar_with(version=UNHEALTHY_AFTER_MIGRATION, **restoring, **OTHER_PASSWORDS))
    assert "set immich:update:database_version: v3.3.1 and apply again" in failures(host)[0]["comment"]
    restoring["update"]["database_version"] = "v3.3.1"
    host.pillar(pillar_with(version=UNHEALTHY_AFTER_MIGRATION, **restoring, **OTHER_PASSWORDS))
    failed = failures(host)
    text = "\n".join(state["comment"] for state in failed)
    assert "There were no errors" not in text
    assert "was restored, and v3.3.1 serves again" in text
    assert re.search(
        r"is kept as (immich_kept_\w+): when you no longer need it, salt-call pgsql_database.drop \1\.", text
    )
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert data(host) == before
    assert noted(host, "3.3.1")
    assert database_versions(host) == ["999.0.0", "3.3.1"]
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1
    assert post(host, "/standin/jobs")["denied"] == []
    host.pillar(pillar_with(**OTHER_PASSWORDS))
    host.apply()
    assert changed(host.apply()) == {}
    assert data(host) == before
    sql(host, "DELETE FROM version_history WHERE version = '999.0.0'")


FAULTS = {
    "pulling": "pgrep -f '[p]odman pull' >/dev/null",
    "backing up": "pgrep -f '[l]ib/immich-formula/immich-backup' >/dev/null",
    "prepared": f"test -e {RECORD}",
    "compose file written": "grep -q v3.4.0 /opt/podman/immich/docker-compose.yml",
    "old containers gone": "! podman container exists immich-server",
    "new container made": "podman ps --format '{{.Image}}' | grep -q immich-server:v3.4.0",
}


def assert_completed(host, before):
    host.apply()
    assert changed(host.apply()) == {}
    assert data(host) == before
    assert noted(host, "3.4.0")
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1


@pytest.mark.long
def test_killed_at_each_point_in_turn_then_completed(own_host):
    host = own_host
    before = fill(host)
    host.pillar(pillar_with(version="v3.4.0"))
    for point, there in FAULTS.items():
        # Some are over before the next look: then the new container is there.
        condition = f"{there} || {FAULTS['new container made']}"
        assert host.out(KILL_AT.format(condition=condition), timeout=600) == "killed", point
        assert data(host) == before, point
    assert_completed(host, before)


# Once the compose file is the new one, a host that boots goes on with the update by itself.
@pytest.mark.long
@pytest.mark.parametrize(
    "points", (("pulling", "backing up", "prepared", "compose file written"), ("new container made",)), ids=", ".join
)
def test_power_cut_and_completed(own_host, points):
    host = own_host
    before = fill(host)
    host.pillar(pillar_with(version="v3.4.0"))
    for point in points:
        host.run("sync; setsid salt-call --local state.apply immich >/dev/null 2>&1 &")
        # Some are over before the next look: then the new container is there.
        host.wait_for(f"{FAULTS[point]} || {FAULTS['new container made']}", 300)
        host.crash()
        host.boot()
        host.wait_for("systemctl is-active postgresql@17-main")
    assert_completed(host, before)


@pytest.mark.long
def test_postgresql_killed_at_points_in_turn_then_completed(own_host):
    host = own_host
    before = fill(host)
    host.pillar(pillar_with(version="v3.4.0", service={"start_timeout": 60}))
    for point in ("backing up", "prepared", "old containers gone", "new container made"):
        host.run("systemctl mask --runtime postgresql@17-main")  # it stays away until somebody sees to it
        host.run("rm -f /tmp/ended; (salt-call --local state.apply immich; touch /tmp/ended) >/tmp/said 2>&1 &")
        host.wait_for(f"{FAULTS[point]} || test -e /tmp/ended", 300)
        host.run("systemctl kill --signal=KILL postgresql@17-main")
        host.wait_for("test -e /tmp/ended", 600)
        host.run("systemctl unmask --runtime postgresql@17-main; systemctl reset-failed postgresql@17-main")
        host.run("systemctl start postgresql@17-main")
    assert_completed(host, before)


@pytest.mark.long
def test_a_version_that_exits_at_start_is_left_again(host):
    """The last test of this file: its host has a newer version then."""
    before = fill(host)
    host.pillar(pillar_with(version=EXITS_AT_START))
    text = told(host)
    assert f"{EXITS_AT_START} does not serve" in text
    assert "The stand-in was told to crash" in text
    assert "The database was not changed, and v3.3.1 serves again" in text
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert get(host, "/api/server/version")["patch"] == 1
    assert data(host) == before
    assert host.out("systemctl is-active immich") == "active"
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1
    host.pillar(pillar_with())
    assert changed(host.apply()) == {}
    host.pillar(pillar_with(version="v3.3.2"))
    host.apply()
    assert get(host, "/api/server/version")["patch"] == 2
    assert data(host) == before
