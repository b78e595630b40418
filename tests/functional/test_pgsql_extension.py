"""`pgsql_extension`, execution module and states, on the host's PostgreSQL."""

import pytest
from salt.exceptions import CommandExecutionError

from tests.functional.pgsql_server import EXTENSIONS as FOLDER

pytestmark = pytest.mark.once


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    pg_server.sql("CREATE ROLE t_owner LOGIN PASSWORD 'abc'")
    pg_server.sql("CREATE DATABASE t_db OWNER t_owner")
    yield pg_server
    pg_server.sweep()


@pytest.fixture
def files():
    """Put files of an extension on the server, as a package would."""
    written = []

    def write(name, version="1.0", script="", **control):
        lines = [f"{key} = {value}" for key, value in {"default_version": f"'{version}'", **control}.items()]
        files = {f"{name}.control": "\n".join(lines), f"{name}--{version}.sql": script}
        for file, text in files.items():
            (FOLDER / file).write_text(f"{text}\n")
            written.append(FOLDER / file)

    yield write
    for path in written:
        path.unlink(missing_ok=True)


def present(pg, name, **arguments):
    return pg.state("pgsql_extension.present", name, **{"database": "t_db", **arguments})


def absent(pg, name, **arguments):
    return pg.state("pgsql_extension.absent", name, **{"database": "t_db", **arguments})


def installed(pg):
    """Version and schema of what is in the database."""
    statement = "SELECT extname, extversion, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace"
    return {row[0]: row[1:] for row in pg.sql(statement, database="t_db") if row[0] != "plpgsql"}


def test_creates(pg, testmode):
    ret = present(pg, "pg_trgm", schema="public", test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"] == f"Extension pg_trgm {'would be' if testmode else 'was'} created in database t_db."
    assert ret["changes"] == {
        "extension": {"old": None, "new": "pg_trgm"},
        "version": {"old": None, "new": "1.6"},
        "schema": {"old": None, "new": "public"},
    }
    assert installed(pg) == ({} if testmode else {"pg_trgm": ("1.6", "public")})


def test_second_run_writes_nothing(pg, testmode):
    arguments = {"schema": "public", "update": True, "reindex": True}
    present(pg, "pg_trgm", **arguments)
    with pg.read_only():
        ret = present(pg, "pg_trgm", test=testmode, **arguments)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_new_one_goes_to_public_or_where_it_has_to(pg, files):
    files("t_fixed", schema="pg_catalog", relocatable="false")
    assert present(pg, "unaccent")["result"] is True
    assert present(pg, "t_fixed")["result"] is True
    assert installed(pg) == {"unaccent": ("1.1", "public"), "t_fixed": ("1.0", "pg_catalog")}


def test_version_is_not_changed_unless_declared(pg):
    pg.sql("CREATE EXTENSION pg_trgm VERSION '1.5'", database="t_db")
    assert present(pg, "pg_trgm", schema="public")["changes"] == {}
    assert present(pg, "pg_trgm", version="1.5")["changes"] == {}


@pytest.mark.parametrize("how", ({"update": True}, {"version": "1.6"}))
def test_version_moves(pg, how, testmode):
    pg.sql("CREATE EXTENSION pg_trgm VERSION '1.5'", database="t_db")
    ret = present(pg, "pg_trgm", test=testmode, **how)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"version": {"old": "1.5", "new": "1.6"}}
    assert installed(pg)["pg_trgm"][0] == ("1.5" if testmode else "1.6")


def test_given_version(pg):
    assert present(pg, "pg_trgm", version="1.4")["result"] is True
    assert installed(pg)["pg_trgm"][0] == "1.4"
    ret = present(pg, "pg_trgm", version="1.4", update=True)
    assert (ret["result"], ret["comment"]) == (False, "Give one of version and update.")


def test_version_without_a_way(pg, testmode):
    """Said by a dry run too, for which another state may bring the package first."""
    ret = present(pg, "pg_trgm", version="7", test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert "The server does not offer the extension pg_trgm in version 7." in ret["comment"]
    present(pg, "pg_trgm")
    ret = present(pg, "pg_trgm", version="1.3", test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert "The server knows no way to update the extension pg_trgm from 1.6 to 1.3." in ret["comment"]
    with pytest.raises(CommandExecutionError, match="knows no way"):
        pg.modules.pgsql_extension.update("pg_trgm", "t_db", version="1.3")
    assert installed(pg)["pg_trgm"][0] == "1.6"


@pytest.fixture
def indexed(pg):
    pg.sql("CREATE EXTENSION pg_trgm VERSION '1.5'", database="t_db")
    pg.sql('CREATE SCHEMA "My Schema"', database="t_db")
    pg.sql('CREATE TABLE "My Schema".words (id int PRIMARY KEY, word text)', database="t_db")
    pg.sql('CREATE INDEX "a ""b""" ON "My Schema".words USING gin (word gin_trgm_ops)', database="t_db")
    pg.sql('CREATE INDEX plain ON "My Schema".words (word)', database="t_db")

    def nodes():
        where = "relkind = 'i' AND relnamespace = '\"My Schema\"'::regnamespace"
        statement = f"SELECT relname, relfilenode FROM pg_class WHERE {where}"
        return dict(pg.sql(statement, database="t_db"))

    return nodes


def test_indexes_are_rebuilt_only_when_the_version_moves(pg, indexed):
    assert pg.modules.pgsql_extension.indexes("pg_trgm", "t_db") == [["My Schema", 'a "b"']]
    before = indexed()
    present(pg, "pg_trgm", schema="public", reindex=True)
    assert indexed() == before
    assert present(pg, "pg_trgm", update=True, reindex=True)["result"] is True
    after = indexed()
    assert [name for name in before if before[name] != after[name]] == ['a "b"']
    present(pg, "pg_trgm", update=True, reindex=True)
    assert indexed() == after


def test_indexes_are_not_rebuilt_unasked(pg, indexed):
    before = indexed()
    assert present(pg, "pg_trgm", update=True)["result"] is True
    assert indexed() == before


def test_indexes_on_types_and_methods_of_an_extension(pg):
    pg.sql("CREATE EXTENSION bloom; CREATE EXTENSION citext; CREATE TABLE t (v int, w citext)", database="t_db")
    pg.sql("CREATE INDEX by_method ON t USING bloom (v); CREATE INDEX by_type ON t (w)", database="t_db")
    assert pg.modules.pgsql_extension.indexes("bloom", "t_db") == [["public", "by_method"]]
    assert pg.modules.pgsql_extension.indexes("citext", "t_db") == [["public", "by_type"]]


def test_indexes_on_functions_and_operators_of_an_extension(pg):
    """They were not rebuilt."""
    pg.sql("CREATE EXTENSION hstore; CREATE TABLE t (h hstore, w text)", database="t_db")
    pg.sql("CREATE INDEX by_operator ON t ((h -> 'a'))", database="t_db")
    pg.sql("CREATE INDEX by_function ON t ((akeys(h)))", database="t_db")
    pg.sql("CREATE INDEX by_predicate ON t (w) WHERE h ? 'a'", database="t_db")
    pg.sql("CREATE INDEX plain ON t (lower(w))", database="t_db")
    used = pg.modules.pgsql_extension.indexes("hstore", "t_db")
    assert used == [["public", "by_function"], ["public", "by_operator"], ["public", "by_predicate"]]


def test_update_and_rebuilding_are_one_transaction(pg, indexed, files):
    """A script that fails, or an index that cannot be rebuilt, leaves the old version."""
    files("t_ext", "1.0", "CREATE FUNCTION t_one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';")
    present(pg, "t_ext")
    files("t_ext", "2.0", "")
    (FOLDER / "t_ext--1.0--2.0.sql").write_text(
        "CREATE FUNCTION t_two() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT 1/0;"
    )
    try:
        ret = present(pg, "t_ext", update=True)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "division by zero" in ret["comment"]
        assert installed(pg)["t_ext"][0] == "1.0"
    finally:
        (FOLDER / "t_ext--1.0--2.0.sql").unlink()
        (FOLDER / "t_ext--1.0.sql").unlink()


def test_schema_moves(pg, testmode):
    pg.sql("CREATE SCHEMA other; CREATE EXTENSION pg_trgm SCHEMA other", database="t_db")
    ret = present(pg, "pg_trgm", schema="public", test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"schema": {"old": "other", "new": "public"}}
    assert installed(pg)["pg_trgm"][1] == ("other" if testmode else "public")


def test_schema_that_cannot_move(pg, files, testmode):
    files("t_fixed", relocatable="false")
    pg.sql("CREATE SCHEMA other; CREATE EXTENSION t_fixed SCHEMA other", database="t_db")
    ret = present(pg, "t_fixed", schema="public", test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == "The extension t_fixed cannot be moved out of the schema other."


def test_required_extensions(pg):
    ret = present(pg, "earthdistance")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == "The extension earthdistance requires cube: set `cascade: true`."
    assert installed(pg) == {}
    assert present(pg, "earthdistance", schema="public", cascade=True)["result"] is True
    assert set(installed(pg)) == {"cube", "earthdistance"}


def test_extension_that_the_server_does_not_offer(pg, testmode):
    """Another state may bring the package first: a dry run does not know."""
    ret = present(pg, "t_none", test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert "The server does not offer the extension t_none: install its package." in ret["comment"]


def test_offer_is_seen_as_soon_as_the_package_is_there(pg, files):
    assert present(pg, "t_late")["result"] is False
    files("t_late", "1.0")
    assert present(pg, "t_late")["result"] is True
    (FOLDER / "t_late--1.0.sql").unlink()
    files("t_late", "1.1")
    (FOLDER / "t_late--1.0--1.1.sql").write_text("")
    try:
        assert present(pg, "t_late", update=True)["changes"] == {"version": {"old": "1.0", "new": "1.1"}}
    finally:
        (FOLDER / "t_late--1.0--1.1.sql").unlink()


def test_library_that_is_not_preloaded(pg, testmode):
    ret = present(pg, "pg_stat_statements", test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert "needs pg_stat_statements in shared_preload_libraries, and a restart" in ret["comment"]
    assert installed(pg) == {}


def test_superuser_that_is_needed(pg, testmode):
    connection = {"host": "127.0.0.1", "user": "t_owner", "password": "abc"}
    ret = present(pg, "bloom", connection=connection, test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == "The extension bloom needs a superuser, and the connection is none."
    # A trusted one does not.
    ret = present(pg, "pg_trgm", connection=connection, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert present(pg, "pg_trgm", connection=connection, test=testmode)["changes"] == (
        ret["changes"] if testmode else {}
    )


@pytest.mark.parametrize(
    "trap",
    (
        "CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'",
        (
            "CREATE FUNCTION public.f(int, text) RETURNS bool LANGUAGE sql AS 'SELECT true'; "
            "CREATE OPERATOR public.= (leftarg = int, rightarg = text, function = public.f)"
        ),
    ),
)
def test_traps_in_the_schema(pg, trap):
    """The owner of the database may put objects into public that an extension's script would stumble on."""
    with pg.superuser("t_db") as session, session.cursor() as cursor:
        cursor.execute(f"SET ROLE t_owner; {trap}")
    for name in ("bloom", "pg_trgm"):
        ret = present(pg, name)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "called like PostgreSQL's own" in ret["comment"]
    assert installed(pg) == {}


def test_what_is_called_like_an_extensions_own_is_a_trap_for_its_next_script(pg):
    """An overload whose arguments fit a call in the script better would run as the superuser."""
    present(pg, "pg_trgm", version="1.5")
    with pg.superuser("t_db") as session, session.cursor() as cursor:
        cursor.execute(
            "SET ROLE t_owner; CREATE FUNCTION public.similarity(varchar, varchar) RETURNS real "
            "LANGUAGE sql AS 'SELECT 1::real'"
        )
    ret = present(pg, "pg_trgm", update=True)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "function public.similarity(" in ret["comment"]
    assert installed(pg)["pg_trgm"][0] == "1.5"


def test_harmless_functions_of_the_owner(pg):
    with pg.superuser("t_db") as session, session.cursor() as cursor:
        cursor.execute("SET ROLE t_owner; CREATE FUNCTION public.immich_uuid() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert present(pg, "bloom")["result"] is True


def test_database_that_is_not_there(pg, testmode):
    ret = present(pg, "pg_trgm", database="t_none", test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert 'database "t_none" does not exist' in ret["comment"]
    ret = absent(pg, "pg_trgm", database="t_none", test=testmode)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_server_that_is_not_there(pg, testmode):
    ret = present(pg, "pg_trgm", connection={"host": "/run/nowhere"}, test=testmode)
    assert ret["result"] is (None if testmode else False)
    ret = absent(pg, "pg_trgm", connection={"host": "/run/nowhere"}, test=testmode)
    assert (ret["result"], ret["changes"]) == (None if testmode else False, {})
    assert "is absent" not in ret["comment"]


def test_drops(pg, testmode):
    present(pg, "pg_trgm")
    ret = absent(pg, "pg_trgm", test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"extension": {"old": "pg_trgm", "new": None}}
    assert ("pg_trgm" in installed(pg)) is testmode


def test_absent_extension_stays_absent(pg, testmode):
    with pg.read_only():
        ret = absent(pg, "pg_trgm", test=testmode)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_extension_that_is_used_is_not_dropped(pg, indexed):
    ret = absent(pg, "pg_trgm")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "depends on" in ret["comment"]
    assert absent(pg, "pg_trgm", cascade=True)["result"] is True


def test_list(pg):
    listed = pg.modules.pgsql_extension.list("t_db")
    assert set(listed) == {"plpgsql"}
    desired = pg.modules.pgsql_extension.list("t_db", ["earthdistance", "t_none"])
    assert desired["earthdistance"]["requires"] == ["cube"]
    assert desired["t_none"]["available"] is None
    with pytest.raises(CommandExecutionError, match="does not exist"):
        pg.modules.pgsql_extension.list("t_none")
