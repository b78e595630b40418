"""`pgsql_role`, execution module and states, on the host's PostgreSQL."""

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import encrypt_password
from salt.exceptions import CommandExecutionError

from pgsql_core.roles import ATTRIBUTES
from pgsql_core.verifiers import matches
from tests.functional.pgsql_server import EVERY_CHARACTER, SOCKET_DIR
from tests.functional.release import POSTGRES, only

FULL = {
    "login": True,
    "superuser": False,
    "createdb": True,
    "createrole": False,
    "replication": False,
    "bypassrls": False,
    "inherit": True,
    "connection_limit": 7,
    "valid_until": "2040-01-01 00:00:00+00",
    "password": "correct horse",
    "member_of": ["pg_monitor"],
    "settings": {"work_mem": "16MB", "search_path": ["app", "public"]},
    "database_settings": {"postgres": {"jit": False}},
}
ABC_WITH_10000_ITERATIONS = (
    "SCRAM-SHA-256$10000:MDEyMzQ1Njc4OWFiY2RlZg==$"
    "fZIaoBGx09QGYNZu5yYB4UB6tloClVIfKCfPPKsN9Lo=:hmvGMWB1Gn9U6P8pf1aaG/ePKprKFM3/B5NJk6kKYt8="
)
NOWHERE = {"host": "/run/nowhere"}


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    yield pg_server
    pg_server.sweep()


@pytest.fixture(scope="module")
def libpq(pg_server):
    """A connection, which libpq needs for encrypting a password."""
    with pg_server.superuser() as session:
        yield session


def present(pg, **arguments):
    return pg.state("pgsql_role.present", "t_role", **arguments)


def test_creates(pg, testmode):
    ret = present(pg, test=testmode, **FULL)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"] == f"Role t_role {'would be' if testmode else 'was'} created."
    assert ret["changes"]["role"] == {"old": None, "new": "t_role"}
    assert set(ret["changes"]) == {"role", *FULL}
    assert ("t_role" in pg.roles()) is not testmode


def test_what_it_created_is_as_declared(pg):
    assert present(pg, **FULL)["result"] is True
    columns = "rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit"
    row = pg.sql(f"SELECT {columns}, rolconnlimit FROM pg_roles WHERE rolname = 't_role'")[0]
    assert row == (True, False, True, False, False, False, True, 7)
    assert pg.value("SELECT rolvaliduntil = '2040-01-01 00:00+00' FROM pg_roles WHERE rolname = 't_role'")
    assert pg.value("SELECT pg_has_role('t_role', 'pg_monitor', 'MEMBER')")
    stored = pg.sql("SELECT setconfig FROM pg_db_role_setting WHERE setrole = 't_role'::regrole ORDER BY setdatabase")
    assert stored == [(["work_mem=16MB", "search_path=app, public"],), (["jit=off"],)]
    assert pg.logs_in("t_role", "correct horse")


def test_second_run_writes_nothing(pg, testmode):
    present(pg, **FULL)
    before = pg.everything()
    with pg.read_only():
        ret = present(pg, test=testmode, **FULL)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert pg.everything() == before


def test_read_only_proof_can_fail(pg):
    with pg.read_only():
        ret = present(pg, login=True)
    assert ret["result"] is False
    assert "read-only transaction" in ret["comment"]


DRIFTS = {
    "login": "ALTER ROLE t_role NOLOGIN",
    "superuser": "ALTER ROLE t_role SUPERUSER",
    "createdb": "ALTER ROLE t_role NOCREATEDB",
    "createrole": "ALTER ROLE t_role CREATEROLE",
    "replication": "ALTER ROLE t_role REPLICATION",
    "bypassrls": "ALTER ROLE t_role BYPASSRLS",
    "inherit": "ALTER ROLE t_role NOINHERIT",
    "connection_limit": "ALTER ROLE t_role CONNECTION LIMIT 8",
    "valid_until": "ALTER ROLE t_role VALID UNTIL 'infinity'",
    "password": "ALTER ROLE t_role PASSWORD 'another'",
    "member_of": "GRANT pg_read_all_data TO t_role",
    "settings": "ALTER ROLE t_role SET work_mem = '17MB'",
    "database_settings": "ALTER ROLE t_role IN DATABASE postgres RESET jit",
}


@pytest.mark.parametrize("key", FULL)
def test_drift(pg, key, testmode):
    present(pg, **FULL)
    good = pg.everything()
    pg.sql(DRIFTS[key])
    drifted = pg.everything()
    ret = present(pg, test=testmode, **FULL)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"] == f"Role t_role {'would be' if testmode else 'was'} changed."
    assert set(ret["changes"]) == {key}
    if testmode:
        assert pg.everything() == drifted
    elif key == "password":
        assert pg.logs_in("t_role", FULL["password"])
    else:
        assert pg.value("SELECT count(*) FROM pg_roles WHERE rolname = 't_role'") == 1
        assert pg.modules.pgsql_role.get("t_role") == {**pg.modules.pgsql_role.get("t_role"), "login": True}
        if key not in ("settings", "database_settings"):  # the order in which settings are stored may differ
            assert [row[0] for row in pg.everything()][:1] == [row[0] for row in good][:1]
    assert present(pg, test=testmode, **FULL)["changes"].keys() == (ret["changes"].keys() if testmode else set())


def test_what_is_not_declared_is_not_changed(pg):
    pg.sql("CREATE ROLE t_role LOGIN CREATEDB CONNECTION LIMIT 3 PASSWORD 'abc' IN ROLE pg_monitor")
    before = pg.everything()
    assert present(pg)["changes"] == {}
    assert set(present(pg, inherit=False)["changes"]) == {"inherit"}
    pg.sql("ALTER ROLE t_role INHERIT")
    assert pg.everything() == before


def test_foreign_roles_are_untouched(pg):
    pg.sql("CREATE ROLE t_foreign LOGIN PASSWORD 'abc' IN ROLE pg_monitor")
    pg.sql("ALTER ROLE t_foreign SET work_mem = '5MB'")
    statement = "SELECT to_jsonb(a) FROM pg_authid a WHERE rolname <> 't_role' ORDER BY oid"
    before = pg.sql(statement)
    present(pg, **FULL)
    pg.state("pgsql_role.absent", "t_role")
    assert pg.sql(statement) == before
    assert pg.modules.pgsql_role.get("t_foreign")["settings"] == {"work_mem": "5MB"}


# Passwords


PASSWORDS = [
    EVERY_CHARACTER,
    f"  leading and trailing {EVERY_CHARACTER}  ",
    "'; DROP ROLE t_role; --",
    "%s %(name)s {} $1 \\'",
    "päß wörd ﬁ Ⅸ\u00a0\u00ad",
    "\u0627 not valid by SASLprep a",
    "x" * 999 + "y",
]


@pytest.mark.parametrize("password", PASSWORDS)
def test_password_lets_in_over_tcp(pg, password):
    ret = present(pg, login=True, password=password)
    assert ret["result"] is True
    assert ret["changes"]["password"] == {"old": None, "new": "(hidden)"}
    assert pg.verifier("t_role").startswith("SCRAM-SHA-256$4096:")
    assert pg.logs_in("t_role", password)
    assert not pg.logs_in("t_role", password[1:])
    assert present(pg, login=True, password=password)["changes"] == {}
    assert set(present(pg, login=True, password=password + "x")["changes"]) == {"password"}


def test_password_from_pillar_and_file(pg, tmp_path):
    pg.pillar["t"] = {"password": f" {EVERY_CHARACTER} "}
    assert present(pg, login=True, password_pillar="t:password")["result"] is True
    assert pg.logs_in("t_role", f" {EVERY_CHARACTER} ")
    path = tmp_path / "password"
    path.write_text(f" {EVERY_CHARACTER} \n")
    assert present(pg, password_file=str(path))["changes"] == {}


def test_password_that_is_nowhere(pg, tmp_path):
    ret = present(pg, password_pillar="t:password")
    assert (ret["result"], ret["comment"]) == (False, "The pillar has no t:password.")
    ret = present(pg, password_file=str(tmp_path / "none"))
    assert ret["result"] is False
    assert "Cannot read" in ret["comment"]
    ret = present(pg, password="a", password_pillar="b")
    assert (ret["result"], ret["comment"]) == (False, "Give one of password, password_pillar and password_file.")
    assert "t_role" not in pg.roles()


def test_iteration_count_of_the_stored_verifier_counts(pg):
    # PostgreSQL itself makes such verifiers since 16, and keeps those of others in any version.
    pg.sql("CREATE ROLE t_role PASSWORD %s", (ABC_WITH_10000_ITERATIONS,))
    before = pg.verifier("t_role")
    assert before == ABC_WITH_10000_ITERATIONS
    assert present(pg, password="abc")["changes"] == {}
    assert pg.verifier("t_role") == before


@only(POSTGRES >= 16)
def test_servers_iteration_count_is_used_for_a_new_verifier(pg):
    pg.sql("ALTER SYSTEM SET scram_iterations = 5000")
    pg.reload()
    try:
        pg.new_run()
        present(pg, login=True, password="abc")
        assert pg.verifier("t_role").startswith("SCRAM-SHA-256$5000:")
        assert pg.logs_in("t_role", "abc")
    finally:
        pg.sql("ALTER SYSTEM RESET scram_iterations")
        pg.reload()


def test_right_md5_is_kept_unless_scram_is_asked_for(pg):
    pg.sql("SET password_encryption = 'md5'; CREATE ROLE t_role LOGIN PASSWORD 'abc'")
    before = pg.verifier("t_role")
    assert before == "md5" + hashlib.md5(b"abct_role").hexdigest()
    assert present(pg, password="abc")["changes"] == {}
    assert pg.verifier("t_role") == before
    ret = present(pg, password="abc", password_encryption="scram-sha-256", test=True)
    assert (ret["result"], set(ret["changes"])) == (None, {"password"})
    ret = present(pg, password="abc", password_encryption="scram-sha-256")
    assert (ret["result"], set(ret["changes"])) == (True, {"password"})
    assert pg.logs_in("t_role", "abc")
    assert present(pg, password="abc", password_encryption="scram-sha-256")["changes"] == {}


def test_verifier_is_taken_as_it_is(pg):
    pg.sql("CREATE ROLE t_other PASSWORD 'abc'")
    verifier = pg.verifier("t_other")
    assert present(pg, login=True, password=verifier)["result"] is True
    assert pg.verifier("t_role") == verifier
    assert present(pg, login=True, password=verifier)["changes"] == {}
    assert pg.logs_in("t_role", "abc")


def test_password_is_in_no_log_of_the_server_and_no_output(pg, caplog):
    secret = "s3cr3t-in-no-log"
    log = Path(f"/var/log/postgresql/postgresql-{POSTGRES}-main.log")
    pg.sql("ALTER SYSTEM SET log_statement = 'all'")
    pg.reload()
    try:
        start = log.stat().st_size
        with caplog.at_level(1):
            rets = [present(pg, login=True, password=secret, test=test) for test in (True, False, False)]
            rets.append(present(pg, password=secret + "2"))
            rets.append(present(pg, password=secret, settings={"no_such_setting": 1}))
        logged = log.read_bytes()[start:].decode()
    finally:
        pg.sql("ALTER SYSTEM RESET log_statement")
        pg.reload()
    assert "CREATE ROLE" in logged
    assert secret not in logged
    assert [ret["result"] for ret in rets] == [None, True, True, True, False]
    assert secret not in str(rets)
    assert "SCRAM" not in str(rets)
    assert secret not in caplog.text


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
# Mapped to a space, mapped to nothing, changed by NFKC, prohibited, unassigned in Unicode 3.2, wrong directions.
TRICKY = "\u00a0\u3000\u00ad\u200b\ufb01\u2168\u0340\ue000\ufffd\u0221\u0627a1 \u0007"


@pytest.mark.once
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    password=st.text(CHARACTERS, min_size=1) | st.text(TRICKY, min_size=1, max_size=6),
    role=st.text("ab\u00e4 ", min_size=1),
)
def test_verifiers_of_libpq_are_recognised(libpq, password, role):
    """libpq is the reference: it prepares passwords with PostgreSQL's own SASLprep."""
    for algorithm in ("scram-sha-256", "md5"):
        verifier = encrypt_password(password, role, libpq, algorithm)
        assert matches(password, verifier, role)
        assert not matches(f"{password}x", verifier, role)
        # A verifier given as the password stands for itself.
        assert matches(verifier, verifier, role)


def test_password_encryption_that_makes_no_sense(pg, testmode):
    """Both ended in "this still differs", after a password had been written."""
    pg.sql("SET password_encryption = 'md5'; CREATE ROLE t_role PASSWORD 'abc'")
    for wrong, said in (
        ({"password": "abc", "password_encryption": "md5"}, "must be scram-sha-256 or not set"),
        ({"password_encryption": "scram-sha-256"}, "needs the password"),
    ):
        ret = present(pg, test=testmode, **wrong)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert said in ret["comment"]
    assert pg.verifier("t_role").startswith("md5")


@pytest.mark.parametrize(
    ("wrong", "said"),
    (
        ({"superuser": "false"}, "superuser is true or false, not 'false'"),  # it made a superuser
        ({"login": 1}, "login is true or false, not 1"),
        ({"connection_limit": "10"}, "connection_limit is a number"),
        ({"connection_limit": True}, "connection_limit is a number"),
        ({"connection_limit": -2}, "connection_limit is a number"),
        ({"password": ""}, "not empty"),  # PostgreSQL takes it for no password
        ({"password": "a\0b"}, "no NUL"),
        ({"member_of": "pg_monitor"}, "not the text 'pg_monitor'"),  # its letters were taken for roles
        ({"settings": {"application_name": "a\0b"}}, "NUL"),
    ),
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_changes(pg, testmode, wrong, said):
    pg.sql("CREATE ROLE t_role CONNECTION LIMIT 10")
    before = pg.everything()
    ret = present(pg, test=testmode, **wrong)
    if "settings" in wrong and testmode:
        return  # the server is not asked
    assert (ret["result"], ret["changes"]) == (False, {})
    assert said in ret["comment"]
    assert pg.everything() == before


@pytest.mark.parametrize("name", ("", "a\0b", "t_" + "x" * 62, "t_" + "\u00e4" * 31), ids=ascii)
def test_name_that_postgresql_would_cut_off_is_refused(pg, testmode, name):
    """It meant the role of the same first 63 bytes."""
    pg.sql(f'CREATE ROLE "{("t_" + "x" * 61)}"')
    before = pg.everything()
    for function in ("present", "absent"):
        ret = pg.state(f"pgsql_role.{function}", name, test=testmode)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "is no name for PostgreSQL" in ret["comment"]
    assert pg.everything() == before
    assert present(pg)["result"] is True
    assert pg.state("pgsql_role.present", "t_" + "x" * 61)["changes"] == {}


@pytest.mark.parametrize("valid_until", ("-infinity", "infinity", "2040-01-01", "0001-01-01 BC"))
def test_a_password_that_is_expired_for_good_is_not_valid_for_good(pg, valid_until):
    """-infinity was read as infinity."""
    pg.sql("CREATE ROLE t_role VALID UNTIL '-infinity'")
    assert bool(present(pg, valid_until=valid_until)["changes"]) is (valid_until != "-infinity")
    assert pg.value(f"SELECT rolvaliduntil = '{valid_until}' FROM pg_roles WHERE rolname = 't_role'")
    assert present(pg, valid_until=valid_until)["changes"] == {}


# Memberships


@only(POSTGRES >= 16)
def test_membership_options(pg):
    pg.sql("CREATE ROLE t_a; CREATE ROLE t_b; CREATE ROLE t_c")
    desired = ["t_a", {"t_b": {"admin": True}}, {"t_c": {"inherit": False, "set": False}}]
    assert present(pg, member_of=desired)["result"] is True
    statement = """
        SELECT roleid::regrole::text, admin_option, inherit_option, set_option FROM pg_auth_members
        WHERE member = 't_role'::regrole ORDER BY 1
        """
    expected = [("t_a", False, True, True), ("t_b", True, True, True), ("t_c", False, False, False)]
    assert pg.sql(statement) == expected
    assert present(pg, member_of=desired)["changes"] == {}
    pg.sql("GRANT t_c TO t_role WITH SET TRUE; REVOKE ADMIN OPTION FOR t_b FROM t_role; REVOKE t_a FROM t_role")
    assert set(present(pg, member_of=desired)["changes"]) == {"member_of"}
    assert pg.sql(statement) == expected


@only(POSTGRES < 16)
def test_membership_options_of_older_servers(pg, testmode):
    pg.sql("CREATE ROLE t_a; CREATE ROLE t_b; CREATE ROLE t_role IN ROLE t_a")
    desired = [{"t_a": {"admin": True}}, "t_b"]
    ret = present(pg, member_of=desired, test=testmode)
    assert (ret["result"], set(ret["changes"])) == (None if testmode else True, {"member_of"})
    present(pg, member_of=desired)
    statement = """
        SELECT roleid::regrole::text, admin_option FROM pg_auth_members WHERE member = 't_role'::regrole ORDER BY 1
        """
    assert pg.sql(statement) == [("t_a", True), ("t_b", False)]
    assert present(pg, member_of=desired)["changes"] == {}
    present(pg, member_of=[{"t_a": {"admin": False}}])
    assert pg.sql(statement) == [("t_a", False)]


@only(POSTGRES < 16)
@pytest.mark.parametrize("option", ("inherit", "set"))
def test_membership_option_that_the_server_is_too_old_for(pg, option, testmode):
    """Of a new role and of one that is there; PostgreSQL would stumble on the syntax."""
    for _ in range(2):
        before = pg.everything()
        ret = present(pg, login=True, member_of=[{"pg_monitor": {option: True}}], test=testmode)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == f"The option {option} of a membership needs PostgreSQL 16, and the server has 15."
        assert pg.everything() == before
        present(pg)


def test_membership_by_another_grantor_is_revoked(pg):
    pg.sql("CREATE ROLE t_a; CREATE ROLE t_grantor; CREATE ROLE t_role; GRANT t_a TO t_grantor WITH ADMIN OPTION")
    pg.sql("SET ROLE t_grantor; GRANT t_a TO t_role")
    pg.sql("GRANT t_a TO t_role WITH ADMIN OPTION")
    assert present(pg, member_of=[{"t_a": {"admin": False}}])["result"] is True
    assert present(pg, member_of=[])["result"] is True
    assert pg.sql("SELECT 1 FROM pg_auth_members WHERE member = 't_role'::regrole") == []


def test_unknown_membership_option(pg):
    ret = present(pg, member_of=[{"pg_monitor": {"adm": True}}])
    assert (ret["result"], ret["comment"]) == (False, "A membership has no option adm.")
    assert "t_role" not in pg.roles()


# Settings


def test_settings_are_compared_by_meaning(pg):
    pg.sql("""
        CREATE ROLE t_role;
        ALTER ROLE t_role SET work_mem = '16384kB';
        ALTER ROLE t_role SET statement_timeout = 60000;
        ALTER ROLE t_role SET jit = 'off';
        ALTER ROLE t_role SET random_page_cost = 1.10;
        ALTER ROLE t_role SET search_path = "$user", public, "My Schema";
        ALTER ROLE t_role SET "my.Own" = 'a, b';
        ALTER ROLE t_role SET timezone = 'UTC';
        """)
    same = {
        "work_mem": "16MB",
        "statement_timeout": "1min",
        "jit": False,
        "random_page_cost": 1.1,
        "search_path": '"$user", public, "My Schema"',
        "my.Own": "a, b",
        "TimeZone": "UTC",
    }
    with pg.read_only():
        assert present(pg, settings=same)["changes"] == {}
    ret = present(pg, settings={**same, "my.Own": "a,b", "work_mem": None})
    assert ret["changes"]["settings"] == {
        "old": {"my.Own": "a, b", "work_mem": "16384kB"},
        "new": {"my.Own": "a,b", "work_mem": None},
    }
    held = pg.modules.pgsql_role.get("t_role")["settings"]
    assert held["my.Own"] == "a,b"
    assert "work_mem" not in held


def test_undeclared_settings_are_reset_where_asked(pg, testmode):
    for statement in ("CREATE ROLE t_role", "CREATE DATABASE t_db", "CREATE DATABASE t_other"):
        pg.sql(statement)
    pg.sql("ALTER ROLE t_role SET work_mem = '17MB'; ALTER ROLE t_role SET \"My.own\" = 'x'")
    pg.sql("ALTER ROLE t_role IN DATABASE t_db SET default_transaction_read_only = on")
    pg.sql("ALTER ROLE t_role IN DATABASE t_other SET jit = off")
    before = pg.modules.pgsql_role.get("t_role")
    assert present(pg)["changes"] == {}
    declared = {"settings": {"work_mem": "17MB"}, "database_settings": {"t_other": {"jit": False}}}
    ret = present(pg, test=testmode, reset_other_settings=True, **declared)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {
        "settings": {"old": {"My.own": "x"}, "new": {"My.own": None}},
        "database_settings": {
            "old": {"t_db": {"default_transaction_read_only": "on"}},
            "new": {"t_db": {"default_transaction_read_only": None}},
        },
    }
    after = pg.modules.pgsql_role.get("t_role")
    if testmode:
        assert after == before
        return
    assert (after["settings"], after["database_settings"]) == ({"work_mem": "17MB"}, {"t_other": {"jit": "off"}})
    with pg.read_only():
        assert present(pg, reset_other_settings=True, **declared)["changes"] == {}


def test_setting_that_is_an_injection(pg):
    evil = "x'; ALTER ROLE t_role SUPERUSER; --"
    assert present(pg, settings={"application_name": evil})["result"] is True
    assert pg.modules.pgsql_role.get("t_role")["settings"] == {"application_name": evil}
    ret = present(pg, settings={'a" = 1; ALTER ROLE t_role SUPERUSER; --': 1})
    assert ret["result"] is False
    assert not pg.modules.pgsql_role.get("t_role")["superuser"]


# Failures


def test_failure_rolls_everything_back(pg):
    ret = present(pg, login=True, password="abc", member_of=["pg_monitor"], settings={"no_such_setting": 1})
    assert ret["result"] is False
    assert "no_such_setting" in ret["comment"]
    assert ret["changes"] == {}
    assert "t_role" not in pg.roles()
    # The connection is as good as new.
    assert present(pg, login=True)["result"] is True


def test_server_that_is_not_there(pg, testmode):
    ret = present(pg, test=testmode, connection=NOWHERE, **FULL)
    assert ret["result"] is (None if testmode else False)
    assert "Cannot connect to PostgreSQL at /run/nowhere" in ret["comment"]
    assert set(ret["changes"]) == ({"role", *FULL} if testmode else set())
    ret = pg.state("pgsql_role.absent", "t_role", test=testmode, connection=NOWHERE)
    # Who cannot be asked has not said that there is no such role.
    assert (ret["result"], ret["changes"]) == (None if testmode else False, {})
    assert "Cannot connect" in ret["comment"]
    assert "is absent" not in ret["comment"]


def test_postgresql_that_is_not_installed(pg, testmode):
    ret = present(pg, test=testmode, connection={"os_user": "nobody-such"})
    assert ret["result"] is (None if testmode else False)
    assert "is the server installed" in ret["comment"]


@pytest.mark.parametrize(
    ("connection", "reason"),
    (
        ({"os_user": "daemon"}, "Peer authentication failed"),
        ({"host": "127.0.0.1", "password": "s3cr3t-wrong"}, "password authentication failed"),
        ({"host": "192.0.2.1", "connect_timeout": 2}, "Cannot connect"),
        ({"hots": "x"}, "Unknown in a PostgreSQL connection: hots."),
    ),
)
def test_login_that_fails_is_an_error_and_never_absence(pg, connection, reason, testmode):
    for function in ("present", "absent"):
        ret = pg.state(f"pgsql_role.{function}", "t_role", test=testmode, connection=connection)
        assert ret["result"] is False
        assert reason in ret["comment"]
        assert "s3cr3t" not in ret["comment"]
    assert os.geteuid() == 0


def test_session_that_the_server_ended_is_opened_again(pg):
    present(pg, login=True)
    pg.sql("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'salt'")
    assert present(pg, login=True)["changes"] == {}


def test_one_connection_serves_many_states(pg):
    for index in range(5):
        pg.state("pgsql_role.present", f"t_role{index}", login=True, settings={"work_mem": "5MB"})
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'salt'"
    assert pg.at_last(sessions, [(1,)]) == [(1,)]


def test_connection_from_pillar(pg):
    pg.sql("CREATE ROLE t_admin SUPERUSER LOGIN PASSWORD 'abc def'")
    pg.pillar["t"] = {"password": "abc def"}
    pg.pillar["pgsql"] = {"host": "127.0.0.1", "user": "t_admin", "password_pillar": "t:password", "sslmode": "require"}
    pg.new_run()
    assert present(pg, login=True)["result"] is True
    statement = """
        SELECT usename, client_addr::text, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
        WHERE application_name = 'salt'
        """
    expected = [("t_admin", "127.0.0.1/32", True)]
    assert pg.at_last(statement, expected) == expected


def test_connection_from_the_minions_configuration(pg, tmp_path, monkeypatch):
    """What is nearer wins, and one kind of password takes the place of another."""
    pg.sql("CREATE ROLE t_admin SUPERUSER LOGIN PASSWORD 'abc def'")
    password = tmp_path / "password"
    password.write_text("abc def\n")
    configured = {"host": "127.0.0.1", "user": "t_nobody", "password": "wrong"}
    monkeypatch.setitem(pg.loaders.configuration("pgsql_role.list"), "pgsql", configured)
    pg.pillar["pgsql"] = {"user": "t_admin"}
    pg.new_run()
    assert pg.modules.pgsql_role.list(connection={"password_file": str(password)})
    statement = "SELECT usename, client_addr::text FROM pg_stat_activity WHERE application_name = 'salt'"
    expected = [("t_admin", "127.0.0.1/32")]
    assert pg.at_last(statement, expected) == expected
    with pytest.raises(CommandExecutionError, match="password authentication failed"):
        pg.modules.pgsql_role.list()


@pytest.mark.parametrize("trusted", (True, False))
def test_tls_is_verified(pg, trusted):
    """Debian's server has a self-signed certificate; any other file does not vouch for it."""
    pg.sql("CREATE ROLE t_admin SUPERUSER LOGIN PASSWORD 'abc'")
    name = "ssl-cert-snakeoil.pem" if trusted else "ca-certificates.crt"
    connection = {
        "host": "127.0.0.1",
        "user": "t_admin",
        "password": "abc",
        "sslmode": "verify-ca",
        "sslrootcert": f"/etc/ssl/certs/{name}",
    }
    ret = present(pg, login=True, connection=connection)
    assert ret["result"] is trusted
    assert ("certificate verify failed" in ret["comment"]) is not trusted


def test_administrator_without_superuser(pg):
    """Such a one cannot read verifiers: a password is compared by logging in."""
    pg.sql("CREATE ROLE t_admin LOGIN CREATEROLE PASSWORD 'abc'")
    connection = {"host": "127.0.0.1", "user": "t_admin", "password": "abc"}
    arguments = {"login": True, "superuser": False, "password": "geheim", "connection": connection}
    assert present(pg, **arguments)["result"] is True
    assert pg.modules.pgsql_role.get("t_role", connection=connection)["password"] == "unreadable"
    assert present(pg, **arguments)["changes"] == {}
    pg.sql("ALTER ROLE t_role PASSWORD 'another'")
    ret = present(pg, **arguments, test=True)
    assert (ret["result"], set(ret["changes"])) == (None, {"password"})
    assert "may not read pg_authid" in ret["comment"]
    assert set(present(pg, **arguments)["changes"]) == {"password"}
    assert pg.logs_in("t_role", "geheim")
    ret = present(pg, **{**arguments, "login": False})
    assert ret["result"] is False
    assert "may not read pg_authid" in ret["comment"]
    assert "`login: true`" in ret["comment"]
    ret = present(pg, **{**arguments, "superuser": True})
    assert ret["result"] is False
    assert ("ermission denied" if POSTGRES >= 16 else "must be superuser") in ret["comment"]


# Absence


def test_drops(pg, testmode):
    pg.sql("CREATE ROLE t_role IN ROLE pg_monitor; ALTER ROLE t_role SET work_mem = '5MB'")
    ret = pg.state("pgsql_role.absent", "t_role", test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"role": {"old": "t_role", "new": None}}
    assert ("t_role" in pg.roles()) is testmode


def test_absent_role_stays_absent(pg, testmode):
    with pg.read_only():
        ret = pg.state("pgsql_role.absent", "t_role", test=testmode)
    assert (ret["result"], ret["changes"]) == (True, {})


@pytest.fixture
def owner(pg):
    pg.sql("CREATE ROLE t_role")
    pg.sql("CREATE DATABASE t_one OWNER t_role")
    pg.sql("CREATE DATABASE t_two")
    pg.sql("CREATE TABLE one (); ALTER TABLE one OWNER TO t_role", database="t_one")
    pg.sql("CREATE TABLE two (); ALTER TABLE two OWNER TO t_role", database="t_two")
    pg.sql("CREATE TABLE three (); GRANT SELECT ON three TO t_role", database="t_two")


def test_role_that_is_needed_is_not_dropped(pg, owner, testmode):
    ret = pg.state("pgsql_role.absent", "t_role", test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    for sentence in (
        "It owns the database t_one.",
        "It owns 1 object in the database t_one.",
        "It has privileges on 1 object in the database t_two.",
    ):
        assert sentence in ret["comment"]
    assert "t_role" in pg.roles()


def test_what_it_owns_is_reassigned(pg, owner, testmode):
    pg.sql("CREATE ROLE t_heir")
    ret = pg.state("pgsql_role.absent", "t_role", reassign_to="t_heir", test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"role": {"old": "t_role", "new": None}}
    assert ("t_role" in pg.roles()) is testmode
    heir = "t_role" if testmode else "t_heir"
    assert pg.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 't_one'") == heir
    assert pg.value("SELECT tableowner FROM pg_tables WHERE tablename = 'two'", database="t_two") == heir


# Execution module


def test_list(pg):
    pg.sql("CREATE ROLE t_role")
    assert {"postgres", "t_role"} <= set(pg.modules.pgsql_role.list())


def test_get_of_an_absent_role(pg):
    assert pg.modules.pgsql_role.get("t_nobody") is None


def test_version(pg):
    assert pg.modules.pgsql_server.version() // 10000 == POSTGRES


def test_timestamp(pg):
    assert pg.modules.pgsql_role.timestamp("2040-01-01 01:00+01") == "2040-01-01T00:00:00.000000Z"
    assert pg.modules.pgsql_role.timestamp("infinity") == "infinity"
    with pytest.raises(CommandExecutionError, match="invalid input syntax"):
        pg.modules.pgsql_role.timestamp("soon")


def test_powers(pg):
    pg.sql("CREATE ROLE t_middle IN ROLE pg_read_all_data; CREATE ROLE t_role IN ROLE t_middle; CREATE ROLE t_plain")
    pg.sql("CREATE DATABASE t_one OWNER t_plain")
    assert pg.modules.pgsql_role.powers("t_role") == ["pg_read_all_data"]
    assert pg.modules.pgsql_role.powers("t_plain") == []


def test_login_works(pg):
    pg.sql("CREATE ROLE t_role LOGIN PASSWORD 'abc'")
    here = {"host": "127.0.0.1"}
    assert pg.modules.pgsql_role.login_works("t_role", "abc", connection=here) is True
    assert pg.modules.pgsql_role.login_works("t_role", "abd", connection=here) is False
    with pytest.raises(CommandExecutionError, match="Cannot connect"):
        pg.modules.pgsql_role.login_works("t_role", "abc", connection=NOWHERE)


# Whatever is declared is there afterwards, and stays

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: f"t_{name}".encode()[:60].decode(errors="ignore")
)
MEMBERSHIP_OPTIONS = ["admin", "inherit", "set"] if POSTGRES >= 16 else ["admin"]
GROUPS = ["pg_monitor", "pg_read_all_data", "pg_signal_backend"]
ROLES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("login", "superuser", "createdb", "createrole", "replication", "bypassrls", "inherit"), st.booleans()
        ),
        "connection_limit": st.integers(-1, 2**31 - 1),
        "valid_until": st.datetimes().map(lambda at: at.isoformat(" ")) | st.just("infinity"),
        "password": st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
        "member_of": st.lists(st.sampled_from(GROUPS), unique=True)
        | st.dictionaries(
            st.sampled_from(GROUPS),
            st.dictionaries(st.sampled_from(MEMBERSHIP_OPTIONS), st.booleans()) | st.none(),
        ),
        "database_settings": st.dictionaries(
            st.sampled_from(["postgres", "template1"]),
            st.dictionaries(st.sampled_from(["work_mem", "statement_timeout"]), st.integers(64, 2**30) | st.none()),
        ),
        "settings": st.fixed_dictionaries(
            {},
            optional={
                "work_mem": st.integers(64, 1000000) | st.sampled_from(["64kB", "1.5MB", " 2GB "]),
                "search_path": st.lists(st.text("ab\"', $", min_size=1).filter(str.strip), min_size=1, max_size=3),
                "enable_seqscan": st.booleans() | st.sampled_from(["yes", "of", "1", "TRUE"]),
                "random_page_cost": st.floats(0, 1000).map(lambda cost: round(cost, 3)),
                "application_name": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
                "t.anything": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
                "jit": st.none(),
            },
        ),
    },
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, first=ROLES, then=ROLES)
def test_any_role_is_there_and_stays(pg, name, first, then):
    for declared in (first, then):
        dry = pg.state("pgsql_role.present", name, **declared, test=True)
        ret = pg.state("pgsql_role.present", name, **declared)
        assert ret["result"] is True, ret["comment"]
        assert ret["changes"] == dry["changes"]
        with pg.read_only():
            for test in (True, False):
                again = pg.state("pgsql_role.present", name, **declared, test=test)
                assert (again["result"], again["changes"]) == (True, {}), again["comment"]
        held = pg.modules.pgsql_role.get(name, password=declared.get("password"))
        assert {key: held[key] for key in ATTRIBUTES if key in declared}.items() <= declared.items()
        assert held.get("password_matches", True)
        assert re.search("SCRAM|md5", str(ret)) is None
    assert pg.state("pgsql_role.absent", name)["result"] is True


def test_socket_directory_of_the_tests(pg):
    """What the tests above connect to by hand is what the module connects to by default."""
    assert pg.modules.pgsql_role.list(connection={"host": SOCKET_DIR}) == pg.modules.pgsql_role.list()
