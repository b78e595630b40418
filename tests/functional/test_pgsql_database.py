"""`pgsql_database`, execution module and states, on the host's PostgreSQL."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from tests.functional.release import POSTGRES, only

FULL = {
    "owner": "t_owner",
    "encoding": "utf-8",
    "locale": "C.UTF-8",
    "provider": "libc",
    "tablespace": "pg_default",
    "connection_limit": 5,
    "settings": {"work_mem": "16MB"},
    "privileges": {"PUBLIC": ["TEMP"], "t_reader": ["CONNECT"]},
    "schema_privileges": {"PUBLIC": [], "t_reader": ["USAGE"]},
}


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    pg_server.sql("CREATE ROLE t_owner; CREATE ROLE t_reader LOGIN PASSWORD 'abc'; CREATE ROLE t_other")
    yield pg_server
    pg_server.sweep()


def present(pg, **arguments):
    return pg.state("pgsql_database.present", "t_db", **arguments)


def absent(pg, **arguments):
    return pg.state("pgsql_database.absent", "t_db", **arguments)


def test_creates(pg, testmode):
    ret = present(pg, test=testmode, **FULL)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"] == f"Database t_db {'would be' if testmode else 'was'} created."
    assert set(ret["changes"]) == {"database", *FULL}
    assert ("t_db" in pg.databases()) is not testmode


def test_what_it_created_is_as_declared(pg):
    present(pg, **FULL)
    columns = "pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider"
    row = pg.sql(f"SELECT {columns}, datconnlimit FROM pg_database WHERE datname = 't_db'")[0]
    assert row == ("t_owner", "UTF8", "C.UTF-8", "C.UTF-8", "c", 5)
    statement = "SELECT has_database_privilege(%s, 't_db', %s)"
    rights = {
        (role, right): pg.value(statement, (role, right))
        for role in ("t_reader", "t_other")
        for right in ("CONNECT", "TEMP", "CREATE")
    }
    assert [key for key, value in rights.items() if value] == [
        ("t_reader", "CONNECT"),
        ("t_reader", "TEMP"),
        ("t_other", "TEMP"),
    ]
    statement = "SELECT has_schema_privilege(%s, 'public', 'USAGE')"
    assert [pg.value(statement, (role,), "t_db") for role in ("t_reader", "t_other")] == [True, False]
    assert pg.value("SHOW work_mem", database="t_db") == "16MB"
    assert pg.logs_in("t_reader", "abc", "t_db")


def test_second_run_writes_nothing(pg, testmode):
    present(pg, **FULL)
    before = pg.everything()
    with pg.read_only():
        ret = present(pg, test=testmode, **FULL)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert pg.everything() == before


DRIFTS = {
    "owner": ("postgres", "ALTER DATABASE t_db OWNER TO t_other"),
    "connection_limit": ("postgres", "ALTER DATABASE t_db CONNECTION LIMIT 6"),
    "settings": ("postgres", "ALTER DATABASE t_db SET work_mem = '17MB'"),
    "privileges": ("postgres", "GRANT CREATE ON DATABASE t_db TO t_reader; REVOKE TEMP ON DATABASE t_db FROM PUBLIC"),
    "schema_privileges": ("t_db", "GRANT CREATE ON SCHEMA public TO PUBLIC"),
}


@pytest.mark.parametrize("key", DRIFTS)
def test_drift(pg, key, testmode):
    present(pg, **FULL)
    good = pg.modules.pgsql_database.get("t_db"), pg.modules.pgsql_database.schema_privileges("t_db")
    database, statement = DRIFTS[key]
    pg.sql(statement, database=database)
    drifted = pg.modules.pgsql_database.get("t_db"), pg.modules.pgsql_database.schema_privileges("t_db")
    assert drifted != good
    ret = present(pg, test=testmode, **FULL)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"] == f"Database t_db {'would be' if testmode else 'was'} changed."
    assert set(ret["changes"]) == {key}
    now = pg.modules.pgsql_database.get("t_db"), pg.modules.pgsql_database.schema_privileges("t_db")
    assert now == (drifted if testmode else good)


@pytest.fixture
def tablespace(pg):
    folder = Path("/var/lib/postgresql/t_space")
    folder.mkdir()
    shutil.chown(folder, "postgres")
    pg.sql(f"CREATE TABLESPACE t_space LOCATION '{folder}'")
    yield "t_space"
    pg.sweep()
    pg.sql("DROP TABLESPACE t_space")
    folder.rmdir()


def test_tablespace(pg, tablespace):
    present(pg, **FULL)
    moved = {**FULL, "tablespace": tablespace, "connection_limit": 4}
    ret = present(pg, **moved)
    assert (ret["result"], set(ret["changes"])) == (True, {"tablespace", "connection_limit"})
    assert pg.modules.pgsql_database.get("t_db")["tablespace"] == tablespace
    assert present(pg, **moved)["changes"] == {}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    (
        ("encoding", "LATIN1", "encoding is UTF8, not LATIN1"),
        ("locale", "C", "locale is C.UTF-8, not C"),
        ("lc_ctype", "POSIX", "lc_ctype is C.UTF-8, not POSIX"),
        ("provider", "icu", "provider is libc, not icu"),
    ),
)
def test_what_cannot_be_changed_in_place(pg, key, value, sentence, testmode):
    present(pg, **FULL)
    before = pg.everything()
    ret = present(pg, test=testmode, **{**FULL, key: value, "connection_limit": 9})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert sentence in ret["comment"]
    assert "Nothing was changed" in ret["comment"]
    assert pg.everything() == before


@pytest.mark.parametrize(
    "declared",
    (
        {"provider": "icu", "locale": "en-US", "lc_collate": "C.UTF-8", "lc_ctype": "C.UTF-8", "encoding": "UTF8"},
        pytest.param({"provider": "builtin", "locale": "C.UTF-8", "encoding": "UTF8"}, marks=only(POSTGRES >= 17)),
        {"encoding": "SQL_ASCII", "lc_collate": "C", "lc_ctype": "C"},
        {"template": "template0"},
        {},
    ),
)
def test_locales_and_providers(pg, declared):
    assert present(pg, **declared)["result"] is True
    assert present(pg, **declared)["changes"] == {}


@only(POSTGRES < 17)
def test_provider_that_the_server_is_too_old_for(pg, testmode):
    ret = present(pg, provider="builtin", locale="C.UTF-8", encoding="UTF8", test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == "The locale provider builtin needs PostgreSQL 17, and the server has 15."
    assert "t_db" not in pg.databases()


def test_all_privileges_and_none(pg):
    assert present(pg, privileges={"t_reader": ["ALL"], "public": []})["result"] is True
    held = pg.modules.pgsql_database.get("t_db")["privileges"]
    assert held == {"t_reader": ["CONNECT", "CREATE", "TEMPORARY"], "postgres": ["CONNECT", "CREATE", "TEMPORARY"]}
    assert present(pg, privileges={"t_reader": ["ALL"], "public": []})["changes"] == {}
    ret = present(pg, privileges={"t_reader": ["SELECT"]})
    assert ret["result"] is False
    assert "No such privilege: SELECT" in ret["comment"]


def test_undeclared_settings_are_reset_where_asked(pg, testmode):
    pg.sql("CREATE DATABASE t_db")
    for setting in ("work_mem = '17MB'", "search_path = public", "local_preload_libraries = 'nosuch'", "jit = off"):
        pg.sql(f"ALTER DATABASE t_db SET {setting}")
    assert present(pg)["changes"] == {}
    declared = {"settings": {"work_mem": "17MB"}, "reset_other_settings": ["search_path"]}
    ret = present(pg, test=testmode, **declared)
    assert ret["changes"]["settings"] == {
        "old": {"local_preload_libraries": "nosuch", "jit": "off"},
        "new": {"local_preload_libraries": None, "jit": None},
    }
    held = pg.modules.pgsql_database.get("t_db")["settings"]
    assert set(held) == {"work_mem", "search_path", *(("local_preload_libraries", "jit") if testmode else ())}
    if not testmode:
        with pg.read_only():
            assert present(pg, **declared)["changes"] == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    (
        ({"connection_limit": "5"}, "connection_limit is a number"),
        # The database was made, and open to all, before its privileges were found to be none.
        ({"privileges": {"PUBLIC": "CONNECT"}}, "No such privilege"),
        ({"schema_privileges": {"PUBLIC": ["CONNECT"]}}, "No such privilege"),
        # It went into the statement as it was.
        ({"provider": "libc; CREATE ROLE t_evil", "locale": "C"}, "provider is one of libc, icu, builtin"),
    ),
)
def test_what_cannot_be_is_refused_before_anything_changes(pg, testmode, wrong, said):
    ret = present(pg, test=testmode, **wrong)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert said in ret["comment"]
    assert "t_db" not in pg.databases()


def test_name_that_postgresql_would_cut_off_is_refused(pg, testmode):
    """It meant the database of the same first 63 bytes."""
    name = "t_" + "x" * 61
    pg.sql(f"CREATE DATABASE {name}")
    for function in ("present", "absent"):
        ret = pg.state(f"pgsql_database.{function}", name + "y", test=testmode)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "is no name for PostgreSQL" in ret["comment"]
    assert name in pg.databases()


def test_failure_rolls_back(pg):
    present(pg, **FULL)
    before = pg.everything()
    ret = present(pg, **{**FULL, "connection_limit": 6, "settings": {"no_such_setting": 1}})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "no_such_setting" in ret["comment"]
    assert pg.everything() == before


def test_owner_that_is_not_there(pg):
    ret = present(pg, owner="t_nobody")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert 'role "t_nobody" does not exist' in ret["comment"]
    assert "t_db" not in pg.databases()


def test_foreign_databases_are_untouched(pg):
    pg.sql("CREATE DATABASE t_foreign CONNECTION LIMIT 3")
    pg.sql("ALTER DATABASE t_foreign SET work_mem = '5MB'")
    statement = (
        "SELECT to_jsonb(d) - 'datfrozenxid' - 'datminmxid' FROM pg_database d WHERE datname <> 't_db' ORDER BY oid"
    )
    before = pg.sql(statement)
    present(pg, **FULL)
    absent(pg, force=True)
    assert pg.sql(statement) == before


def test_server_that_is_not_there(pg, testmode):
    ret = present(pg, test=testmode, connection={"host": "/run/nowhere"}, **FULL)
    assert ret["result"] is (None if testmode else False)
    assert set(ret["changes"]) == ({"database", *FULL} if testmode else set())
    assert "Cannot connect" in ret["comment"]
    ret = absent(pg, test=testmode, connection={"host": "/run/nowhere"})
    assert (ret["result"], ret["changes"]) == (None if testmode else False, {})
    assert "is absent" not in ret["comment"]


# Absence


def test_is_not_dropped_without_force(pg, testmode):
    pg.sql("CREATE DATABASE t_db")
    ret = absent(pg, test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "of data and 0 connections" in ret["comment"]
    assert "t_db" in pg.databases()


def test_drops_with_force_although_a_client_is_connected(pg, testmode):
    pg.sql("CREATE DATABASE t_db")
    # The formula's own session is in there too.
    pg.modules.pgsql_database.schema_privileges("t_db")
    with pg.superuser("t_db") as guest:
        ret = absent(pg, force=True, test=testmode)
        assert ret["result"] is (None if testmode else True)
        assert ret["changes"] == {"database": {"old": "t_db", "new": None}}
        assert "and 1 connections" in ret["comment"]
        assert ("t_db" in pg.databases()) is testmode
        if not testmode:
            with pytest.raises(psycopg2.OperationalError), guest.cursor() as cursor:
                cursor.execute("SELECT 1")


def test_drops_with_force_what_its_owner_declares_a_template(pg):
    pg.sql("CREATE DATABASE t_db IS_TEMPLATE true")
    with pytest.raises(CommandExecutionError, match="cannot drop a template database"):
        pg.modules.pgsql_database.drop("t_db")
    assert absent(pg, force=True)["result"] is True
    assert "t_db" not in pg.databases()
    with pytest.raises(CommandExecutionError, match="cannot drop a template database"):
        pg.modules.pgsql_database.drop("template1", force=True)


def test_absent_database_stays_absent(pg, testmode):
    with pg.read_only():
        ret = absent(pg, test=testmode, force=True)
    assert (ret["result"], ret["changes"]) == (True, {})


# Execution module


def test_list_and_exists(pg):
    pg.sql("CREATE DATABASE t_db")
    assert {"postgres", "t_db", "template0"} <= set(pg.modules.pgsql_database.list())
    assert pg.modules.pgsql_database.exists("t_db") is True
    assert pg.modules.pgsql_database.exists("t_none") is False
    assert pg.modules.pgsql_database.get("t_none") is None


def test_drop_waits_for_whoever_takes_the_database_away(pg):
    """A restore that was killed leaves the server dropping: the next one still finds the database, and then none."""
    pg.sql("CREATE DATABASE t_db")
    with pg.superuser() as session, session.cursor() as cursor, ThreadPoolExecutor() as pool:
        session.autocommit = False
        cursor.execute("ALTER DATABASE t_db RENAME TO t_gone")
        dropped = pool.submit(pg.modules.pgsql_database.drop, "t_db", force=True)
        deadline, waiting = time.monotonic() + 120, 0
        while not waiting and time.monotonic() < deadline:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            ((waiting,),) = cursor.fetchall()
        assert waiting
        session.commit()
        assert dropped.result(120) is None


def test_drop_without_force_refuses_connections(pg):
    pg.sql("CREATE DATABASE t_db")
    with pg.superuser("t_db"), pytest.raises(CommandExecutionError, match="being accessed by other users"):
        pg.modules.pgsql_database.drop("t_db")
    pg.modules.pgsql_database.drop("t_db")
    assert "t_db" not in pg.databases()


def test_drop_of_an_unknown_database_fails(pg):
    """A person who mistypes its name would take it for dropped."""
    for force in (False, True):
        with pytest.raises(CommandExecutionError, match="There is no database t_none") as failure:
            pg.modules.pgsql_database.drop("t_none", force=force)
        assert failure.value.absent == "database"


def test_schema_that_is_not_there(pg):
    pg.sql("CREATE DATABASE t_db")
    pg.sql("DROP SCHEMA public", database="t_db")
    with pytest.raises(CommandExecutionError, match="has no schema public"):
        pg.modules.pgsql_database.schema_privileges("t_db")


def test_an_absent_database_is_distinguished_from_an_absent_server(pg):
    with pytest.raises(CommandExecutionError) as error:
        pg.modules.pgsql_database.schema_privileges("t_none")
    assert error.value.absent == "database"
    with pytest.raises(CommandExecutionError) as error:
        pg.modules.pgsql_database.schema_privileges("t_none", connection={"host": "/run/nowhere"})
    assert error.value.absent == "server"


def test_no_more_than_eight_sessions_are_kept(pg):
    for index in range(12):
        pg.sql(f"CREATE DATABASE t_db{index}")
    for index in range(12):
        pg.modules.pgsql_database.schema_privileges(f"t_db{index}")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'salt'"
    assert pg.at_last(sessions, [(8,)]) == [(8,)]


def test_owner_of_a_database_cannot_lead_a_superuser_astray(pg):
    """What ALTER DATABASE sets for everybody's sessions does not hold in ours."""
    pg.sql("CREATE DATABASE t_db OWNER t_owner")
    pg.sql("CREATE SCHEMA evil AUTHORIZATION t_owner", database="t_db")
    pg.sql("CREATE VIEW evil.pg_namespace AS SELECT 1/0 AS oid, name 'public' AS nspname", database="t_db")
    trap = (
        "CREATE FUNCTION evil.acldefault(\"char\", oid) RETURNS aclitem[] LANGUAGE plpgsql AS 'BEGIN RETURN 1/0; END'"
    )
    pg.sql(trap, database="t_db")
    for setting in ("search_path = evil, pg_catalog", "role = t_owner", "quote_all_identifiers = on"):
        pg.sql(f"ALTER DATABASE t_db SET {setting}")
    session = "SELECT current_setting('search_path'), current_user::text"
    assert pg.sql(session, database="t_db") == [("evil, pg_catalog", "t_owner")]
    # Last, as the line above would not always come to its end in a millisecond.
    pg.sql("ALTER DATABASE t_db SET standard_conforming_strings = off; ALTER DATABASE t_db SET statement_timeout = 1")
    assert pg.modules.pgsql_database.schema_privileges("t_db")["PUBLIC"] == ["USAGE"]


def test_a_database_is_given_to_another_role_and_nothing_else_is(pg):
    for statement in ("ROLE t_new", "DATABASE t_kept OWNER t_owner", "DATABASE t_db OWNER t_owner"):
        pg.sql(f"CREATE {statement}")
    made = """
        SET ROLE t_owner;
        CREATE SCHEMA app; CREATE TYPE app.kind AS ENUM ('a'); CREATE TABLE app.things (id serial, kind app.kind);
        CREATE VIEW app.seen AS SELECT * FROM app.things; SELECT lo_create(7000001);
        CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        RESET ROLE;
        CREATE TABLE of_another (id int); ALTER TABLE of_another OWNER TO t_reader;
        GRANT SELECT ON of_another TO t_owner
    """
    with pg.superuser("t_db") as session, session.cursor() as cursor:
        cursor.execute(made)
    before = pg.modules.pgsql_role.dependencies("t_owner", besides="t_db")
    for _ in range(2):  # as after a run that ended too early
        pg.modules.pgsql_database.reassign("t_db", "t_owner", "t_new")
    assert pg.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 't_db'") == "t_new"
    owns = "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = %s::regrole"
    here = f"{owns} AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    assert pg.value(here, ("t_owner",), "t_db") == 0
    assert pg.value(here, ("t_reader",), "t_db") == 1
    assert pg.value(here, ("t_new",), "t_db") >= 6
    # What the former owner has elsewhere is what it was, and keeps it from being dropped.
    assert pg.modules.pgsql_role.dependencies("t_owner", besides="t_db") == before != []
    assert pg.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 't_kept'") == "t_owner"
    pg.modules.pgsql_database.drop("t_kept")
    assert pg.modules.pgsql_role.dependencies("t_owner", besides="t_db") == []
    pg.modules.pgsql_role.drop("t_owner", reassign_to="t_new")
    assert "t_owner" not in pg.roles()
    pg.modules.pgsql_database.reassign("t_db", "t_owner", "t_new")


@pytest.mark.once
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    privileges=st.dictionaries(
        st.sampled_from(["PUBLIC", "t_owner", "t_reader"]),
        st.lists(st.sampled_from(["CONNECT", "CREATE", "TEMP", "temporary"]), unique=True),
    ),
    limit=st.integers(-1, 1000),
)
def test_any_database_is_there_and_stays(pg, name, privileges, limit):
    name = f"t_{name}".encode()[:60].decode(errors="ignore")
    declared = {"privileges": privileges, "connection_limit": limit, "owner": "t_owner"}
    ret = pg.state("pgsql_database.present", name, **declared)
    assert ret["result"] is True, ret["comment"]
    assert pg.state("pgsql_database.present", name, **declared)["changes"] == {}
    assert pg.state("pgsql_database.absent", name, force=True)["result"] is True
