"""The states of `pgsql` when something breaks on the way: nothing is half done, and a re-run completes."""

import gc
import subprocess

import pytest

from tests.functional.pgsql_server import UNIT, systemctl
from tests.functional.proxy import Proxy

pytestmark = pytest.mark.once

ROLE = {
    "login": True,
    "password": "abc",
    "connection_limit": 3,
    "member_of": ["pg_monitor"],
    "settings": {"jit": False},
}
DATABASE = {"owner": "t_owner", "connection_limit": 3, "settings": {"work_mem": "5MB"}, "privileges": {"PUBLIC": []}}


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    pg_server.sql("CREATE ROLE t_admin SUPERUSER LOGIN PASSWORD 'abc'; CREATE ROLE t_owner; CREATE ROLE t_role")
    pg_server.sql("CREATE DATABASE t_db")
    pg_server.sql("CREATE EXTENSION pg_trgm VERSION '1.5' SCHEMA public", database="t_db")
    yield pg_server
    pg_server.sweep()


def over(proxy):
    return {"host": "127.0.0.1", "port": proxy.port, "user": "t_admin", "password": "abc", "sslmode": "disable"}


CHANGES = {
    "role": lambda pg, **call: pg.state("pgsql_role.present", "t_role", **ROLE, **call),
    "database": lambda pg, **call: pg.state("pgsql_database.present", "t_db", **DATABASE, **call),
    "extension": lambda pg, **call: pg.state(
        "pgsql_extension.present", "pg_trgm", database="t_db", update=True, reindex=True, **call
    ),
}


@pytest.fixture(params=CHANGES)
def change(request, pg):
    def run(**call):
        return CHANGES[request.param](pg, **call)

    return run


def held(pg):
    """All of roles and databases, and the version of the extension."""
    return pg.everything(), pg.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_trgm'", database="t_db")


def assert_completed(pg, change):
    ret = change()
    assert ret["result"] is True, ret["comment"]
    with pg.read_only():
        assert change()["changes"] == {}


@pytest.mark.parametrize("word", (b"BEGIN", b"ALTER", b"COMMIT"))
def test_connection_that_is_cut_on_the_way(pg, change, word):
    before = held(pg)
    with Proxy(("127.0.0.1", 5432), word) as proxy:
        ret = change(connection=over(proxy))
        assert proxy.word is None
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "server closed the connection unexpectedly" in ret["comment"]
    assert held(pg) == before
    assert_completed(pg, change)


def test_connection_that_is_cut_before_the_answer(pg, change):
    """The change has happened and nobody could say so: the state fails, and a re-run finds nothing left to do."""
    with Proxy(("127.0.0.1", 5432), b"COMMIT", after=True) as proxy:
        ret = change(connection=over(proxy))
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "server closed the connection unexpectedly" in ret["comment"]
    with pg.read_only():
        assert change()["changes"] == {}


@pytest.mark.parametrize("word", (b"BEGIN", b"COMMIT"))
def test_session_that_an_administrator_ends_on_the_way(pg, change, word):
    before = held(pg)

    def terminate():
        pg.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'salt'")

    with Proxy(("127.0.0.1", 5432), word, terminate) as proxy:
        ret = change(connection=over(proxy))
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].startswith("PostgreSQL: ")
    assert held(pg) == before
    assert_completed(pg, change)


@pytest.mark.long
def test_server_that_is_stopped_between_read_and_write(pg, change):
    before = held(pg)
    try:
        with Proxy(("127.0.0.1", 5432), b"BEGIN", lambda: systemctl("stop", UNIT)) as proxy:
            ret = change(connection=over(proxy))
    finally:
        systemctl("start", UNIT)
    assert (ret["result"], ret["changes"]) == (False, {})
    pg.new_run()
    pg.modules.pgsql_server.wait_until_ready()
    assert held(pg) == before
    assert_completed(pg, change)


@pytest.mark.long
def test_lock_on_pg_authid(pg):
    """Held by somebody else, it makes the state give up after half a minute."""
    before = held(pg)
    with pg.superuser() as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE")
        ret = pg.state("pgsql_role.present", "t_role", **ROLE)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "lock timeout" in ret["comment"]
    assert held(pg) == before
    assert_completed(pg, lambda **call: CHANGES["role"](pg, **call))


@pytest.mark.parametrize(
    ("function", "arguments"),
    (
        ("pgsql_role.present", {"name": "t_new", **ROLE}),
        ("pgsql_database.present", {"name": "t_new", **DATABASE}),
        ("pgsql_extension.present", {"name": "unaccent", "database": "t_db"}),
    ),
)
def test_two_runs_at_once(pg, at_once, function, arguments):
    """One of them may find that it is late, and says so."""

    def run():
        return pg.state(function, **arguments)

    rets = at_once(run)
    assert any(ret["result"] for ret in rets), rets
    assert all(ret["result"] or ret["comment"].startswith("PostgreSQL: ") for ret in rets), rets
    assert_completed(pg, run)


def test_a_forked_process_leaves_its_parents_sessions_open(pg, at_once):
    """`parallel: True` forks: what the child closed, and the ninth database, ended the parent's sessions."""
    pg.modules.pgsql_role.list()
    for index in range(7):
        pg.sql(f"CREATE DATABASE t_db{index}")
        pg.modules.pgsql_database.schema_privileges(f"t_db{index}")
    statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'salt' ORDER BY 1"
    number = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'salt'"
    assert pg.at_last(number, [(8,)]) == [(8,)]
    before = pg.sql(statement)

    def child():
        pg.modules.pgsql_database.schema_privileges("t_db")
        pg.modules.pgsql_server.disconnect()
        return True

    assert at_once(child) == [True] * 4
    assert set(before) <= set(pg.sql(statement))
    pg.modules.pgsql_database.schema_privileges("t_db0")
    assert pg.at_last(statement, before) == before


def test_database_that_could_only_be_created_is_not_reported_as_declared(pg):
    """The changes of a failed state named what had not happened."""
    ret = pg.state("pgsql_database.present", "t_new", owner="t_owner", settings={"no_such_setting": 1})
    assert ret["result"] is False
    assert set(ret["changes"]) == {"database", "owner"}
    assert_completed(pg, lambda: pg.state("pgsql_database.present", "t_new", owner="t_owner"))


def test_sessions_do_not_pile_up_over_many_runs(pg):
    """Runs in one process, as in a minion that is told to use threads: each run's sessions end with it."""
    pg.sql("DROP ROLE t_role")
    for _ in range(3):
        assert pg.modules.state.single("pgsql_role.present", "t_role", login=True).result is True
        pg.modules.pgsql_role.list()
    gc.collect()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'salt'"
    assert pg.at_last(sessions, [(1,)]) == [(1,)]


def test_salt_call_leaves_no_session(pg):
    done = subprocess.run(
        ["salt-call", "--local", "--module-dirs=/srv/formula", "pgsql_role.list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "t_owner" in done.stdout
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'salt'"
    assert pg.at_last(sessions, [(0,)]) == [(0,)]
