"""`valkey_config` against the host's own Valkey or Redis, under systemd as Debian ships it."""

import socket
import subprocess

import pytest
import redis
from salt.exceptions import CommandExecutionError

from tests.functional.release import OWN_SERVER
from tests.functional.valkey_servers import ACL_FILE, CONFIG, FOLDER, SERVICE, Server, as_shipped

pytestmark = pytest.mark.once

ADDRESS = "10.99.0.1"
OWNER = (OWN_SERVER, OWN_SERVER, 0o640)


@pytest.fixture
def address():
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    yield ADDRESS
    subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=False)


@pytest.fixture(autouse=True)
def _as_shipped(tmp_path):
    with as_shipped(tmp_path):
        yield


def systemctl(*arguments):
    return subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True).stdout


def starts():
    """Identifies one run of the service: it is another after each restart."""
    return systemctl("show", "--property=InvocationID", SERVICE)


def ask(*command, **arguments):
    with redis.Redis(decode_responses=True, protocol=2, **arguments) as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


def answers(address):
    """Whether something accepts connections there; what it says depends on protected mode."""
    with socket.create_connection((address, 6379)):
        return True


def directives():
    return [line for line in CONFIG.read_text().splitlines() if line and not line.startswith("#")]


def declared(**more):
    return {
        "config_file": str(CONFIG),
        "include": {"bind": [ADDRESS]},
        "acl_file": str(ACL_FILE),
        "service": SERVICE,
        **more,
    }


def test_in_the_file_alone(states, testmode):
    before, run = CONFIG.read_text(), starts()
    arguments = {"config_file": str(CONFIG), "settings": {"port": 6390, "io-threads": 2}}
    ret = states.valkey_config.in_file("config", test=testmode, **arguments)
    assert ret.result is (None if testmode else True), ret.comment
    assert ret.changes == {"port": {"old": "6379", "new": "6390"}, "io-threads": {"old": None, "new": "2"}}
    assert starts() == run
    if testmode:
        assert CONFIG.read_text() == before
        return
    changed = before.replace("\nport 6379\n", "\nport 6390\n")
    assert CONFIG.read_text() == f"{changed.rstrip()}\nio-threads 2\n"
    assert states.valkey_config.in_file("config", **arguments).changes == {}


def test_a_file_that_comes_with_a_package_of_this_run(states, tmp_path, testmode):
    arguments = {"config_file": str(tmp_path / "absent.conf"), "settings": {"port": 6390}}
    ret = states.valkey_config.in_file("config", test=testmode, **arguments)
    assert ret.result is (None if testmode else False)
    assert "absent.conf" in ret.comment
    assert ret.changes == {}


def test_switched_on_at_once_with_one_restart(states, address, testmode):
    before, run = directives(), starts()
    ret = states.valkey_config.managed("config", test=testmode, **declared())
    assert ret.result is (None if testmode else True), ret.comment
    assert set(ret.changes) == {"bind", "aclfile"}
    assert f"{SERVICE} would be restarted once" in ret.comment or not testmode
    if testmode:
        assert (directives(), starts()) == (before, run)
        assert not ACL_FILE.exists()
        return
    assert f"{SERVICE} was restarted once, for aclfile" in ret.comment
    run = starts()
    assert answers(address)
    assert ask("CONFIG", "GET", "bind")[1] == f"127.0.0.1 -::1 {address}"
    assert directives().count(f"bind 127.0.0.1 -::1 {address}") == 1
    assert (ACL_FILE.owner(), ACL_FILE.group(), ACL_FILE.stat().st_mode & 0o7777) == OWNER
    assert (CONFIG.owner(), CONFIG.group(), CONFIG.stat().st_mode & 0o7777) == OWNER
    for test in (False, True):
        again = states.valkey_config.managed("config", test=test, **declared())
        assert (again.result, again.changes) == (True, {}), again.comment
    assert starts() == run


def test_users_and_password_move_to_the_acl_file(states, address):
    password = "s3cret \"x\" 'y'"
    ask("CONFIG", "SET", "requirepass", password)
    ask("ACL", "SETUSER", "alice", "on", ">alice", "~a", "+get", password=password)
    ask("CONFIG", "REWRITE", password=password)
    users = ask("ACL", "LIST", password=password)
    ret = states.valkey_config.managed("config", connection={"password": password}, **declared())
    assert ret.result is True, ret.comment
    assert ask("ACL", "LIST", password=password) == users
    assert not [line for line in directives() if line.startswith(("user ", "requirepass"))]
    assert "s3cret" not in CONFIG.read_text() + str(ret.raw)
    with pytest.raises(redis.exceptions.AuthenticationError):
        ask("PING")
    again = states.valkey_config.managed("config", connection={"password": password}, **declared())
    assert again.changes == {}


def test_completed_after_a_kill_between_writing_and_restarting(modules, states, address):
    ask("ACL", "SETUSER", "alice", "on", ">alice", "~a", "+get")
    arguments = {key: value for key, value in declared().items() if key != "service"}
    assert modules.valkey_config.apply(**arguments) == ["aclfile"]
    run = starts()
    ask("ACL", "SETUSER", "bob", "on", ">bob", "~b", "+get")  # made meanwhile
    ret = states.valkey_config.managed("config", **declared())
    assert ret.result is True, ret.comment
    assert "restarted once" in ret.comment
    assert starts() != run
    assert set(ask("ACL", "USERS")) == {"default", "alice", "bob"}
    assert states.valkey_config.managed("config", **declared()).changes == {}


def test_another_address_is_taken_without_a_restart(states, address):
    states.valkey_config.managed("config", **declared(include=None))
    run = starts()
    ret = states.valkey_config.managed("config", **declared())
    assert set(ret.changes) == {"bind"}
    assert "restarted" not in ret.comment
    assert starts() == run
    assert answers(address)


def test_drift_of_the_running_server_is_corrected_live(states, address):
    states.valkey_config.managed("config", **declared())
    ask("CONFIG", "SET", "bind", "127.0.0.1")
    ret = states.valkey_config.managed("config", **declared())
    assert ret.changes["bind"] == {"old": "127.0.0.1", "new": f"127.0.0.1 -::1 {address}"}
    assert answers(address)


def test_address_that_the_host_got_after_the_server_started_is_bound(states, testmode):
    """As after a gateway address that came too late at boot, or was another one for a while."""
    desired = declared(include={"bind": [f"-{ADDRESS}"]})
    states.valkey_config.managed("config", **desired)
    assert states.valkey_config.managed("config", **desired).changes == {}
    run = starts()
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    try:
        ret = states.valkey_config.managed("config", test=testmode, **desired)
        assert ret.changes["bind"]["old"] == f"no listener at {ADDRESS}"
        assert (socket.socket().connect_ex((ADDRESS, 6379)) == 0) is not testmode
        states.valkey_config.managed("config", **desired)
        assert states.valkey_config.managed("config", **desired).changes == {}
    finally:
        subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=True)
    assert starts() == run


def test_listening_everywhere_includes_the_address(states, address):
    text = CONFIG.read_text().replace("\nbind 127.0.0.1 -::1", "\nbind *")
    CONFIG.write_text(text)
    systemctl("restart", SERVICE)
    assert states.valkey_config.managed("config", **declared(acl_file=None)).changes == {}


def test_absent_address_is_refused_before_anything_changes(states, testmode):
    before, run = directives(), starts()
    ret = states.valkey_config.managed("config", test=testmode, **declared())
    assert ret.result is (None if testmode else False)
    assert f"does not have the address {ADDRESS}" in ret.comment
    assert (directives(), starts()) == (before, run)
    assert not ACL_FILE.exists()


def test_settings(states, testmode):
    arguments = {"config_file": str(CONFIG), "settings": {"maxmemory": "64mb", "maxmemory-policy": "noeviction"}}
    ret = states.valkey_config.managed("config", test=testmode, **arguments)
    assert set(ret.changes) == {"maxmemory", "maxmemory-policy"}
    assert (ask("CONFIG", "GET", "maxmemory")[1] == str(64 << 20)) is not testmode
    states.valkey_config.managed("config", **arguments)
    assert states.valkey_config.managed("config", **arguments).changes == {}
    systemctl("restart", SERVICE)
    assert states.valkey_config.managed("config", **arguments).changes == {}


def test_setting_that_takes_a_restart_and_no_service_to_restart(states, testmode):
    ret = states.valkey_config.managed("config", test=testmode, config_file=str(CONFIG), settings={"databases": 5})
    assert (ret.result, ret.changes) == (False, {})
    assert "databases 16" in directives()
    ret = states.valkey_config.managed("config", config_file=str(CONFIG), settings={"databases": 5}, service=SERVICE)
    assert ret.result is True
    assert ask("CONFIG", "GET", "databases")[1] == "5"


def test_unknown_directive(states, testmode):
    ret = states.valkey_config.managed("config", test=testmode, config_file=str(CONFIG), settings={"nosuch": 5})
    assert (ret.result, ret.changes) == (False, {})
    assert "nosuch" in ret.comment


def test_users_of_an_unused_acl_file_are_not_thrown_away(states, address):
    ACL_FILE.write_text("user stranger on nopass ~* +@all\n")
    ret = states.valkey_config.managed("config", **declared())
    assert ret.result is False
    assert "stranger" in ret.comment
    assert ACL_FILE.read_text().startswith("user stranger")
    assert not [line for line in directives() if line.startswith("aclfile")]


def test_acl_file_that_is_there_already_stays(states, address):
    states.valkey_config.managed("config", **declared(acl_file=str(FOLDER / "other.acl")))
    run = starts()
    try:
        ret = states.valkey_config.managed("config", **declared())
        assert (ret.result, ret.changes) == (True, {})
        assert starts() == run
    finally:
        (FOLDER / "other.acl").unlink()


def test_server_that_is_down(states, address, testmode):
    systemctl("stop", SERVICE)
    before = directives()
    ret = states.valkey_config.managed("config", test=testmode, **declared())
    assert ret.result is (None if testmode else False)
    assert set(ret.changes) == ({"bind", "aclfile"} if testmode else set())
    assert directives() == before


def test_server_that_does_not_come_back(modules, tmp_path):
    server = Server(OWN_SERVER, tmp_path)
    server.stop()
    with pytest.raises(CommandExecutionError, match="does not answer after 1 seconds"):
        modules.valkey_config.restart(SERVICE, timeout=1, connection=server.connection)


def test_absent(states, address, testmode):
    states.valkey_config.managed("config", **declared())
    run = starts()
    arguments = {"config_file": str(CONFIG), "include": {"bind": [address]}}
    ret = states.valkey_config.absent("config", test=testmode, **arguments)
    assert ret.result is (None if testmode else True), ret.comment
    assert ret.changes["bind"]["new"] == "127.0.0.1 -::1"
    assert (address in ask("CONFIG", "GET", "bind")[1]) is testmode
    states.valkey_config.absent("config", **arguments)
    assert states.valkey_config.absent("config", **arguments).changes == {}
    assert ask("CONFIG", "GET", "aclfile")[1] == str(ACL_FILE)
    assert starts() == run
