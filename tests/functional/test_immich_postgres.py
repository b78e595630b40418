"""`immich_postgres` on the host's PostgreSQL. Immich's role and database are called t_immich here."""

import copy
import http.server
import os
import shutil
import subprocess
import threading

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import postgres_declared
from immich_host import server_warnings, stop_reasons, vector_extension
from tests.functional.pgsql_server import CONFIG, LIBRARIES, UNIT, restarts
from tests.functional.pgsql_server import EXTENSIONS as FOLDER
from tests.functional.release import POSTGRES

HBA = CONFIG / "pg_hba.conf"
ADDRESS = "127.0.0.9"
PASSWORD = "correct horse battery"
SETTINGS = {
    "postgres": {
        "managed": True,
        "database": "t_immich",
        "user": "t_immich",
        "settings": {"work_mem": "64MB"},
        "vector_extension": "auto",
        "vectorchord": {"package": None, "hash": None},
        "tuning": "none",
        "connection": {"host": "/var/run/postgresql", "port": 5432, "user": "postgres", "os_user": "postgres"},
    },
    "network": {"name": "immich", "subnet": "172.20.0.0/16"},
    "listen_addresses": [ADDRESS],
}
PGVECTOR = {"vector", "cube", "earthdistance", "pg_trgm", "unaccent", "uuid-ossp"}
ROLE = {**postgres_declared.ATTRIBUTES, "member_of": [], "password": PASSWORD}


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    yield pg_server
    pg_server.sweep()


@pytest.fixture
def database(pg):
    """Role and database as the formula makes them."""
    assert pg.state("pgsql_role.present", "t_immich", **ROLE)["result"] is True
    ret = pg.state("pgsql_database.present", "t_immich", owner="t_immich", privileges=postgres_declared.PRIVILEGES)
    assert ret["result"] is True


def restored(pg):
    """No setting is left of those that tests made, nor one that a restart would take over."""
    pg.new_run()
    pg.sql("ALTER SYSTEM RESET ALL")
    pg.reload()
    if pg.value("SELECT count(*) FROM pg_settings WHERE pending_restart"):
        subprocess.run(["systemctl", "restart", UNIT], check=True)


@pytest.fixture
def host(pg):
    """The server's own files as they were, afterwards."""
    before = HBA.read_text()
    yield
    HBA.write_text(before)
    restored(pg)


@pytest.fixture
def vchord():
    """
    An extension called vchord, as Debian has no package of VectorChord: it has its name, its versions, what it
    requires and a library to preload (another extension's, renamed), but no index to search with.
    """
    written = [FOLDER / "vchord.control", FOLDER / "vchord--0.4.3.sql", LIBRARIES / "vchord.so"]

    def offer(version="0.4.3"):
        control = f"default_version = '{version}'\nrequires = 'vector'\nrelocatable = true\nsuperuser = true\n"
        written[0].write_text(control)
        written.append(FOLDER / f"vchord--{version}.sql")
        written[-1].write_text("CREATE FUNCTION vchord_version() RETURNS int LANGUAGE sql AS 'SELECT 1';\n")
        shutil.copy(LIBRARIES / "auto_explain.so", written[2])

    yield offer
    for path in written:
        path.unlink(missing_ok=True)


def extensions_present(pg, **arguments):
    return pg.state("immich_postgres.extensions_present", "t", **{"database": "t_immich", **arguments})


def server_configured(pg, **arguments):
    desired = {"listen_addresses": [ADDRESS], "database": "t_immich", "service": UNIT, **arguments}
    return pg.state("immich_postgres.server_configured", "t", **desired)


def installed(pg):
    statement = "SELECT extname, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace"
    return {row[0]: row[1] for row in pg.sql(statement, database="t_immich") if row[0] != "plpgsql"}


def immich(pg):
    return pg.modules.immich_postgres


# Which vector extension


def vector(pg, preference="auto"):
    return vector_extension.of("t_immich", preference, SETTINGS["postgres"]["connection"], pg.modules)


def test_auto_is_pgvector_where_the_server_offers_nothing_else(pg, testmode):
    assert vector(pg) == "vector"


def test_auto_takes_vectorchord_where_the_server_offers_it(pg, database, vchord):
    vchord()
    assert vector(pg) == "vchord"
    assert vector(pg, "pgvector") == "vector"


@pytest.mark.parametrize("version", ("0.2.9", "2.0.0"))
def test_vectorchord_that_immich_does_not_support(pg, vchord, version):
    vchord(version)
    assert vector(pg) == "vector"
    with pytest.raises(CommandExecutionError, match=r"vchord ≥ 0.3 < 2: install its package. It offers vchord"):
        vector(pg, "vectorchord")


def test_database_keeps_what_it_has(pg, database, vchord):
    extensions_present(pg)
    vchord()
    pg.new_run()
    for preference in ("auto", "vectorchord", "pgvector"):
        assert vector(pg, preference) == "vector"
    ret = extensions_present(pg, vector_extension="vectorchord")
    assert (ret["result"], ret["changes"]) == (True, {})
    assert "It keeps that although vectorchord is asked for." in ret["comment"]


def test_unknown_preference(pg):
    with pytest.raises(SaltInvocationError, match="There is no vector extension pgvectors"):
        vector(pg, "pgvectors")
    ret = extensions_present(pg, vector_extension="pgvectors")
    assert ret["result"] is False


# Extensions


def test_extensions_are_created(pg, database, testmode):
    ret = extensions_present(pg, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert set(ret["changes"]) == PGVECTOR
    assert ret["changes"]["vector"] == {"old": None, "new": "0.8.0"}
    assert installed(pg) == ({} if testmode else dict.fromkeys(PGVECTOR, "public"))


def test_second_run_writes_nothing(pg, database, testmode):
    extensions_present(pg)
    with pg.read_only():
        ret = extensions_present(pg, test=testmode)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert ret["comment"] == "Database t_immich has what Immich needs, with the vector extension vector."


def test_one_connection_to_the_database(pg, database):
    extensions_present(pg)
    statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'salt' AND datname = 't_immich'"
    assert pg.at_last(statement, [(1,)]) == [(1,)]


@pytest.fixture
def newer_pgvector():
    """A newer pgvector on the server, as after an upgrade of its package."""
    control = FOLDER / "vector.control"
    before = control.read_text()
    update = FOLDER / "vector--0.8.0--0.8.9.sql"

    def offer():
        control.write_text(before.replace("0.8.0", "0.8.9"))
        update.write_text("\n")

    yield offer
    control.write_text(before)
    update.unlink(missing_ok=True)


def test_version_that_moved_brings_new_indexes(pg, database, newer_pgvector):
    extensions_present(pg)
    pg.sql("CREATE TABLE smart_search (id int PRIMARY KEY, embedding vector(3))", database="t_immich")
    pg.sql("CREATE INDEX clip_index ON smart_search USING hnsw (embedding vector_cosine_ops)", database="t_immich")
    newer_pgvector()
    pg.new_run()

    def nodes():
        statement = "SELECT relname, relfilenode FROM pg_class WHERE relname IN ('clip_index', 'smart_search_pkey')"
        return dict(pg.sql(statement, database="t_immich"))

    before = nodes()
    ret = extensions_present(pg, test=True)
    assert (ret["result"], ret["changes"]) == (None, {"vector": {"old": "0.8.0", "new": "0.8.9"}})
    assert nodes() == before
    ret = extensions_present(pg)
    assert (ret["result"], ret["changes"]) == (True, {"vector": {"old": "0.8.0", "new": "0.8.9"}})
    after = nodes()
    assert after["clip_index"] != before["clip_index"]
    assert after["smart_search_pkey"] == before["smart_search_pkey"]
    assert extensions_present(pg)["changes"] == {}
    assert nodes() == after


def test_extension_in_another_schema_is_moved(pg, database):
    pg.sql("CREATE SCHEMA other; CREATE EXTENSION unaccent SCHEMA other", database="t_immich")
    ret = extensions_present(pg)
    assert (ret["result"], ret["changes"]["unaccent schema"]) == (True, {"old": "other", "new": "public"})
    assert installed(pg)["unaccent"] == "public"


def test_traps_of_the_owner(pg, database):
    """Immich's role owns the schema: a superuser does not run scripts over functions that it put there."""
    with pg.superuser("t_immich") as session, session.cursor() as cursor:
        trap = "CREATE FUNCTION public.sqrt(numeric) RETURNS float8 LANGUAGE sql AS 'SELECT 1.0'"
        cursor.execute(f"SET ROLE t_immich; {trap}")
    ret = extensions_present(pg)
    assert ret["result"] is False
    assert "function public.sqrt(numeric)" in ret["comment"]
    assert installed(pg) == {}


def test_nothing_is_there_yet(pg, testmode):
    for arguments in ({}, {"connection": {"host": "/run/nowhere"}}, {"vector_extension": "vectorchord"}):
        ret = extensions_present(pg, test=testmode, **arguments)
        assert ret["result"] is (None if testmode else False)
        assert bool(ret["changes"]) is testmode


# The server


def test_server_listens_and_restarts_once(pg, host):
    before = restarts()
    ret = server_configured(pg, test=True)
    assert ret["result"] is None
    assert "would be restarted" in ret["comment"]
    assert restarts() == before
    real = server_configured(pg)
    assert (real["result"], real["changes"]) == (True, ret["changes"])
    assert set(real["changes"]) == {"listen_addresses"}
    once = restarts()
    assert once != before
    assert server_configured(pg)["changes"] == {}
    assert restarts() == once


def test_vectorchord_is_preloaded_created_and_kept(pg, host, database, vchord):
    vchord()
    ret = extensions_present(pg)
    assert ret["result"] is False
    assert "needs vchord in shared_preload_libraries, and a restart" in ret["comment"]
    assert installed(pg) == {}
    ret = server_configured(pg)
    assert (ret["result"], set(ret["changes"])) == (True, {"listen_addresses", "shared_preload_libraries"})
    assert pg.value("SHOW shared_preload_libraries") == '"vchord.so"'
    ret = extensions_present(pg)
    # pgvector comes with it: by itself it would have been the database's choice for the next run.
    assert (ret["result"], set(ret["changes"])) == (True, {*PGVECTOR, "vchord"} - {"vector"})
    assert installed(pg) == dict.fromkeys({*PGVECTOR, "vchord"}, "public")
    assert extensions_present(pg, vector_extension="pgvector")["changes"] == {}
    assert server_configured(pg)["changes"] == {}
    assert vector(pg, "pgvector") == "vchord"


def test_server_that_is_not_there(pg, testmode):
    ret = server_configured(pg, connection={"host": "/run/nowhere"}, test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert set(ret["changes"]) == ({"listen_addresses"} if testmode else set())


# Promises


@pytest.fixture(scope="module")
def _listening(pg_server):
    """The server as `immich.postgres` sets it up, with its restart, for all that is about promises."""
    assert server_configured(pg_server)["result"] is True
    yield
    restored(pg_server)


@pytest.fixture
def promised(_listening, pg, database):
    before = HBA.read_text()
    record = immich(pg).declared(SETTINGS)["hba_record"]
    assert pg.state("pgsql_hba.present", "t_immich", **record)["result"] is True
    assert extensions_present(pg)["result"] is True
    yield pg
    HBA.write_text(before)
    pg.reload()


def test_everything_is_as_promised(promised):
    with promised.read_only():
        assert seen(immich(promised).verify(SETTINGS)) == []


UNDECLARED = "has settings that immich:postgres:settings does not declare: {}"
BREACHES = {
    "ALTER ROLE t_immich SUPERUSER CREATEDB": ["The role t_immich is not NOSUPERUSER NOCREATEDB"],
    "ALTER ROLE t_immich NOLOGIN": ["The role t_immich is not LOGIN"],
    "GRANT pg_execute_server_program TO t_immich": ["The role t_immich is a member of pg_execute_server_program"],
    "ALTER DATABASE t_immich OWNER TO postgres": ["The database t_immich belongs to postgres, not to t_immich"],
    "ALTER DATABASE t_immich CONNECTION LIMIT 0": [
        "The database t_immich has a limit of 0 connections, which its owner can set"
    ],
    "GRANT CONNECT ON DATABASE t_immich TO PUBLIC": ["Every role has CONNECT on the database t_immich"],
    "ALTER DATABASE t_immich SET idle_session_timeout = '1ms'": [
        f"The database t_immich {UNDECLARED.format('idle_session_timeout')}"
    ],
    "ALTER ROLE t_immich SET local_preload_libraries = 'nosuch'": [
        f"The role t_immich {UNDECLARED.format('local_preload_libraries')}"
    ],
    "ALTER ROLE t_immich IN DATABASE t_immich SET default_transaction_read_only = on": [
        f"The role t_immich in the database t_immich {UNDECLARED.format('default_transaction_read_only')}"
    ],
    "ALTER DATABASE t_immich SET \"t.a\u202eb\x9bc\" = '1'": [f"The database t_immich {UNDECLARED.format('t.a b c')}"],
    "ALTER DATABASE t_immich SET work_mem = '64MB'; ALTER DATABASE t_immich SET search_path = public": [],
}


def seen(found):
    """What was seen of the findings, each of which an apply ends."""
    assert all(each["remedy"].startswith("salt-call state.apply immich") for each in found)
    return [each["seen"] for each in found]


@pytest.mark.parametrize("breach", BREACHES)
def test_broken_promises(promised, breach):
    promised.sql(breach)
    assert seen(immich(promised).verify(SETTINGS)) == BREACHES[breach]


def test_a_trap_sends_nothing_to_a_terminal(pg, database):
    """Its name stands in the comment of the state that refuses it."""
    nasty = '"a\x1b]0;title\x07\x9b31m\u202eb"'
    pg.sql(
        f"""
        SET ROLE t_immich;
        CREATE TYPE public.{nasty} AS ENUM ('x');
        CREATE FUNCTION public.lower(public.{nasty}) RETURNS text LANGUAGE sql AS 'SELECT NULL';
        """,
        database="t_immich",
    )
    ret = extensions_present(pg)
    assert ret["result"] is False
    assert 'function public.lower(public."a 31m b")' in ret["comment"]
    assert ret["comment"].isprintable()


def test_broken_extensions(promised):
    promised.sql("CREATE SCHEMA other; ALTER EXTENSION unaccent SET SCHEMA other", database="t_immich")
    promised.sql("DROP EXTENSION pg_trgm", database="t_immich")
    assert seen(immich(promised).verify(SETTINGS)) == [
        "The extension pg_trgm is not in the database t_immich",
        "The extension unaccent is in the schema other in the database t_immich, not in public",
    ]


def test_password_that_is_not_the_pillars(promised):
    promised.pillar["immich"] = {"postgres": {"password": PASSWORD}}
    assert seen(immich(promised).verify(SETTINGS)) == []
    promised.sql("ALTER ROLE t_immich PASSWORD 'another one'")
    sentence = "is not the password of the role t_immich in PostgreSQL"
    assert seen(immich(promised).verify(SETTINGS)) == [sentence]
    promised.pillar.clear()


def test_library_that_is_not_preloaded_and_version_that_moved(promised, vchord):
    vchord("0.4.3")
    promised.sql("CREATE EXTENSION vchord SCHEMA public", database="t_immich")
    sentence = "The extension vchord needs vchord in shared_preload_libraries, and a restart"
    assert seen(immich(promised).verify(SETTINGS)) == [sentence]
    vchord("0.5.0")
    promised.new_run()
    moved = "The extension vchord has version 0.4.3 in the database t_immich, and the server offers 0.5.0"
    assert seen(immich(promised).verify(SETTINGS)) == [
        sentence,
        f"{moved}, to which Immich has no right to update it",
    ]


def test_broken_record(promised):
    text = HBA.read_text()
    HBA.write_text("host all all 0.0.0.0/0 md5\n" + text)
    promised.modules.pgsql_server.reload()
    assert seen(immich(promised).verify(SETTINGS)) == [
        "In pg_hba.conf wider records precede that of t_immich: line 1: host all all 0.0.0.0 0.0.0.0 md5"
    ]
    HBA.write_text(text.replace("172.20.0.0/16", "172.21.0.0/16"))
    promised.modules.pgsql_server.reload()
    record = "host  t_immich  t_immich  172.20.0.0/16  scram-sha-256"
    sentence = f"pg_hba.conf lacks the record `{record}`, or PostgreSQL has not reloaded it since"
    assert seen(immich(promised).verify(SETTINGS)) == [sentence]


def test_address_that_the_server_does_not_listen_at(promised):
    settings = {**SETTINGS, "listen_addresses": ["10.88.0.1"]}
    sentence = f"PostgreSQL does not listen at 10.88.0.1, only at localhost, {ADDRESS}"
    assert seen(immich(promised).verify(settings)) == [sentence]


def test_server_managed_elsewhere_has_no_record(pg, database):
    settings = copy.deepcopy(SETTINGS)
    settings["postgres"]["managed"] = False
    extensions_present(pg)
    assert immich(pg).verify(settings) == []


def test_nothing_there(pg):
    assert seen(immich(pg).verify(SETTINGS)) == ["PostgreSQL has no role t_immich"]
    pg.sql("CREATE ROLE t_immich LOGIN")
    assert seen(immich(pg).verify(SETTINGS)) == ["PostgreSQL has no database t_immich"]
    with pytest.raises(CommandExecutionError, match="Cannot connect"):
        immich(pg).verify(SETTINGS, connection={"host": "/run/nowhere"})


def test_neighbour_cannot_get_in(pg, database):
    pg.sql("CREATE ROLE t_neighbour LOGIN PASSWORD 'abc'")
    statement = "SELECT has_database_privilege('t_neighbour', 't_immich', 'CONNECT')"
    assert pg.value(statement) is False
    assert pg.logs_in("t_immich", PASSWORD, "t_immich")


def password_differs(pg, postgres):
    return stop_reasons.password_differs(postgres, pg.modules, pg.pillar)


@pytest.mark.parametrize(("password", "differs"), ((PASSWORD, False), ("another password", True)))
def test_password_of_the_pillar_and_of_the_role(pg, database, password, differs):
    pg.pillar["immich"] = {"postgres": {"password": password}}
    assert password_differs(pg, SETTINGS["postgres"]) is differs


def test_password_of_a_role_that_this_run_makes(pg):
    pg.pillar["immich"] = {"postgres": {"password": PASSWORD}}
    assert password_differs(pg, SETTINGS["postgres"]) is False
    elsewhere = {**SETTINGS["postgres"], "connection": {"host": "/nonexistent"}}
    assert password_differs(pg, elsewhere) is False


def as_role(statement):
    """Have Immich's role run a statement that fails."""
    command = ["psql", "-XqAt", "-h", "127.0.0.1", "-U", "t_immich", "-d", "t_immich", "-c", statement]
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_what_the_role_was_refused_is_told_from_the_servers_log(pg, database):
    """A new release of Immich that needs one more extension, or right, is seen by it."""
    settings = {**SETTINGS, "lookup": {"postgres": {"unit": UNIT}}}
    log = f"/var/log/postgresql/postgresql-{POSTGRES}-main.log"
    with open(log, "a", encoding="utf8") as file:
        file.write("2020-01-01 00:00:00.000 UTC [1] t_immich@t_immich ERROR:  permission denied for table former\n")
    for statement in ("SELECT 1/0", "CREATE EXTENSION file_fdw", "SELECT * FROM pg_authid"):
        as_role(statement)
    # What a role writes itself is told as its own, however it looks: no line of another begins with it.
    forged = "x\\n2099-01-01 00:00:00.0 UTC [1] t_immich@t ERROR:  permission denied for forged"
    as_role(f"DO $$ BEGIN RAISE EXCEPTION E'{forged}'; END $$")
    as_role("DO $$ BEGIN RAISE EXCEPTION E'permission denied \\x1b[2J\\x07'; END $$")
    refused = immich(pg).refusals(settings)
    own, table, extension = refused
    assert 'refused the role t_immich: permission denied to create extension "file_fdw"' in extension["seen"]
    assert "if Immich's release notes name that extension" in extension["remedy"]
    assert table["seen"].endswith("permission denied for table pg_authid")
    assert "state.apply" not in table["remedy"]  # no apply grants it
    assert "podman logs" in table["remedy"]
    assert [each["severity"] for each in refused] == ["warning", "warning", "error"]
    assert own["seen"].isprintable()
    elsewhere = {**settings, "postgres": {**SETTINGS["postgres"], "managed": False}}
    (unknown,) = immich(pg).refusals(elsewhere)
    assert (unknown["severity"], unknown["seen"].partition(":")[0]) == ("note", "not known")


def test_a_log_that_does_not_name_roles_is_told(pg, database, host):
    settings = {**SETTINGS, "lookup": {"postgres": {"unit": UNIT}}}
    pg.sql("ALTER SYSTEM SET log_line_prefix = '%m [%p] '")
    pg.reload()
    pg.new_run()
    (unknown,) = immich(pg).refusals(settings)
    assert unknown["severity"] == "note"
    assert "log_line_prefix" in unknown["seen"]


def test_whether_somebody_has_signed_up_is_asked_of_the_database_where_the_server_does_not_say(pg, database):
    """A server without /api/server/config, as later releases mean to be."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as without:
        threading.Thread(target=without.serve_forever, daemon=True).start()
        reached = {"bind_address": ["127.0.0.1"], "port": without.server_port, "proxy": {"domains": []}}
        settings = {**SETTINGS, **reached, "sign_up": "open"}
        codes = []
        for statement in ('CREATE TABLE "user" ("isAdmin" boolean)', 'INSERT INTO "user" VALUES (true)', "SELECT 1"):
            codes.append([each["code"] for each in server_warnings.found(settings, pg.modules)])
            pg.sql(f"SET ROLE t_immich; {statement}", database="t_immich")
        without.shutdown()
    assert codes == [["administrator-unknown"], ["administrator-missing"], []]
