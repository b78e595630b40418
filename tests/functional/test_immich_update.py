"""`immich_host.update` on a real database: what is read of it, of the compose file and of the record of an update."""

import json

import pytest

from immich_core import findings
from immich_host import update as on_host

DATABASE = "t_update"
IMAGE = "ghcr.io/immich-app/immich-server"
# The last migrations of releases.
V2_7, V3_3, NEWER = (
    "1775165531374-AddPersonNameTrigramIndex",
    "1790693088454-AddPersonUserTableSharedBySharedWithConstraint",
    "1793000000000-AddAssetRating",
)
SCHEMA = f"""
SET ROLE {DATABASE};
CREATE TABLE kysely_migrations (name varchar PRIMARY KEY);
CREATE TABLE version_history (version varchar NOT NULL);
"""


@pytest.fixture(scope="module")
def server(pg_server):
    pg_server.sweep()
    pg_server.sql(f"CREATE ROLE {DATABASE}")
    pg_server.sql(f"CREATE DATABASE {DATABASE} OWNER {DATABASE}")
    pg_server.sql(SCHEMA, database=DATABASE)
    yield pg_server
    pg_server.sweep()


@pytest.fixture
def host(server, tmp_path):
    """An installation: what the database has noted, its newest migration, the compose file, the record of an update."""

    class Host:
        def has(self, noted=None, migration=V3_3, compose=None, record=None):
            server.sql("TRUNCATE kysely_migrations, version_history", database=DATABASE)
            server.sql("INSERT INTO kysely_migrations VALUES (%s)", (migration,), DATABASE)
            if noted:
                server.sql("INSERT INTO version_history VALUES (%s)", (noted,), DATABASE)
            if compose:
                text = json.dumps({"services": {"immich-server": {"image": f"{IMAGE}:{compose}"}}})
                (tmp_path / "docker-compose.yml").write_text(text)
            if record:
                (tmp_path / "update.json").write_text(json.dumps(record))

        def settings(self, version, **update):
            image = f"{IMAGE}:{version}"
            connection = {"host": "/var/run/postgresql"}
            postgres = {"host": "db", "port": 5432, "database": DATABASE, "user": DATABASE, "connection": connection}
            return {
                "project_dir": str(tmp_path),
                "version": version,
                "server": {"image": image, "user": "0:0"},
                "machine_learning": {"enabled": False},
                "postgres": postgres,
                "valkey": {"database": 0, "user": "immich"},
                "upload_location": "/srv/immich/upload",
                "storage": {},
                "network": {"name": "immich"},
                "update": {"backup": True, "database_version": None, **update},
            }

        def plan(self, version, **update):
            return on_host.plan(self.settings(version, **update), server.modules)

        def refusal(self, version, **update):
            """In words, as the state has it."""
            return findings.sentence(self.plan(version, **update)["refusal"])

        def start_refusal(self):
            return on_host.start_refusal(self.settings("v0.0.1"), server.modules)

    return Host()


def record(to, migrations):
    """What an update from v3.3.1 has kept, with the migrations that there were before."""
    backup = "/var/backups/immich/immich_20261124T203000Z_v3.3.1.dump"
    return {"from": "v3.3.1", "to": to, "image": f"{IMAGE}:{to}", "migrations": migrations, "backup": backup}


def test_in_the_seconds_before_the_version_is_noted_there_is_no_way_back(host):
    host.has(noted="2.5.6", migration=V2_7, compose="v2.7.5")
    refusal = host.refusal("v2.5.6")
    assert refusal.startswith("immich:version: v2.5.6 is older than v2.7.5, which is installed.")


@pytest.mark.parametrize("compose", ("v3.3.1", "v3.4.97"))
def test_after_an_update_that_has_changed_the_database_there_is_no_way_back_but_the_backup(host, compose):
    host.has(noted="3.3.1", migration=NEWER, compose=compose, record=record("v3.4.97", [V3_3]))
    refusal = host.refusal("v3.3.1")
    assert "v3.3.1 is older than v3.4.97, which has changed the database and did not serve then" in refusal
    assert "salt-call immich.restore /var/backups/immich/immich_20261124T203000Z_v3.3.1.dump confirm=" in refusal
    assert host.plan("v3.4.97") == {}
    assert host.plan("v3.4.99")["refusal"] is None
    refused = host.start_refusal()
    if compose == "v3.3.1":
        assert "do not start v3.3.1 on it" in refused["seen"]
        assert refused["remedy"].startswith("salt-call immich.restore /var/backups/immich/immich_2026")
    else:
        assert refused is None


def test_a_thousand_rows_of_rubbish_are_borne(host, server):
    host.has(noted="3.3.1", compose="v3.3.1")
    rubbish = "INSERT INTO version_history SELECT repeat('9', 100000) || '.' || g FROM generate_series(1, 1000) g"
    server.sql(rubbish, database=DATABASE)
    server.sql("INSERT INTO version_history VALUES ('999.0.0')", database=DATABASE)
    # Nor is it a reason to fall over that there is nothing in one.
    server.sql("ALTER TABLE kysely_migrations DROP CONSTRAINT kysely_migrations_pkey", database=DATABASE)
    server.sql("ALTER TABLE kysely_migrations ALTER name DROP NOT NULL", database=DATABASE)
    server.sql("ALTER TABLE version_history ALTER version DROP NOT NULL", database=DATABASE)
    server.sql(
        "INSERT INTO kysely_migrations VALUES (NULL); INSERT INTO version_history VALUES (NULL)", database=DATABASE
    )
    assert host.refusal("v3.3.0").startswith("immich:version: v3.3.0 is older than v3.3.1")
