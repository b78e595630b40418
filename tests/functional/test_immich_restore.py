"""What a rehearsal of a restore learns of a live database on a real server, whatever its owner does meanwhile."""

import subprocess
import time

import pytest
from salt.exceptions import CommandExecutionError

from immich_restore import access, comparison, deadlines, fill, swap
from immich_restore.target import Target
from tests.functional.proxy import Proxy

NAME = "t_live"
PASSWORD = "live-secret-12345"
SCHEMA = f"""
SET ROLE {NAME};
CREATE TABLE kysely_migrations (name varchar PRIMARY KEY);
INSERT INTO kysely_migrations VALUES ('1790693088454-AddPersonUserTable');
CREATE TABLE version_history (version varchar NOT NULL);
CREATE TABLE asset (id int, "createdAt" timestamptz NOT NULL);
INSERT INTO asset SELECT g, now() - interval '1 day' FROM generate_series(1, 3) g;
INSERT INTO asset VALUES (4, now());
CREATE TABLE "50%s off" (id int, "createdAt" timestamptz);
INSERT INTO "50%s off" VALUES (1, now() - interval '2 hours');
CREATE TABLE text_like (id int, "createdAt" text);
"""
TABLES = {
    "public.asset": 4,
    "public.50%s off": 1,
    "public.kysely_migrations": 1,
    "public.text_like": 0,
    "public.version_history": 0,
}


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    pg_server.sql(f"CREATE ROLE {NAME} LOGIN PASSWORD '{PASSWORD}'")
    pg_server.sql(f"CREATE DATABASE {NAME} OWNER {NAME}")
    pg_server.sql(SCHEMA, database=NAME)
    pg_server.pillar["immich"] = {"postgres": {"password": PASSWORD}}
    yield pg_server
    pg_server.sweep()


@pytest.fixture
def settings(tmp_path):
    return {
        "project_dir": str(tmp_path),
        "server": {"image": "ghcr.io/immich-app/immich-server:v3.3.1", "user": None},
        "machine_learning": {"enabled": False},
        "postgres": {
            "managed": False,
            "host": "127.0.0.1",
            "port": 5432,
            "database": NAME,
            "user": NAME,
            "connection": {
                "host": "/var/run/postgresql",
                "port": 5432,
                "user": "postgres",
                "os_user": "postgres",
                "maintenance_db": "postgres",
            },
        },
        "valkey": {"database": 0, "user": "immich"},
        "upload_location": "/srv/immich/upload",
        "storage": {},
        "network": {"name": "immich"},
    }


@pytest.fixture
def target(pg, settings):
    return Target(settings, pg.modules, pg.pillar, "photos.example.org")


@pytest.fixture
def live(target, monkeypatch):
    """A function that tells of the live database what the drill of a backup learns, by the backup's age in seconds."""

    def ask(age=0, database=NAME, seconds=None):
        if seconds:
            monkeypatch.setattr(deadlines, "COUNT_SECONDS", seconds)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - age))
        path = f"/var/backups/immich/immich_{stamp}_v3.3.1_{database}.dump"
        return comparison.live(target, path)

    time.sleep(1.1)  # a backup's name says seconds, and the database was made in this one
    return ask


def test_rows_are_counted_by_when_they_were_made(live):
    found = live()
    assert found["tables"] == TABLES
    assert found["older"] == {"public.asset": 3, "public.50%s off": 1}
    assert found["migrations"] == ["1790693088454-AddPersonUserTable"]


@pytest.mark.parametrize(
    ("given", "why"),
    (
        ({"age": 86400}, "the database was restored since"),
        ({"age": -86400}, "its name does not say when"),
        ({"database": "photos"}, "it is of the database photos"),
    ),
)
def test_rows_that_a_backup_may_lack_are_not_counted(live, given, why):
    found = live(**given)
    assert found["older"] is None
    assert why in found["unknown"]
    assert found["tables"] == TABLES


def test_a_policy_that_never_ends_is_given_up(pg, live):
    pg.sql(
        f"""
        SET ROLE {NAME};
        CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('statement_timeout', '0', false); PERFORM pg_sleep(600); RETURN true; END $$;
        CREATE POLICY p ON asset USING (slow());
        ALTER TABLE asset ENABLE ROW LEVEL SECURITY; ALTER TABLE asset FORCE ROW LEVEL SECURITY;
        """,
        database=NAME,
    )
    began = time.monotonic()
    with pytest.raises(CommandExecutionError, match="statement timeout"):
        live(seconds=2)
    assert time.monotonic() - began < 300
    # The session that others use has no timeout left.
    owner = {"host": "127.0.0.1", "user": NAME, "password": PASSWORD}
    pg.sql("ALTER TABLE asset DISABLE ROW LEVEL SECURITY", database=NAME)
    assert pg.modules.pgsql_table.row_counts(NAME, owner)["public.asset"] == 4


def test_a_check_that_never_ends_fails_a_restore(pg, target, tmp_path, monkeypatch):
    """And so the rollback of an update, which is one: Immich is stopped meanwhile."""
    pg.sql(
        f"""
        SET ROLE {NAME};
        CREATE FUNCTION slow(i int) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 't_endless') THEN PERFORM pg_sleep(600);
            ELSIF current_database() <> '{NAME}' THEN PERFORM pg_sleep(4);
            END IF;
            RETURN true;
        END $$;
        ALTER TABLE asset ADD CHECK (id <> 4 OR slow(id));
        """,
        database=NAME,
    )
    path, fresh = str(tmp_path / "immich.dump"), f"{NAME}_restore_20260101T000000Z"
    with open(path, "wb") as file:
        command = ["runuser", "-u", "postgres", "--", "pg_dump", "--format=custom", NAME]
        subprocess.run(command, stdout=file, check=True, cwd="/")
    contents = {"tables": TABLES, "extensions": ["vector"], "size": 10**9}

    def restore():
        with access.temporary_role(target, fresh) as login:
            fill.fill(target, path, contents, fresh, login)

    monkeypatch.setattr(deadlines, "RESTORE_SECONDS", 2)
    monkeypatch.setattr(deadlines, "RESTORE_SECONDS_PER_GB", 1)
    pg.sql("CREATE ROLE t_endless")
    began = time.monotonic()
    with pytest.raises(CommandExecutionError, match=r"has not ended within [123] s"):
        restore()
    # Nor does what the server still did keep anybody waiting.
    assert time.monotonic() - began < 300
    pg.sql("DROP ROLE t_endless")
    assert fresh not in pg.databases()
    assert f"{NAME}_restore" not in pg.roles()
    # With time enough it comes to its end, and all rows are there.
    monkeypatch.setattr(deadlines, "RESTORE_SECONDS", 600)
    restore()
    assert pg.value("SELECT count(*) FROM asset", database=fresh) == 4


def test_a_database_that_holds_the_same_as_the_backup_need_not_be_kept(pg, target):
    def differs(name, tables):
        return comparison.differs(target, name, {"tables": tables})

    assert not differs(NAME, TABLES)
    assert differs(NAME, {**TABLES, "public.asset": 5})
    assert differs(NAME, {name: rows for name, rows in TABLES.items() if name != "public.text_like"})
    # One that cannot be counted is kept.
    pg.sql("ALTER TABLE asset OWNER TO postgres", database=NAME)
    assert differs(NAME, TABLES)


def test_what_a_restore_keeps_is_out_of_reach_of_immichs_role(pg, target):
    before, kept = (f"{NAME}_{kind}_20260101T000000Z" for kind in ("before", "kept"))
    pg.sql(f'CREATE DATABASE "{before}" OWNER {NAME}')
    pg.sql(f'REVOKE CONNECT ON DATABASE "{before}" FROM PUBLIC')
    assert swap.keep_or_drop(target, before, True) == kept
    with pg.superuser() as session, session.cursor() as cursor:
        cursor.execute(f"SET SESSION AUTHORIZATION {NAME}")
        with pytest.raises(Exception, match=f"must be owner of database {kept}"):
            cursor.execute(f'DROP DATABASE "{kept}"')
        cursor.execute("SELECT has_database_privilege(%s, 'CONNECT')", (kept,))
        assert cursor.fetchall() == [(False,)]


@pytest.mark.parametrize("done", (True, False))
def test_a_swap_whose_connection_is_lost_is_done_or_not(pg, target, done):
    """What Immich is started on, and what becomes of the other database, depends on knowing which."""
    fresh, before = (f"{NAME}_{kind}_20260101T000000Z" for kind in ("restore", "before"))
    pg.sql(f'CREATE DATABASE "{fresh}" OWNER {NAME}')
    pg.sql("CREATE ROLE t_admin LOGIN SUPERUSER PASSWORD 'abc'")
    with Proxy(("127.0.0.1", 5432), b"COMMIT" if done else b"RENAME", after=done) as proxy:
        over = {"host": "127.0.0.1", "port": proxy.port, "user": "t_admin", "password": "abc", "sslmode": "disable"}
        target.settings["postgres"]["connection"] = over
        if done:
            swap.take_over(target, fresh, before)
        else:
            with pytest.raises(CommandExecutionError):
                swap.take_over(target, fresh, before)
        assert proxy.word is None
    assert (before in pg.databases(), fresh in pg.databases()) == (done, not done)
    assert NAME in pg.databases()
