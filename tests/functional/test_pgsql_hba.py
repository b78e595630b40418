"""`pgsql_hba`, execution module and states, on the host's PostgreSQL."""

import os
import shutil

import pytest
from salt.exceptions import CommandExecutionError

from tests.functional.pgsql_server import CONFIG
from tests.functional.release import POSTGRES, only

HBA = CONFIG / "pg_hba.conf"
RECORD = {"type": "host", "database": "t_db", "user": "t_role", "address": "127.0.0.0/8", "method": "scram-sha-256"}
LINE = "host  t_db  t_role  127.0.0.0/8  scram-sha-256"


@pytest.fixture
def pg(pg_server, tmp_path):
    original = tmp_path / "pg_hba.conf"
    shutil.copy2(HBA, original)
    owner = HBA.stat()
    pg_server.sweep()
    yield pg_server
    shutil.copy2(original, HBA)
    os.chown(HBA, owner.st_uid, owner.st_gid)
    pg_server.reload()
    pg_server.sweep()


def present(pg, name="t", test=False, **changed):
    return pg.state("pgsql_hba.present", name, test=test, **{**RECORD, **changed})


def absent(pg, **arguments):
    return pg.state("pgsql_hba.absent", "t", **arguments)


def rewrite(pg, text):
    HBA.write_text(text)
    pg.reload()


def records(pg):
    """The records as the server reads them: what decides, and where."""
    order = "rule_number" if POSTGRES >= 16 else "line_number"
    return pg.sql(f"SELECT type, database, user_name, auth_method FROM pg_hba_file_rules ORDER BY {order}")


def test_creates(pg, testmode):
    before = HBA.read_text()
    status = HBA.stat()
    ret = present(pg, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"].startswith(f"pg_hba.conf {'would be' if testmode else 'was'} changed.")
    assert ret["changes"] == {"record": {"old": None, "new": LINE}}
    after = HBA.read_text()
    if testmode:
        assert after == before
        return
    assert after.replace(f"{LINE}  # Salt: t\n", "") == before
    kept = ("st_uid", "st_gid", "st_mode")
    assert [getattr(HBA.stat(), key) for key in kept] == [getattr(status, key) for key in kept]
    assert list(HBA.parent.glob(".pg_hba*")) == []


def test_decides_ahead_of_wider_records(pg):
    """A wider record for the same network says `trust`; ours asks for the password."""
    rewrite(pg, "local all postgres peer\nhost all all 127.0.0.0/8 trust\n")
    pg.sql("CREATE ROLE t_role LOGIN PASSWORD 'abc'")
    pg.sql("CREATE DATABASE t_db OWNER t_role")
    assert pg.logs_in("t_role", "wrong", "t_db")
    ret = present(pg)
    assert ret["result"] is True
    assert pg.logs_in("t_role", "abc", "t_db")
    assert not pg.logs_in("t_role", "wrong", "t_db")
    assert records(pg)[1] == ("host", ["t_db"], ["t_role"], "scram-sha-256")


def test_second_run_changes_nothing(pg, testmode):
    present(pg)
    before = HBA.stat()
    with pg.read_only():
        ret = present(pg, test=testmode)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert HBA.stat().st_ino == before.st_ino


def test_record_that_slipped_behind_a_wider_one_is_put_ahead(pg, testmode):
    rewrite(pg, f"local all postgres peer\nhost all all 0.0.0.0/0 scram-sha-256\n{LINE}  # Salt: t\n")
    ret = present(pg, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"record": {"old": LINE, "new": LINE}}
    assert "ahead of line 2: host all all 0.0.0.0 0.0.0.0 scram-sha-256" in ret["comment"]
    assert ("t_db" in records(pg)[1][1]) is not testmode
    assert HBA.read_text().count("# Salt: t\n") == 1
    if not testmode:
        assert present(pg)["changes"] == {}


@pytest.mark.parametrize(
    "changed",
    (
        {"address": "127.1.0.0/16"},
        {"method": "reject"},
        {"type": "hostssl"},
        {"user": ["t_role", "t_other"]},
        {"database": ["t_db", "t other"]},
        {"options": {"clientcert": "verify-ca"}, "type": "hostssl"},
        {"type": "local", "address": None, "method": "peer", "options": {"map": "m n"}},
    ),
)
def test_changed_record_replaces_the_old_one(pg, changed, testmode):
    present(pg)
    ret = present(pg, test=testmode, **changed)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"]["record"]["old"] == LINE
    assert HBA.read_text().count("# Salt: t\n") == 1
    assert (LINE in HBA.read_text()) is testmode
    if not testmode:
        assert present(pg, **changed)["changes"] == {}


def test_a_deliberate_exception_stays_ahead(pg):
    """A narrower record ahead of ours is somebody's will."""
    text = "local all postgres peer\nhost t_db t_role 127.0.0.7/32 reject\nhost all all 127.0.0.0/8 trust\n"
    rewrite(pg, text)
    assert present(pg)["result"] is True
    assert [row[3] for row in records(pg)] == ["peer", "reject", "scram-sha-256", "trust"]
    assert present(pg)["changes"] == {}


def test_two_tenants_do_not_fight(pg):
    rewrite(pg, "local all postgres peer\nhost all all 127.0.0.0/8 trust\n")
    other = {"name": "other", "database": "t_db2", "user": "t_role2"}
    assert present(pg)["result"] is True
    assert present(pg, **other)["result"] is True
    assert present(pg)["changes"] == {}
    assert present(pg, **other)["changes"] == {}
    assert [row[3] for row in records(pg)] == ["peer", "scram-sha-256", "scram-sha-256", "trust"]
    assert absent(pg)["result"] is True
    assert "# Salt: other" in HBA.read_text()


@pytest.mark.parametrize(
    ("record", "in_the_way"),
    (
        ("host all all all md5", True),
        ("host all all samenet md5", True),
        ("host all all example.org md5", True),
        ("hostssl t_db all 127.0.0.0/8 md5", True),
        ("host sameuser +group 127.0.0.0/8 md5", True),
        ("host t_db /^t_ 127.0.0.0/8 md5", True),
        ("host t_db,x t_role 127.0.0.0/8 md5", True),
        ("host t_db t_role 127.0.0.0/8 md5", True),
        ("host t_db t_role 127.0.0.0 255.0.0.0 md5", True),
        ("local all all peer", False),
        ("host other all 0.0.0.0/0 md5", False),
        ("host all other 0.0.0.0/0 md5", False),
        ("host all all 10.0.0.0/8 md5", False),
        ("host all all ::/0 md5", False),
        ("host replication all 0.0.0.0/0 md5", False),
        ("host t_db t_role 127.0.0.1/32 md5", False),
    ),
)
def test_what_is_in_the_way(pg, record, in_the_way):
    rewrite(pg, f"local all postgres peer\n{record}\n{LINE}  # Salt: t\n")
    assert bool(present(pg, test=True)["changes"]) is in_the_way


@only(POSTGRES >= 16)
def test_wider_record_in_an_included_file(pg):
    included = HBA.parent / "t_hba.conf"
    included.write_text("host all all 127.0.0.0/8 trust\n")
    included.chmod(0o644)
    try:
        rewrite(pg, f"local all postgres peer\ninclude {included.name}\n")
        assert present(pg)["result"] is True
        assert [row[3] for row in records(pg)] == ["peer", "scram-sha-256", "trust"]
        assert present(pg)["changes"] == {}
    finally:
        included.unlink()


def test_file_that_the_server_has_not_read_is_read(pg, testmode):
    """As after a kill between writing and reloading."""
    present(pg)
    text = HBA.read_text()
    pg.sql("SELECT pg_sleep(0.1)")
    HBA.write_text(text)
    ret = present(pg, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"loaded": {"old": False, "new": True}}
    if not testmode:
        assert present(pg)["changes"] == {}


def test_line_that_the_server_does_not_understand_is_taken_back(pg):
    before = HBA.read_text()
    ret = present(pg, method="no-such-method")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert 'invalid authentication method "no-such-method"' in ret["comment"]
    assert HBA.read_text() == before


def test_file_with_an_error_in_another_record(pg, testmode):
    HBA.write_text(f"{HBA.read_text()}host nonsense\n")
    before = HBA.read_text()
    ret = present(pg, test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"PostgreSQL does not understand {HBA}: line" in ret["comment"]
    assert HBA.read_text() == before


@pytest.mark.parametrize(
    ("changed", "reason"),
    (
        ({"type": "hosts"}, "pg_hba.conf has no type hosts."),
        ({"address": None}, "a record of type local has no address"),
        ({"type": "local"}, "a record of type local has no address"),
        ({"user": 'a"b'}, "cannot stand in pg_hba.conf"),
        ({"user": "a\nhost all all all trust"}, "cannot stand in pg_hba.conf"),
        ({"database": ""}, "cannot stand in pg_hba.conf"),
        ({"name": "a\nhost all all all trust"}, "tag"),
    ),
)
def test_record_that_cannot_be(pg, changed, reason):
    before = HBA.read_text()
    ret = present(pg, **changed)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert reason in ret["comment"]
    assert HBA.read_text() == before


def test_removes(pg, testmode):
    before = HBA.read_text()
    present(pg)
    ret = absent(pg, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"record": {"old": LINE, "new": None}}
    assert (HBA.read_text() == before) is not testmode


def test_absent_record_stays_absent(pg, testmode):
    ret = absent(pg, test=testmode)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_server_that_is_not_there(pg, testmode):
    nowhere = {"host": "/run/nowhere"}
    ret = present(pg, connection=nowhere, test=testmode)
    assert ret["result"] is (None if testmode else False)
    assert set(ret["changes"]) == ({"record"} if testmode else set())
    ret = absent(pg, connection=nowhere, test=testmode)
    assert ret["result"] is testmode


def test_rules(pg):
    present(pg)
    rule = pg.modules.pgsql_hba.file()["rules"][-1]
    assert rule["file"] == str(HBA)
    assert {"type", "database", "user", "address", "netmask", "method", "error", "line"} <= set(rule)
    with pytest.raises(CommandExecutionError):
        pg.modules.pgsql_hba.file(connection={"host": "/run/nowhere"})
