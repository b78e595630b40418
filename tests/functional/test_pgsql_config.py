"""`pgsql_config`, execution module and states, on the host's PostgreSQL, which these tests restart."""

import logging
import subprocess
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from tests.functional.pgsql_server import CONFIG, UNIT, restarts, systemctl

pytestmark = pytest.mark.once

CONF_D = CONFIG / "conf.d/t.conf"
ADDRESS = "127.0.0.9"


@pytest.fixture
def pg(pg_server):
    yield pg_server
    pg_server.new_run()
    CONF_D.unlink(missing_ok=True)
    pg_server.sql("ALTER SYSTEM RESET ALL")
    pg_server.reload()
    if pg_server.value("SELECT count(*) FROM pg_settings WHERE pending_restart"):
        subprocess.run(["systemctl", "restart", UNIT], check=True)


def present(pg, **arguments):
    return pg.state("pgsql_config.present", "t", **arguments)


def absent(pg, **arguments):
    return pg.state("pgsql_config.absent", "t", **arguments)


def persisted(pg, name):
    """What ALTER SYSTEM wrote, or None."""
    statement = "SELECT setting FROM pg_file_settings WHERE name = %s AND sourcefile LIKE '%%auto.conf'"
    rows = pg.sql(statement, (name,))
    return rows[0][0] if rows else None


def test_setting_that_a_reload_is_enough_for(pg, testmode):
    before = restarts()
    ret = present(pg, settings={"checkpoint_timeout": "6min", "log_connections": True}, service=UNIT, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["comment"] == f"PostgreSQL {'would be' if testmode else 'was'} set up."
    assert ret["changes"] == {
        "checkpoint_timeout": {"old": "300", "new": "6min"},
        "log_connections": {"old": "off", "new": True},
    }
    assert pg.value("SHOW checkpoint_timeout") == ("5min" if testmode else "6min")
    assert restarts() == before


@pytest.mark.parametrize(
    ("name", "held", "same"),
    (
        ("checkpoint_timeout", "360", "6min"),
        ("work_mem", "2MB", "2048kB"),
        ("wal_compression", "pglz", "PGLZ"),
        ("jit", "off", False),
        ("random_page_cost", "1.10", 1.1),
        ("temp_tablespaces", "a, b", "a,b"),
        ("log_line_prefix", "%m, ", "%m, "),
        ("DateStyle", "ISO, DMY", ["ISO", "DMY"]),
    ),
)
def test_same_setting_in_other_words(pg, name, held, same):
    values = (
        ", ".join(f"'{value}'" for value in held.split(", "))
        if name in ("temp_tablespaces", "DateStyle")
        else f"'{held}'"
    )
    pg.sql(f'ALTER SYSTEM SET "{name}" = {values}')
    pg.reload()
    with pg.read_only():
        assert present(pg, settings={name: same}, service=UNIT)["changes"] == {}


def test_restart_happens_once_and_is_announced(pg):
    desired = {"include": {"listen_addresses": [ADDRESS]}, "settings": {"max_connections": 90}, "service": UNIT}
    before = restarts()
    ret = present(pg, test=True, **desired)
    assert ret["result"] is None
    assert ret["comment"] == f"PostgreSQL would be set up, and {UNIT} would be restarted."
    assert restarts() == before
    real = present(pg, **desired)
    assert real["result"] is True
    assert real["comment"] == f"PostgreSQL was set up, and {UNIT} was restarted."
    assert real["changes"] == ret["changes"]
    assert real["changes"] == {
        "listen_addresses": {"old": "localhost", "new": ["localhost", ADDRESS]},
        "max_connections": {"old": "100", "new": 90},
    }
    once = restarts()
    assert once != before
    assert pg.value("SHOW max_connections") == "90"
    # It answers there: the login is refused, but not the connection.
    with pytest.raises(CommandExecutionError, match=r"password|pg_hba"):
        pg.modules.pgsql_server.version(connection={"host": ADDRESS})
    for test in (True, False):
        ret = present(pg, test=test, **desired)
        assert (ret["result"], ret["changes"]) == (True, {})
    assert restarts() == once


def test_a_restart_that_an_interrupted_run_did_not_reach_is_done_by_the_next(pg):
    """As after a kill between ALTER SYSTEM and the restart, or between ALTER SYSTEM and the reload."""
    pg.sql("ALTER SYSTEM SET max_connections = 90")
    pg.sql("ALTER SYSTEM SET checkpoint_timeout = '6min'")
    desired = {"settings": {"max_connections": 90, "checkpoint_timeout": "6min"}, "service": UNIT}
    before = restarts()
    ret = present(pg, test=True, **desired)
    assert (ret["result"], set(ret["changes"])) == (None, {"max_connections", "checkpoint_timeout"})
    assert "would be restarted" in ret["comment"]
    ret = present(pg, **desired)
    assert ret["result"] is True
    assert ret["changes"]["max_connections"] == {"old": "100", "new": 90}
    assert restarts() != before
    assert pg.value("SHOW checkpoint_timeout") == "6min"


def test_address_that_the_host_got_after_the_server_started_takes_a_restart(pg):
    """As after a gateway address that came too late at boot, or was another one for a while."""
    late = "192.0.2.77"
    desired = {"include": {"listen_addresses": [late]}, "service": UNIT}
    ret = present(pg, **desired)
    assert ret["result"] is True
    ret = present(pg, **desired)
    assert ret["result"] is False
    assert f"does not listen at {late}: does this host have the address?" in ret["comment"]
    subprocess.run(["ip", "address", "add", f"{late}/32", "dev", "lo"], check=True)
    try:
        before = restarts()
        ret = present(pg, test=True, **desired)
        assert (ret["result"], ret["changes"]) == (None, {"listening": {"old": None, "new": late}})
        assert restarts() == before
        ret = present(pg, **desired)
        assert (ret["result"], ret["changes"]) == (True, {"listening": {"old": None, "new": late}})
        assert pg.modules.netns.without_listener([late], 5432) == []
        assert present(pg, **desired)["changes"] == {}
        subprocess.run(["ip", "address", "del", f"{late}/32", "dev", "lo"], check=True)
        # What listens everywhere does at an address that is to come, too.
        assert present(pg, settings={"listen_addresses": "*"}, service=UNIT)["result"] is True
        assert present(pg, **desired)["changes"] == {}
        subprocess.run(["ip", "address", "add", f"{late}/32", "dev", "lo"], check=True)
    finally:
        subprocess.run(["ip", "address", "del", f"{late}/32", "dev", "lo"], check=True)


def test_without_a_service_a_restart_is_left_to_others(pg):
    before = restarts()
    ret = present(pg, settings={"max_connections": 90})
    assert (ret["result"], set(ret["changes"])) == (True, {"max_connections"})
    assert ret["comment"] == "PostgreSQL was set up; effective after a restart of PostgreSQL: max_connections."
    ret = present(pg, settings={"max_connections": 90})
    assert (ret["result"], ret["changes"]) == (True, {})
    assert ret["comment"] == "At the next restart PostgreSQL applies: max_connections."
    assert restarts() == before


def test_preloaded_library_is_added_and_taken_out(pg):
    CONF_D.write_text("shared_preload_libraries = 'auto_explain'\n")
    include = {"shared_preload_libraries": ["pg_stat_statements.so"]}
    assert present(pg, include=include, service=UNIT)["result"] is True
    assert pg.value("SHOW shared_preload_libraries") == 'auto_explain, "pg_stat_statements.so"'
    assert absent(pg, include=include, service=UNIT)["result"] is True
    assert persisted(pg, "shared_preload_libraries") is None
    assert pg.value("SHOW shared_preload_libraries") == "auto_explain"


def test_library_that_would_keep_the_server_from_starting(pg, testmode):
    before = restarts()
    ret = present(pg, include={"shared_preload_libraries": ["t_none.so"]}, service=UNIT)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "The server has no library t_none.so" in ret["comment"]
    assert persisted(pg, "shared_preload_libraries") is None
    assert restarts() == before


def test_empty_list_of_libraries_is_refused(pg):
    """PostgreSQL would store one library with an empty name, and never start again."""
    with pytest.raises(SaltInvocationError, match="reset it"):
        pg.modules.pgsql_config.set({"shared_preload_libraries": []})


def test_takes_address_out_again(pg, testmode):
    present(pg, include={"listen_addresses": [ADDRESS]})
    ret = absent(pg, include={"listen_addresses": [ADDRESS]}, test=testmode)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"listen_addresses": {"old": f"localhost, {ADDRESS}", "new": ["localhost"]}}
    # What is left is what the files below say, so nothing stays behind.
    assert persisted(pg, "listen_addresses") == (f"localhost, {ADDRESS}" if testmode else None)
    if not testmode:
        assert absent(pg, include={"listen_addresses": [ADDRESS]})["changes"] == {}


def test_other_entries_stay(pg):
    pg.sql(f"ALTER SYSTEM SET listen_addresses = 'localhost', '192.0.2.9', '{ADDRESS}'")
    ret = absent(pg, include={"listen_addresses": [ADDRESS]})
    assert ret["result"] is True
    assert persisted(pg, "listen_addresses") == "localhost, 192.0.2.9"


def test_setting_is_reset(pg):
    present(pg, settings={"checkpoint_timeout": "6min"})
    assert present(pg, settings={"checkpoint_timeout": None})["result"] is True
    assert persisted(pg, "checkpoint_timeout") is None
    assert pg.value("SHOW checkpoint_timeout") == "5min"


def test_files_below_are_seen(pg):
    CONF_D.write_text("checkpoint_timeout = 6min\n")
    ret = present(pg, settings={"checkpoint_timeout": "6min"})
    # The server had not read the file yet; nothing has to be written.
    assert ret["result"] is True
    assert ret["changes"] == {"checkpoint_timeout": {"old": "300", "new": "6min"}}
    assert persisted(pg, "checkpoint_timeout") is None
    assert pg.value("SHOW checkpoint_timeout") == "6min"


def test_unknown_setting(pg, testmode):
    ret = present(pg, settings={"no_such": 1}, test=testmode)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "PostgreSQL has no setting no_such" in ret["comment"]


def test_value_that_the_server_refuses(pg):
    ret = present(pg, settings={"checkpoint_timeout": "soon"})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "invalid value for parameter" in ret["comment"]


def test_server_that_is_not_there(pg, testmode):
    arguments = {"include": {"listen_addresses": [ADDRESS]}, "connection": {"host": "/run/nowhere"}}
    ret = present(pg, service=UNIT, test=testmode, **arguments)
    assert ret["result"] is (None if testmode else False)
    assert set(ret["changes"]) == ({"listen_addresses"} if testmode else set())
    assert ("would be restarted" if testmode else "Cannot connect") in ret["comment"]
    ret = absent(pg, test=testmode, **arguments)
    assert ret["result"] is testmode


@pytest.fixture
def slow_to_be_active():
    """A file: as long as it is not there, a start of the server is not over for systemd, though the server answers."""
    go, added = Path("/run/t-go"), Path(f"/run/systemd/system/{UNIT}.service.d/t-slow.conf")
    added.parent.mkdir(parents=True, exist_ok=True)
    added.write_text(f"[Service]\nExecStartPost=/bin/sh -c 'until [ -e {go} ]; do sleep 0.1; done'\n")
    systemctl("daemon-reload")
    yield go
    go.touch()
    systemctl("start", UNIT)
    added.unlink()
    systemctl("daemon-reload")
    go.unlink()


def test_restart_waits_for_the_server_alone(pg, slow_to_be_active):
    started = pg.value("SELECT pg_postmaster_start_time()")
    assert pg.modules.pgsql_server.restart(UNIT) is True
    assert pg.modules.systemd_unit.status(f"{UNIT}.service")["active"] == "activating"
    assert pg.value("SELECT pg_postmaster_start_time()") > started
    slow_to_be_active.touch()
    ret = pg.state("systemd_unit.running", f"{UNIT}.service")
    assert (ret["result"], ret["changes"]) == (True, {})
    assert systemctl("is-active", UNIT) == "active"


def test_systemd_does_not_limit_restarts(pg):
    """It takes five starts within ten seconds by default."""
    for _ in range(7):
        assert pg.modules.pgsql_server.restart(UNIT) is True


def auto_conf(pg):
    return Path(pg.modules.pgsql_config.auto_file())


def test_server_that_does_not_start_gets_its_former_settings_back(pg):
    pg.sql("ALTER SYSTEM SET work_mem = '5MB'")
    pg.sql("ALTER SYSTEM SET max_connections = 80")
    systemctl("restart", UNIT)
    pg.new_run()
    file = auto_conf(pg)
    before, owner = sorted(file.read_text().splitlines()), file.stat()
    former = pg.value("SHOW shared_buffers")
    settings = {"shared_buffers": "4TB", "work_mem": "6MB", "max_connections": 90}
    ret = present(pg, settings=settings, service=UNIT)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"{UNIT} does not start with shared_buffers 4TB, work_mem 6MB, max_connections 90" in ret["comment"]
    assert "and runs with its former settings again" in ret["comment"]
    assert "could not map anonymous shared memory" in ret["comment"]
    pg.new_run()
    assert [pg.value(f"SHOW {name}") for name in settings] == [former, "5MB", "80"]
    assert sorted(file.read_text().splitlines()) == before
    assert (file.stat().st_uid, file.stat().st_mode) == (owner.st_uid, owner.st_mode)
    # An interrupted run has left it to this one to restart.
    pg.sql("ALTER SYSTEM SET shared_buffers = '4TB'")
    pg.reload()
    pg.new_run()
    assert (
        "runs with its former settings again"
        in present(pg, settings={"shared_buffers": "4TB"}, service=UNIT)["comment"]
    )
    pg.new_run()
    assert pg.value("SHOW shared_buffers") == former


def test_server_that_does_not_start_with_its_former_settings_either(pg):
    before = auto_conf(pg).read_text()
    CONF_D.write_text("shared_preload_libraries = 't_none'\n")
    ret = present(pg, settings={"max_connections": 90}, service=UNIT)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"{UNIT} did not restart with max_connections 90, nor with its former settings" in ret["comment"]
    assert 'could not access file "t_none"' in ret["comment"]
    # The next run makes up for it.
    CONF_D.unlink()
    systemctl("start", UNIT)
    assert auto_conf(pg).read_text() == before
    assert present(pg, settings={"max_connections": 90}, service=UNIT)["result"] is True
    assert pg.value("SHOW max_connections") == "90"


def test_server_that_does_not_answer_in_time(pg):
    with pytest.raises(CommandExecutionError, match="PostgreSQL does not answer"):
        pg.modules.pgsql_server.restart(UNIT, {"host": "/run/nowhere"}, timeout=0.1)


def test_service_that_does_not_restart(pg):
    logging.disable(logging.ERROR)  # Salt would repeat what systemctl said when the tests are over
    try:
        ret = present(pg, settings={"max_connections": 90}, service="t-none")
    finally:
        logging.disable(logging.NOTSET)
    assert ret["result"] is False
    assert "t-none did not restart" in ret["comment"]
    assert set(ret["changes"]) == {"max_connections"}
    # The next run makes up for it.
    assert present(pg, settings={"max_connections": 90}, service=UNIT)["result"] is True
    assert pg.value("SHOW max_connections") == "90"
