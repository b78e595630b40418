"""Looking into a tenant's data with the tenant's rights: `pgsql_table.list` and `pgsql_database.query_as`."""

import time

import pytest
from salt.exceptions import CommandExecutionError


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    pg_server.sql("CREATE ROLE t_tenant LOGIN PASSWORD 'abc'")
    pg_server.sql("CREATE DATABASE t_db OWNER t_tenant")
    as_tenant(pg_server, "CREATE TABLE public.notes (name varchar, at timestamptz, n int)")
    as_tenant(pg_server, "INSERT INTO public.notes VALUES ('é \"''', '2026-01-02T03:04:05Z', 7), (NULL, NULL, NULL)")
    yield pg_server
    pg_server.sweep()


def as_tenant(pg, statement):
    pg.sql(f"SET SESSION AUTHORIZATION t_tenant; {statement}", database="t_db")


# What the tenant leaves where a superuser will look: every way to run a function of his in a plain SELECT.
EVIL = """
    CREATE FUNCTION public.evil() RETURNS varchar LANGUAGE plpgsql {volatility} AS $$
    BEGIN
        BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'SET ROLE postgres'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'SET SESSION AUTHORIZATION postgres'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'ALTER ROLE t_tenant SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
        RETURN current_user;
    END $$;
    """
TRAPS = {
    "view": (
        EVIL.format(volatility="VOLATILE"),
        "CREATE VIEW public.trap AS SELECT public.evil() AS name",
    ),
    "expression of an index": (
        EVIL.format(volatility="IMMUTABLE"),
        "CREATE TABLE public.trap (name varchar); INSERT INTO public.trap VALUES ('t_tenant')",
        "CREATE INDEX ON public.trap ((name || public.evil()))",
    ),
    "row-level security": (
        EVIL.format(volatility="VOLATILE"),
        "CREATE TABLE public.trap (name varchar); INSERT INTO public.trap VALUES ('t_tenant')",
        "CREATE POLICY p ON public.trap USING (public.evil() IS NOT NULL)",
        "ALTER TABLE public.trap ENABLE ROW LEVEL SECURITY; ALTER TABLE public.trap FORCE ROW LEVEL SECURITY",
    ),
}


def test_rows_are_as_json_has_them(pg):
    rows = pg.modules.pgsql_database.query_as("t_tenant", "t_db", "SELECT * FROM public.notes ORDER BY n")
    assert rows == [
        {"name": "é \"'", "at": "2026-01-02T03:04:05+00:00", "n": 7},
        {"name": None, "at": None, "n": None},
    ]


@pytest.mark.parametrize("trap", TRAPS)
def test_what_the_tenant_planted_gets_his_own_rights_alone(pg, trap):
    for statement in TRAPS[trap]:
        as_tenant(pg, statement)
    assert pg.modules.pgsql_database.query_as("t_tenant", "t_db", "SELECT name::text FROM public.trap") == [
        {"name": "t_tenant"}
    ]
    assert not pg.value("SELECT rolsuper FROM pg_roles WHERE rolname = 't_tenant'")


def test_a_plain_superusers_query_would_fall_for_it(pg):
    """That the traps are some: the view gives its owner superuser's rights when a superuser reads it."""
    for statement in TRAPS["view"]:
        as_tenant(pg, statement)
    pg.sql("SET ROLE t_tenant; SELECT name FROM public.trap", database="t_db")
    assert pg.value("SELECT rolsuper FROM pg_roles WHERE rolname = 't_tenant'")


def test_nothing_of_a_query_stays(pg):
    as_tenant(pg, "CREATE FUNCTION public.writes() RETURNS int LANGUAGE sql AS 'DELETE FROM public.notes; SELECT 1'")
    assert pg.modules.pgsql_database.query_as("t_tenant", "t_db", "SELECT public.writes()") == [{"writes": 1}]
    assert pg.value("SELECT count(*) FROM public.notes", database="t_db") == 2


def test_a_query_that_never_ends_is_ended(pg):
    as_tenant(
        pg,
        """CREATE FUNCTION public.slow() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('statement_timeout', '0', false); PERFORM pg_sleep(600); RETURN 1; END $$""",
    )
    began = time.monotonic()
    with pytest.raises(CommandExecutionError, match="statement timeout"):
        pg.modules.pgsql_database.query_as("t_tenant", "t_db", "SELECT public.slow()", timeout=1)
    assert time.monotonic() - began < 300


@pytest.mark.parametrize("statement", ("SELECT * FROM public.missing", "SELECT passwd FROM pg_catalog.pg_shadow"))
def test_what_the_role_may_not_is_an_error(pg, statement):
    with pytest.raises(CommandExecutionError):
        pg.modules.pgsql_database.query_as("t_tenant", "t_db", statement)


def test_a_missing_database_is_distinguished_from_other_errors(pg):
    for function in (
        lambda: pg.modules.pgsql_database.query_as("t_tenant", "t_none", "SELECT 1"),
        lambda: pg.modules.pgsql_table.list("t_none"),
    ):
        with pytest.raises(CommandExecutionError) as caught:
            function()
        assert caught.value.absent == "database"


def test_tables_without_those_of_extensions_and_views(pg):
    pg.sql("CREATE EXTENSION earthdistance CASCADE", database="t_db")
    as_tenant(pg, "CREATE VIEW public.seen AS SELECT 1; CREATE SCHEMA other; CREATE TABLE other.hidden ()")
    assert pg.modules.pgsql_table.list("t_db") == ["notes"]
    assert pg.modules.pgsql_table.list("t_db", "other") == ["hidden"]
    assert pg.modules.pgsql_table.list("t_db", "none") == []


def test_columns_are_read_as_texts_of_a_length_in_a_number(pg):
    as_tenant(pg, """CREATE TABLE public."a ""b" ("Path" text, sum bytea, other int)""")
    as_tenant(pg, """INSERT INTO public."a ""b" VALUES ('abcdef', '\\x0102030405', 1), (NULL, NULL, 2), ('x', '', 3)""")

    def read(columns, limit=10, **more):
        return pg.modules.pgsql_table.texts("t_db", 'a "b', columns, 4, limit, **more)

    assert read(["sum", "Path"]) == [["01020304", "abcd"], [None, None], ["", "x"]]
    assert read(["Path"], limit=1) == [["abcd"]]
    for columns in (["other"], ["Path", "none"]):
        with pytest.raises(CommandExecutionError, match="has no column of text"):
            read(columns)
    as_tenant(pg, "CREATE VIEW public.trap AS SELECT 'a'::text AS name")
    with pytest.raises(CommandExecutionError, match="has no column of text name"):
        pg.modules.pgsql_table.texts("t_db", "trap", ["name"], 4, 10)


# What an owner may set for his database or himself, and what it would do to the sessions of a superuser, or to his own.
OWNERS_SETTINGS = {
    "local_preload_libraries": "'nosuch'",
    "idle_session_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "statement_timeout": "'1ms'",
    "transaction_timeout": "'1ms'",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "work_mem": "'64kB'",
    "check_function_bodies": "off",
    "gin_fuzzy_search_limit": "1",
    "datestyle": "'SQL, DMY'",
    "bytea_output": "'escape'",
    "client_min_messages": "'error'",
    "search_path": "public, pg_catalog",
    "role": "t_tenant",
    "session_authorization": "t_tenant",
}
# Not in pg_settings, and as settings of a role they name himself.
IDENTITIES = {"role", "session_authorization"}
TARGETS = ("DATABASE t_db", "ROLE t_tenant", "ROLE t_tenant IN DATABASE t_db")


def set_by_the_tenant(pg, target, names):
    known = {row[0] for row in pg.sql("SELECT name FROM pg_settings")} | IDENTITIES
    for name in names:
        if name in known:
            pg.sql(f"SET SESSION AUTHORIZATION t_tenant; ALTER {target} SET {name} = {OWNERS_SETTINGS[name]}")


@pytest.mark.parametrize("target", TARGETS)
def test_sessions_take_over_no_setting_of_an_owner(pg, target):
    pg.modules.pgsql_role.set("t_tenant", password="longer than abc")
    set_by_the_tenant(pg, target, [name for name in OWNERS_SETTINGS if not (name in IDENTITIES and "ROLE" in target)])
    pg.new_run()
    owner = {"host": "127.0.0.1", "user": "t_tenant", "password": "longer than abc", "maintenance_db": "t_db"}
    for connection in (None, owner):
        assert pg.modules.pgsql_table.row_counts("t_db", connection) == {"public.notes": 2}
        time.sleep(0.02)  # longer than the timeouts
        asked = "SELECT pg_sleep(0.02), name FROM pg_settings WHERE source IN ('database', 'user', 'database user')"
        assert pg.modules.pgsql_database.query_as("t_tenant", "t_db", asked) == []
        # What writes, and what comes out of it, is as ever.
        pg.modules.pgsql_database.schema_privileges_set("t_db", {"t_tenant": ["ALL"]}, connection=connection)
    assert pg.modules.pgsql_role.login_works("t_tenant", "longer than abc", {"host": "127.0.0.1"}, "t_db")
    assert not pg.modules.pgsql_role.login_works("t_tenant", "another", {"host": "127.0.0.1"}, "t_db")
