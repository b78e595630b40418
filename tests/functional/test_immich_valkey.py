"""Immich's users in Valkey, against the host's own server under systemd and one that is managed elsewhere."""

import contextlib
import gc
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
import redis
from salt.exceptions import CommandExecutionError

from immich_core import findings, valkey_memory, valkey_users
from immich_host import valkey_migration
from tests.functional.release import OWN_SERVER
from tests.functional.valkey_servers import EACH, Server

pytestmark = pytest.mark.once

ROLE_RULES = (
    "~immich_bull* ~immich_channel* &* -@dangerous +@read +@write +@pubsub +select +auth +ping +info +eval +evalsha"
)
# For what no server decides: files of the formula, texts, arguments.
any_server = pytest.mark.parametrize("server", (OWN_SERVER,), indirect=True)
PASSWORD = "".join(chr(code) for code in range(32, 127))


@pytest.fixture
def loaders(loaders):
    pillar = loaders.opts["pillar"]
    admin = {"password": "the remote administrator"}
    users = [{"name": "other", "password": "others password", "rules": "~other:* +@all -@dangerous"}]
    pillar["immich"] = {
        "valkey": {
            "password": PASSWORD,
            "admin_password": "administrator " + PASSWORD,
            "acl_users": users,
            "admin": admin,
        }
    }
    return loaders


@pytest.fixture(params=EACH)
def server(request, tmp_path):
    """An empty server, as a new host has it."""
    folder = tmp_path / "server"
    folder.mkdir()
    started = Server(request.param, folder)
    yield started
    started.stop()


@pytest.fixture
def password_file(tmp_path):
    return tmp_path / "immich-formula" / "valkey.password"


@pytest.fixture
def settings(server, password_file):
    return {
        "valkey": {
            "managed": True,
            "user": "immich",
            "extra_rules": [],
            "acl_users": [
                {
                    "name": "other",
                    "rules": "~other:* +@all -@dangerous",
                    "password_pillar": "immich:valkey:acl_users:0:password",
                }
            ],
            "connection": {**server.connection, "username": "immich-formula", "password_file": str(password_file)},
        }
    }


@pytest.fixture
def apply(states, modules, settings, password_file):
    """The states of `immich.valkey` that are about users, with the same arguments."""

    def both(test=False, **changed):
        gc.collect()  # closes the connections of a run before, as the end of its process does
        current = {"valkey": {**settings["valkey"], **changed}}
        logins = modules.immich_valkey.logins(current)
        login = states.immich_valkey.login_present(
            "login", password_file=str(password_file), connection=logins, test=test
        )
        gc.collect()
        users = states.immich_valkey.users_managed(
            "users",
            users=modules.immich_valkey.users(current),
            connection=logins,
            test=test,
        )
        return login, users

    return both


def codes(found):
    return [each["code"] for each in found]


def refused(server, command, username="immich", password=PASSWORD):
    """Whether a user is refused a command for lack of rights, asked by ACL DRYRUN alone."""
    return server.client(*administrator()).execute_command("ACL", "DRYRUN", username, *command) != "OK"


def administrator():
    return "default", "administrator " + PASSWORD


def test_first_run_and_second(apply, modules, settings, server, password_file):
    login, users = apply()
    assert (login.result, users.result) == (True, True), login.comment + users.comment
    assert set(login.changes) == {"immich-formula", str(password_file)}
    assert set(users.changes) == {"immich", "other", "default"}
    assert PASSWORD not in str(login.raw) + str(users.raw)
    assert password_file.read_text().strip() not in str(login.raw)
    for each in apply():
        assert (each.result, each.changes) == (True, {}), each.comment
    for each in apply(test=True):
        assert (each.result, each.changes) == (True, {}), each.comment
    assert server.client("immich", PASSWORD).execute_command("PING") == "PONG"
    assert server.client("other", "others password").execute_command("SET", "other:1", "x") == "OK"
    assert server.client(*administrator()).execute_command("ACL", "WHOAMI") == "default"
    assert modules.immich_valkey.verify(settings) == []
    server.restart()
    assert modules.immich_valkey.verify(settings) == []


def test_first_run_in_test_mode_changes_nothing(apply, server, password_file):
    login, users = apply(test=True)
    assert (login.result, users.result) == (None, None)
    assert set(login.changes) == {"immich-formula", str(password_file)}
    assert set(users.changes) == {"immich", "other", "default"}
    assert server.names() == {"default"}
    assert not password_file.parent.exists()


@any_server
def test_server_that_this_run_would_install(apply, server, password_file, testmode):
    server.stop()
    for each in apply(test=testmode):
        assert each.result is (None if testmode else False), each.comment
        assert "cannot be reached" in each.comment or testmode


@any_server
def test_password_file_is_roots_alone(apply, password_file):
    apply()
    assert password_file.stat().st_mode & 0o777 == 0o600
    assert password_file.parent.stat().st_mode & 0o777 == 0o700
    assert len(password_file.read_text().strip()) >= 40


def test_login_has_no_access_to_keys(apply, server, password_file):
    apply()
    for command in ("GET x", "KEYS *", "FLUSHALL", "DEBUG SLEEP 0", "SHUTDOWN", "EVAL x 0"):
        assert refused(server, command.split(" "), username="immich-formula")


@any_server
def test_run_that_was_killed_after_the_password_file(apply, password_file):
    password_file.parent.mkdir(mode=0o700)
    password_file.write_text("the password of a run that was killed\n")
    login, _ = apply()
    assert login.result is True
    assert set(login.changes) == {"immich-formula"}
    assert password_file.read_text() == "the password of a run that was killed\n"


@any_server
def test_lost_password_file_is_made_anew(apply, modules, password_file):
    apply()
    password_file.unlink()
    modules.valkey_acl.disconnect()
    login, users = apply()
    assert set(login.changes) == {"immich-formula", str(password_file)}
    assert (login.result, users.result, users.changes) == (True, True, {})


def test_administrators_password_is_changed_by_pillar(apply, loaders, server):
    apply()
    loaders.opts["pillar"]["immich"]["valkey"]["admin_password"] = "a new one with 'quotes'"
    _, users = apply()
    assert users.changes["default"]["new"] == {"password": "changed"}
    assert server.client("default", "a new one with 'quotes'").execute_command("PING") == "PONG"
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client(*administrator()).execute_command("PING")


def test_immichs_password_is_changed_in_two_steps(apply, loaders, states, modules, settings, server):
    """Refused never: the old one goes when Immich has the new one."""
    apply()
    finish = {"name": "former", "user": "immich", "connection": modules.immich_valkey.logins(settings)}
    assert states.immich_valkey.former_passwords_absent(**finish).changes == {}
    loaders.opts["pillar"]["immich"]["valkey"]["password"] = "a new one with 'quotes'"
    dry = states.immich_valkey.former_passwords_absent(**finish, test=True)
    _, users = apply()
    assert users.changes["immich"]["new"] == {"password": "changed"}
    for password in (PASSWORD, "a new one with 'quotes'"):
        assert server.client("immich", password).execute_command("PING") == "PONG"
    assert "valkey-former-password" in codes(modules.immich_valkey.verify(settings))
    assert apply()[1].changes == {}
    real = states.immich_valkey.former_passwords_absent(**finish)
    assert (dry.result, real.result) == (None, True)
    assert dry.changes == real.changes != {}
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client("immich", PASSWORD).execute_command("PING")
    assert server.client("immich", "a new one with 'quotes'").execute_command("PING") == "PONG"
    assert states.immich_valkey.former_passwords_absent(**finish).changes == {}
    # Not whether the password is the pillar's: here a module keeps the pillar with which it was loaded.
    assert "valkey-former-password" not in codes(modules.immich_valkey.verify(settings))
    server.restart()
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client("immich", PASSWORD).execute_command("PING")


def test_a_first_password_has_no_former_one(states, modules, settings, server):
    ret = states.immich_valkey.former_passwords_absent(
        "former", user="immich", connection=modules.immich_valkey.logins(settings), test=True
    )
    assert (ret.result, ret.changes) == (True, {}), ret.comment


def test_default_keeps_its_other_rules(apply, server):
    server.run("ACL", "SETUSER", "default", "-flushall")
    apply()
    default = server.client(*administrator()).execute_command("ACL", "LIST")[0]
    assert "+@all -flushall" in default


def test_no_way_in_says_what_to_do(apply, server):
    server.run("ACL", "SETUSER", "default", "resetpass", ">somebody elses")
    login, users = apply()
    assert (login.result, users.result) == (False, False)
    assert "put that one into the pillar" in login.comment
    assert PASSWORD not in login.comment


def test_anonymous_clients_are_named_and_not_locked_out(states, modules, settings, apply, server, testmode):
    server.run("ACL", "SETUSER", "known", "on", ">known", "+@all")
    known = server.client("known", "known", client_name="authenticated")
    known.execute_command("PING")
    anonymous = server.client(client_name="photoprism")
    anonymous.execute_command("PING")
    for name in ("a\x1b[31m", "a\x9b31m", "a\u202eb", "a\nb"):  # the server holds these off, the formula relies on it
        with pytest.raises(redis.ResponseError, match="cannot contain"):
            anonymous.execute_command("CLIENT", "SETNAME", name)
    logins = modules.immich_valkey.logins(settings)

    def asked(**arguments):
        gc.collect()  # closes the connections of a run before, as the end of its process does
        return states.immich_valkey.no_client_without_password("open", connection=logins, test=testmode, **arguments)

    refusal = asked()
    assert (refusal.result, refusal.changes) == (False, {})
    assert "(photoprism)" in refusal.comment
    assert "authenticated" not in refusal.comment
    assert "secure_default: True" in refusal.comment
    assert asked(secure_default=True).result is True
    anonymous.close()
    assert asked().result is True
    apply()
    assert asked().result is True


def test_queues_move_to_another_number_and_nothing_else_does(apply, modules, settings, server):
    apply()
    clients = {number: server.client(*administrator(), db=number) for number in (0, 3)}
    for number in range(1500):
        clients[0].execute_command("HSET", f"immich_bull:job:{number}", "of", "now")
    clients[0].execute_command("SET", "other:key", "theirs")
    clients[3].execute_command("SET", "immich_bull:job:7", "of an earlier time")
    clients[3].execute_command("SET", "other:kept", "theirs")
    assert valkey_migration.move_queues(settings, 0, 3, modules) == 1500
    assert clients[0].execute_command("KEYS", "*") == ["other:key"]
    assert clients[3].execute_command("DBSIZE") == 1501
    assert clients[3].execute_command("HGET", "immich_bull:job:7", "of") == "now"
    assert valkey_migration.move_queues(settings, 0, 3, modules) == 0
    # The next to use the connection finds itself where it was.
    assert valkey_migration.move_queues(settings, 3, 0, modules) == 1500


def test_a_former_user_is_deleted_unless_the_pillar_has_it(apply, modules, settings, server):
    apply()
    settings["valkey"]["user"] = "photographer"
    for name, deleted in (("immich", True), ("immich", False), ("other", False), ("immich-formula", False)):
        assert valkey_migration.remove_former_user(settings, name, modules) is deleted
    assert {*server.client(*administrator()).execute_command("ACL", "USERS")} >= {
        "other",
        "immich-formula",
        "default",
    }


def test_foreign_users_stay(apply, server):
    server.run("ACL", "SETUSER", "foreign", "on", ">foreign", "~foreign", "+get")
    before = server.line("foreign")
    apply()
    listed = server.client(*administrator()).execute_command("ACL", "LIST")
    assert before in listed


def test_promises_hold_on_the_running_server(apply, server):
    apply()
    names = (
        "FLUSHDB FLUSHALL SWAPDB,0,1 KEYS,* SCAN,0 RANDOMKEY DBSIZE CONFIG,GET,* MONITOR DEBUG,SLEEP,0 SHUTDOWN"
        " ACL,LIST MIGRATE,h,1,k,0,1 RESTORE,immich_bull:k,0,v SORT,immich_bull:k MOVE,immich_bull:k,1"
        " COPY,immich_bull:a,immich_bull:b FUNCTION,LIST SCRIPT,FLUSH PUBSUB,CHANNELS CLIENT,TRACKING,ON"
        " CLIENT,KILL,ID,1 CLIENT,PAUSE,1 GET,other:1 SET,other:1,x SUBSCRIBE,other PSUBSCRIBE,* PUBLISH,other,x"
    )
    for name in names.split(" "):
        assert refused(server, name.split(",")), name
    for command in (["EVAL", "return 1", "1", "immich_bull:x"], ["INFO"], ["PSUBSCRIBE", "socket.io#/#*"]):
        assert not refused(server, command), command


def test_the_roles_own_entry_is_refused_with_the_right_rules(apply, modules, server, testmode):
    """By a dry run only where the role has left its user: of a new one it says that the rules are not checked."""
    entry = {"name": "immich", "rules": ROLE_RULES, "password_pillar": "immich:valkey:password"}
    _, users = apply(test=testmode, acl_users=[entry])
    if testmode:
        assert users.result is None
        assert "Not checked in a dry run: allows and denies of immich." in users.comment
        server.run("ACL", "SETUSER", "immich", "on", ">the role's", *ROLE_RULES.split(" "))
        _, users = apply(test=True, acl_users=[entry])
    assert (users.result, users.changes) == (False, {})
    assert "FLUSHALL must be denied to immich" in users.comment
    assert valkey_users.RULES in users.comment
    assert testmode or server.line("immich") is None


def test_own_entry_that_keeps_the_promises_is_merged(apply, modules, server):
    entry = {"name": "immich", "rules": valkey_users.RULES + " +client|info"}
    _, users = apply(acl_users=[entry])
    assert users.result is True, users.comment
    assert set(users.changes) == {"immich", "default"}
    assert not refused(server, ["CLIENT", "INFO"])


@any_server
def test_entry_for_the_formulas_own_user_is_refused(modules, settings):
    settings["valkey"]["acl_users"] = [{"name": "immich-formula", "rules": "+@all"}]
    with pytest.raises(Exception, match="formula's own user"):
        modules.immich_valkey.users(settings)


BREAKS = {
    "wider rules": (("immich", "+flushall"), "FLUSHALL must be denied"),
    "keys of others": (("immich", "~*"), "GET foreign must be denied"),
    "narrower rules": (("immich", "-eval"), "EVAL must be allowed"),
    "disabled": (("immich", "off"), "disabled"),
    "no password": (("immich", "nopass"), "needs no password"),
    "another password": (("immich", "resetpass", ">another one"), "is not the password of the ACL user immich"),
    "open default": (("default", "nopass"), "default needs no password"),
}


@pytest.mark.parametrize(("broken", "said"), BREAKS.values(), ids=BREAKS)
def test_verify_names_what_is_broken(apply, modules, settings, server, broken, said):
    apply()
    server.client(*administrator()).execute_command("ACL", "SETUSER", *broken)
    assert any(said in findings.sentence(each) for each in modules.immich_valkey.verify(settings))


def test_verify_without_user(modules, settings):
    assert codes(modules.immich_valkey.verify(settings)) == ["valkey-acl-user-absent"]


def test_login_absent(apply, states, modules, settings, server, password_file, testmode):
    apply()
    arguments = {"password_file": str(password_file), "connection": modules.immich_valkey.logins(settings)}
    ret = states.immich_valkey.login_absent("login", test=testmode, **arguments)
    assert ret.result is (None if testmode else True), ret.comment
    assert set(ret.changes) == {"immich-formula", str(password_file)}
    users = server.client(*administrator()).execute_command("ACL", "USERS")
    assert ("immich-formula" in users) is testmode
    assert password_file.parent.exists() is testmode
    assert ("immich-formula" in server.aclfile.read_text()) is testmode
    states.immich_valkey.login_absent("login", **arguments)
    assert states.immich_valkey.login_absent("login", **arguments).changes == {}
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client().execute_command("PING")  # default is not open again


def test_server_that_is_managed_elsewhere(modules, states, settings, server):
    server.run("ACL", "SETUSER", "default", "resetpass", ">the remote administrator")
    settings["valkey"].update(
        managed=False,
        connection={**server.connection, "tls": False, "password_pillar": "immich:valkey:admin:password"},
    )
    users = modules.immich_valkey.users(settings)
    assert [user["name"] for user in users] == ["immich", "other"]
    arguments = {"users": users, "connection": modules.immich_valkey.logins(settings)}
    assert set(states.immich_valkey.users_managed("users", **arguments).changes) == {"immich", "other"}
    assert states.immich_valkey.users_managed("users", **arguments).changes == {}
    assert modules.immich_valkey.verify(settings) == []


@any_server
def test_secrets_stay_out_of_the_process_list_and_readable_files(apply, tmp_path, password_file):
    apply()
    secret = password_file.read_text().strip()
    listing = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert secret not in listing
    readable = [path for path in Path(tmp_path).rglob("*") if path.is_file() and os.stat(path).st_mode & 0o004]
    assert not [path for path in readable if secret in path.read_text(errors="replace")]


def ask(server, *commands):
    """Have Immich's user run commands that are denied: they are in ACL LOG then."""
    with server.client("immich", PASSWORD) as immich:
        for command in commands:
            with pytest.raises(redis.exceptions.NoPermissionError):
                immich.execute_command(*command)


def test_a_command_that_immich_lacks_is_named_with_the_line_that_grants_it(apply, modules, settings, server):
    """A new release of Immich that needs one more command is seen by it."""
    apply()
    assert modules.immich_valkey.refusals(settings) == []
    ask(server, ["ECHO", "x"], ["CLIENT", "INFO"], ["ECHO", "y"])
    (refusal,) = modules.immich_valkey.refusals(settings)
    assert refusal["seen"].startswith("Valkey denied CLIENT INFO, ECHO to the user immich")
    assert refusal["remedy"] == 'immich:valkey:extra_rules: ["+client|info", "+echo"]'
    assert refusal["severity"] == "error"
    rules = ["+client|info", "+echo"]
    _, users = apply(extra_rules=rules)
    assert (users.result, set(users.changes)) == (True, {"immich"}), users.comment
    assert server.client("immich", PASSWORD).execute_command("ECHO", "x") == "x"
    granted = {"valkey": {**settings["valkey"], "extra_rules": rules}}
    assert modules.immich_valkey.refusals(granted) == []
    assert modules.immich_valkey.verify(granted) == []


def test_what_harms_others_is_named_and_never_to_be_granted(apply, modules, settings, server):
    apply()
    harmful = [
        ["KEYS", "*"],
        ["CONFIG", "GET", "*"],
        ["CLIENT", "KILL", "ID", "1"],
        ["SCRIPT", "LOAD", "x"],
        ["SCAN", "0"],
    ]
    ask(server, *harmful)
    (refusal,) = modules.immich_valkey.refusals(settings)
    assert "CLIENT KILL, CONFIG GET, KEYS, SCAN, SCRIPT LOAD" in refusal["seen"]
    assert (refusal["severity"], "extra_rules" in refusal["remedy"]) == ("warning", False)
    _, users = apply(extra_rules=["+keys"])
    assert (users.result, users.changes) == (False, {})
    assert "KEYS must be denied to immich" in users.comment


@any_server
def test_names_that_the_container_decides_are_shown_short_and_printable(apply, modules, settings, server):
    apply()
    ask(
        server, *(["GET", f"\x1b[2J\n{number}" + "x" * 999] for number in range(200)), ["SUBSCRIBE", b"\xff\x07foreign"]
    )
    keys, channels = modules.immich_valkey.refusals(settings)
    assert "and " in keys["seen"]
    assert "foreign" in channels["seen"]
    for each in (keys, channels):
        assert each["seen"].isprintable()
        assert len(each["seen"]) < 600
        assert each["severity"] == "warning"


def test_denials_of_others_and_of_passwords_are_not_immichs(apply, modules, settings, server):
    apply()
    with pytest.raises(redis.exceptions.NoPermissionError):
        server.client("other", "others password").execute_command("FLUSHALL")
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client("immich", "wrong").execute_command("PING")
    assert modules.immich_valkey.refusals(settings) == []


# -- limits ------------------------------------------------------------------------------------------


@pytest.fixture
def bound(states, server, tmp_path):
    """The state that bounds the server's memory, and with ``function`` the one that takes that back."""

    def run(function="memory_bounded", **arguments):
        gc.collect()
        return getattr(states.immich_valkey, function)(
            "memory",
            config_file=str(server.config_file),
            record_file=str(tmp_path / "formula" / "valkey.json"),
            **{"connection": server.connection, **arguments},
        )

    return run


def limit(server):
    """What the running server has, and its file says."""
    running = [server.run("CONFIG", "GET", name)[1] for name in ("maxmemory", "maxmemory-policy")]
    lines = server.config_file.read_text().splitlines()
    return (*running, *(line for line in lines if line.startswith("maxmemory ")))


def test_a_server_without_a_limit_gets_one_and_clean_takes_it_back(bound, server, loaders, testmode):
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    ret = bound(test=testmode)
    assert ret.result is (None if testmode else True), ret.comment
    assert set(ret.changes) == {"maxmemory", "maxmemory-policy"}
    if testmode:
        assert limit(server) == ("0", "allkeys-lru")
        return
    found = limit(server)
    assert int(found[0]) == max(512, loaders.opts["grains"]["mem_total"] // 8) << 20
    assert found[1:] == ("noeviction", f"maxmemory {int(found[0]) >> 20}mb")
    for test in (False, True):
        assert bound(test=test).changes == {}
    server.restart()
    assert limit(server) == found
    assert bound("memory_as_before", test=True).result is None
    assert limit(server) == found
    assert set(bound("memory_as_before").changes) == {"maxmemory", "maxmemory-policy"}
    assert limit(server) == ("0", "allkeys-lru", "maxmemory 0")
    assert bound("memory_as_before").changes == {}
    assert bound().result is True  # and again
    assert limit(server) == found


def test_a_limit_that_the_server_has_stays_unless_the_pillar_has_one(bound, server):
    server.run("CONFIG", "SET", "maxmemory", "300mb")
    server.run("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    found = limit(server)
    ret = bound()
    assert (ret.result, ret.changes, limit(server)) == (True, {}, found)
    assert bound(maxmemory="128m").changes["maxmemory"] == {"old": str(300 << 20), "new": "128mb"}
    assert limit(server)[:2] == (str(128 << 20), "noeviction")
    assert bound(maxmemory="1g").result is True
    assert bound(maxmemory="1g").changes == {}
    # What the server had before the first of them.
    assert bound(maxmemory="0").result is True
    assert limit(server)[:2] == found[:2]


def test_a_limit_that_somebody_has_changed_since_is_not_taken_back(bound, server, tmp_path):
    bound()
    server.run("CONFIG", "SET", "maxmemory", "700mb")
    ret = bound("memory_as_before")
    assert (ret.result, ret.changes) == (True, {})
    assert "stays" in ret.comment
    assert limit(server)[0] == str(700 << 20)
    assert not (tmp_path / "formula" / "valkey.json").exists()


def test_a_limit_below_what_is_in_use_is_refused_before_anything_changes(bound, server, tmp_path, testmode):
    server.run("SET", "a", "x" * (70 << 20))
    ret = bound(maxmemory="64m", test=testmode)
    assert (ret.result, ret.changes) == (False, {})
    assert "immich:valkey:maxmemory: is 64m, and this Valkey holds" in ret.comment
    assert limit(server) == ("0", "noeviction")
    assert not (tmp_path / "formula").exists()


def test_a_server_that_is_full_by_that_limit_already_refuses_no_apply(bound, server):
    bound(maxmemory="200m")
    server.run("SET", "a", "x" * (70 << 20))
    server.run("CONFIG", "SET", "maxmemory", str(64 << 20))
    for limit_of_the_pillar in ("64m", "65m"):
        ret = bound(maxmemory=limit_of_the_pillar)
        assert ret.result is True, ret.comment
    assert limit(server)[0] == str(65 << 20)


def test_a_server_that_this_run_would_install_gets_a_limit(bound, server, testmode):
    server.stop()
    ret = bound(test=testmode)
    assert ret.result is (None if testmode else False)
    assert bool(ret.changes) is testmode


def test_a_record_that_is_no_json_is_named(bound, server, tmp_path):
    bound()
    (tmp_path / "formula" / "valkey.json").write_text("{")
    ret = bound("memory_as_before")
    assert (ret.result, ret.changes) == (False, {})
    assert "valkey.json is not what the formula wrote" in ret.comment


def test_a_full_server_refuses_immich_and_answers_the_formula(apply, bound, modules, settings, server):
    """By keys: what a script keeps in its own variables no maxmemory counts."""
    apply()
    logins = modules.immich_valkey.logins(settings)
    server.client(*administrator()).execute_command("CONFIG", "SET", "maxmemory", "64mb")
    with server.client("immich", PASSWORD) as immich:
        fill = "for i = 1, 1000 do redis.call('set', 'immich_bull:' .. i, string.rep('x', 1000000)) end"
        with contextlib.suppress(redis.exceptions.ResponseError):
            immich.execute_command("EVAL", fill, "0")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            immich.execute_command("SET", "immich_bull:x", "x" * 1000000)
    gc.collect()
    held = valkey_memory.limits(modules["valkey_acl.pipeline"], logins)
    assert held["used"] >= held["limit"] == 64 << 20
    assert modules.immich_valkey.verify(settings) == []


def busy(server):
    """Whether the server says that a script keeps it from answering."""
    try:
        server.client(*administrator()).execute_command("PING")
    except redis.exceptions.RedisError as error:
        return "busy running a script" in str(error)
    return False


@contextlib.contextmanager
def endless(server, script="while true do end"):
    """Immich's user keeps the server busy."""
    server.client(*administrator()).execute_command("CONFIG", "SET", "busy-reply-threshold", "100")

    def run():
        with contextlib.suppress(redis.exceptions.RedisError), server.client("immich", PASSWORD) as immich:
            immich.execute_command("EVAL", script, "1", "immich_bull:x")

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 120
    while not busy(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield
    with contextlib.suppress(redis.exceptions.RedisError):
        server.client(*administrator()).execute_command("SCRIPT", "KILL")
    server.process.kill()
    thread.join()


def test_a_busy_server_is_named_with_what_ends_it(apply, bound, modules, settings, server, password_file):
    apply()
    gc.collect()
    logins = modules.immich_valkey.logins(settings)
    with endless(server):
        modules.valkey_acl.disconnect()
        with pytest.raises(CommandExecutionError, match=r"is busy with a script .* SCRIPT KILL") as caught:
            valkey_memory.limits(modules["valkey_acl.pipeline"], logins)
        assert caught.value.remedy == "SCRIPT KILL"
        for ret in (*apply(), bound(connection=logins)):
            assert (ret.result, ret.changes) == (False, {})
            assert "busy with a script" in ret.comment
        # The formula's own user may end it, as the doctor advises.
        login = server.client("immich-formula", password_file.read_text().strip())
        assert login.execute_command("SCRIPT", "KILL") == "OK"
        assert valkey_memory.limits(modules["valkey_acl.pipeline"], logins)["busy_reply_threshold"] == 100


def test_a_script_that_has_written_is_not_ended_by_script_kill(apply, server, password_file):
    apply()
    with endless(server, "redis.call('set', KEYS[1], '1') while true do end"):
        login = server.client("immich-formula", password_file.read_text().strip())
        with pytest.raises(redis.exceptions.ResponseError, match="already executed write"):
            login.execute_command("SCRIPT", "KILL")
