"""`valkey_acl` against servers: Valkey 8.1 and Redis 8.0 on Debian 13, Redis 7.0 on Debian 12, Valkey 9.1 on both."""

import hashlib
import json
import os
import re
import threading
import time

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError, SaltInvocationError

from tests import acl_rules
from tests.functional.proxy import Proxy
from tests.functional.release import OWN_SERVER, SERVERS
from tests.functional.valkey_servers import EACH, NEWEST, Server, free_port

RULES = "~app:* &app:* +@read +@write -@dangerous +client|setname"
EVERY_CHARACTER = "".join(chr(code) for code in range(32, 127))


@pytest.fixture(scope="module", params=EACH)
def shared(request, tmp_path_factory):
    """One server for all tests of this module that do not break it."""
    server = Server(request.param, tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(shared):
    yield shared
    for name in shared.names() - {"default"}:
        shared.run("ACL", "DELUSER", name)
    shared.run("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
    shared.run("ACL", "SAVE")


@pytest.fixture
def own_server(tmp_path):
    """A function that starts a server which a test may break."""
    started = []

    def start(program=OWN_SERVER, **arguments):
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        started.append(Server(program, folder, **arguments))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def digest(password):
    return hashlib.sha256(password.encode()).hexdigest()


# --- present --------------------------------------------------------------------------------------------


def test_present_creates(states, server, testmode):
    ret = states.valkey_acl.present(
        "alice", password="secret password", rules=RULES, connection=server.connection, test=testmode
    )
    assert ret.result is (None if testmode else True), ret.comment
    assert ret.changes["alice"]["old"] is None
    assert ret.changes["alice"]["new"]["password"] == "changed"
    assert "secret" not in str(ret.raw)
    assert digest("secret password") not in str(ret.raw)
    if testmode:
        assert server.line("alice") is None
        return
    assert server.client("alice", "secret password").execute_command("SET", "app:1", "x") == "OK"
    assert server.line("alice") in server.aclfile.read_text()
    again = states.valkey_acl.present("alice", password="secret password", rules=RULES, connection=server.connection)
    assert (again.result, again.changes) == (True, {})


def test_a_new_password_beside_the_old_one(states, server, testmode):
    user = {"rules": RULES, "connection": server.connection}
    server.run("DEL", "app:1")
    states.valkey_acl.present("alice", password="old password", **user)
    ret = states.valkey_acl.present("alice", password="new password", keep_passwords=True, test=testmode, **user)
    assert ret.result is (None if testmode else True), ret.comment
    assert ret.changes == {"alice": {"old": {}, "new": {"password": "changed"}}}
    accepted = {"old password", "new password"} - ({"new password"} if testmode else set())
    for password in ("old password", "new password"):
        if password in accepted:
            assert server.client("alice", password).execute_command("GET", "app:1") is None
        else:
            with pytest.raises(redis.exceptions.AuthenticationError):
                server.client("alice", password).execute_command("GET", "app:1")
    if testmode:
        return
    again = states.valkey_acl.present("alice", password="new password", keep_passwords=True, **user)
    assert (again.result, again.changes) == (True, {})
    alone = states.valkey_acl.present("alice", password="new password", **user)
    assert alone.changes == {"alice": {"old": {}, "new": {"password": "changed"}}}
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client("alice", "old password").execute_command("GET", "app:1")


DRIFTS = {
    "disabled": ("off",),
    "key added": ("~more",),
    "key narrowed": ("resetkeys", "%R~app:*"),
    "channel added": ("&more",),
    "command added": ("+flushall",),
    "command taken": ("-get",),
    "password added": (">another",),
    "password replaced": ("resetpass", ">another"),
    "no password": ("nopass",),
    "selector added": ("(~other +get)",),
    "payload unchecked": ("skip-sanitize-payload",),
}


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
def test_present_corrects_drift(states, server, testmode, drift):
    declared = {"password": "secret", "rules": RULES, "connection": server.connection}
    states.valkey_acl.present("alice", **declared)
    right = server.line("alice")
    server.run("ACL", "SETUSER", "alice", *drift)
    wrong = server.line("alice")
    ret = states.valkey_acl.present("alice", **declared, test=testmode)
    if right == wrong:  # Valkey 9.1.2 holds nothing about payloads
        assert (drift, ret.result, ret.changes) == (DRIFTS["payload unchecked"], True, {})
        return
    assert ret.result is (None if testmode else True), ret.comment
    assert ret.changes["alice"]["old"] != ret.changes["alice"]["new"]
    assert server.line("alice") == (wrong if testmode else right)


@pytest.mark.parametrize(
    "rules",
    (
        "+get +get",
        ["+GET", "+set", "-get", "+get"],
        "%RW~a %R~b %W~b",
        "~a ~b ~*",
        "allkeys allchannels allcommands -@dangerous",
        "+select|1 +select|2",
        "+@all -client|kill",
        "~a +get (~b +set) (%R~c &d +@pubsub)",
        ["~a", "(~b +set)", "clearselectors", "(~c +get)"],
        "+config|get -config",
        "+@read -@all +ping",
        "&a &b resetchannels &b",
        "skip-sanitize-payload ~x",
        "nocommands resetkeys",
        "",
    ),
    ids=str,
)
def test_forms_of_the_grammar_are_stable(states, server, rules):
    declared = {"password_hash": digest("secret"), "rules": rules, "connection": server.connection}
    assert states.valkey_acl.present("alice", **declared).changes
    # The server reads the same rules as we do.
    server.run("ACL", "SETUSER", "reference", "reset", "on", f"#{digest('secret')}", *_arguments(rules))
    assert server.line("alice").split(" ")[2:] == server.line("reference").split(" ")[2:] or _reordered(server)
    ret = states.valkey_acl.present("alice", **declared)
    assert (ret.result, ret.changes) == (True, {}), ret.comment


def _arguments(rules):
    return rules.split(" ") if isinstance(rules, str) and rules else list(rules)


def _reordered(server):
    """Keys and channels have no order: ours are sorted."""
    ours, theirs = (sorted(server.line(name).split(" ")[2:]) for name in ("alice", "reference"))
    return ours == theirs


def test_orders_and_ways_of_saying_the_same_are_no_difference(states, server):
    declared = {"password": "secret", "connection": server.connection}
    states.valkey_acl.present("alice", rules="~a ~b +get +set +@hash", **declared)
    for rules in (
        "~b ~a +@hash +set +get",
        "%RW~a ~b +set +get +@hash +hget",
        "~a ~b -@all +del +@hash -del +set +get",
    ):
        ret = states.valkey_acl.present("alice", rules=rules, **declared)
        assert (ret.result, ret.changes) == (True, {}), rules
    assert states.valkey_acl.present("alice", rules="~a ~b +get +set +@hash -hget", **declared).changes


def test_undeclared_rules_and_passwords_are_not_changed(states, server):
    server.run("ACL", "SETUSER", "alice", "on", ">old", "~a", "+get")
    ret = states.valkey_acl.present("alice", password="new", connection=server.connection)
    assert set(ret.changes["alice"]["new"]) == {"password"}
    assert "~a resetchannels -@all +get" in server.line("alice")
    ret = states.valkey_acl.present("alice", rules="~b +set", connection=server.connection)
    assert set(ret.changes["alice"]["new"]) == {"rules"}
    assert server.client("alice", "new").execute_command("SET", "b", "1") == "OK"
    server.run("ACL", "SETUSER", "alice", "off")
    server.run("ACL", "SAVE")
    assert states.valkey_acl.present("alice", enabled=None, connection=server.connection).changes == {}


def test_passwords_of_every_printable_character(states, server, loaders, tmp_path):
    file = tmp_path / "password"
    file.write_text(EVERY_CHARACTER + "file\n")
    loaders.opts["pillar"]["some"] = {"password": EVERY_CHARACTER, "more": [EVERY_CHARACTER + "1"]}
    declared = {
        "password": EVERY_CHARACTER + "plain",
        "password_pillar": ["some:password", "some:more"],
        "password_file": str(file),
        "password_hash": digest("hashed"),
        "rules": "+@all ~*",
        "connection": server.connection,
    }
    ret = states.valkey_acl.present("alice", **declared)
    assert ret.result is True, ret.comment
    for password in ("", "plain", "1", "file"):
        assert server.client("alice", EVERY_CHARACTER + password).execute_command("ACL", "WHOAMI") == "alice"
    assert server.client("alice", "hashed").execute_command("ACL", "WHOAMI") == "alice"
    assert states.valkey_acl.present("alice", **declared).changes == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    (
        ({"rules": "~a +nosuch"}, "nosuch"),
        ({"rules": "~a +@nosuch"}, "nosuch"),
        ({"rules": "gibberish"}, "not ACL grammar"),
        ({"password_pillar": "not:there"}, "not:there"),
        ({"password_file": "/not/there"}, "/not/there"),
    ),
    ids=str,
)
def test_wrong_input_changes_nothing(states, server, testmode, wrong, said):
    server.run("ACL", "SETUSER", "alice", "on", ">old", "~a", "+get")
    before = server.line("alice")
    ret = states.valkey_acl.present("alice", **wrong, connection=server.connection, test=testmode)
    assert (ret.result, ret.changes) == (False, {})
    assert said in ret.comment
    assert server.line("alice") == before


def test_a_password_in_rules_is_hashed_and_never_shown(states, server):
    ret = states.valkey_acl.present("alice", rules=[">top secret", "+acl|whoami"], connection=server.connection)
    assert ret.result is True
    assert "top" not in str(ret.raw)
    assert server.client("alice", "top secret").execute_command("ACL", "WHOAMI") == "alice"
    ret = states.valkey_acl.present("alice", rules=">top secret ~a", connection=server.connection)
    assert ret.result is False  # a string is split at blanks, "secret" is no rule
    assert "secret" not in ret.comment


@pytest.mark.parametrize("shared", SERVERS, indirect=True)
def test_databases_are_refused_by_name_where_the_server_knows_none(states, server, testmode):
    """A dry run announced what the server then did not take."""
    ret = states.valkey_acl.present("alice", rules="~a db=1", connection=server.connection, test=testmode)
    assert (ret.result, ret.changes) == (False, {})
    assert "knows no db= in the rules of alice: Valkey 9.1 is the least" in ret.comment
    assert server.line("alice") is None


DATABASE_RULES = "~app:* db=2,0 +@read +select (db=3 ~other:* +get +select)"


@pytest.mark.once
@pytest.mark.parametrize("shared", (NEWEST,), indirect=True)
def test_databases_where_the_server_knows_them(states, server, testmode):
    declared = {"password": "secret", "connection": server.connection}
    ret = states.valkey_acl.present("alice", rules=DATABASE_RULES, test=testmode, **declared)
    assert ret.result is (None if testmode else True), ret.comment
    assert "db=0,2" in str(ret.changes["alice"]["new"])
    if testmode:
        assert server.line("alice") is None
        return
    for database, key in ((0, "app:1"), (2, "app:1"), (3, "other:1")):
        assert server.client("alice", "secret", db=database).execute_command("GET", key) is None
    for database, key in ((1, "app:1"), (3, "app:1"), (0, "other:1")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            server.client("alice", "secret", db=database).execute_command("GET", key)
    assert server.line("alice") in server.aclfile.read_text()
    # Another order, another case, a number twice: the same meaning.
    for same in (DATABASE_RULES, "~app:* resetdbs DB=0,2,02 +@read +select (db=3 ~other:* +get +select)"):
        assert states.valkey_acl.present("alice", rules=same, **declared).changes == {}
    listed = states.valkey_acl.managed(
        "all", users=[{"name": "alice", "rules": DATABASE_RULES, "password": "secret"}], connection=server.connection
    )
    assert listed.changes == {}


@pytest.mark.once
@pytest.mark.parametrize("shared", (NEWEST,), indirect=True)
@pytest.mark.parametrize(
    "drift", (("db=0,1,2",), ("alldbs",), ("resetdbs",), ("clearselectors", "(db=4 ~other:* +get)"))
)
def test_drift_of_databases(states, server, drift):
    declared = {"rules": DATABASE_RULES, "connection": server.connection}
    states.valkey_acl.present("alice", **declared)
    before = server.line("alice")
    server.run("ACL", "SETUSER", "alice", *drift)
    foreseen = states.valkey_acl.present("alice", test=True, **declared)
    assert server.line("alice") != before
    assert states.valkey_acl.present("alice", **declared).changes == foreseen.changes != {}
    assert server.line("alice") == before


def test_blanks_of_unicode_in_the_patterns_of_others_are_read(states, server):
    """They split the pattern, and with one such user no other could be managed, nor was the file ever right."""
    server.run("ACL", "SETUSER", "stranger\u00a0x", "on", "~a\u00a0b", "~c\x1cd", "(~e\x85f +get)")
    server.run("ACL", "SAVE")
    assert states.valkey_acl.present("alice", rules=RULES, connection=server.connection).result is True
    assert states.valkey_acl.managed("all", users=[{"name": "alice"}], connection=server.connection).changes == {}
    rules = ["~a\u00a0b", "(~e\x85f +get)", "~c\x1cd"]
    users = [{"name": "stranger\u00a0x", "rules": rules}]
    assert states.valkey_acl.managed("all", users=users, connection=server.connection).changes == {}


# --- allows and denies ----------------------------------------------------------------------------------


ASSERTIONS = {
    "allows": ["GET", "CLIENT SETNAME", ["SET", "app:1", "x"], ["PUBLISH", "app:1", "x"], "SUBSCRIBE"],
    "denies": ["FLUSHALL", "KEYS", "CLIENT KILL", "CONFIG", "NOSUCHCOMMAND", ["GET", "foreign"], ["PSUBSCRIBE", "*"]],
}


def test_assertions_that_hold(states, server, testmode):
    declared = {"password": "secret", "rules": RULES + " +@pubsub", "connection": server.connection, **ASSERTIONS}
    ret = states.valkey_acl.present("alice", **declared, test=testmode)
    assert ret.result is (None if testmode else True), ret.comment
    states.valkey_acl.present("alice", **declared)
    assert states.valkey_acl.present("alice", **declared, test=testmode).changes == {}


@pytest.mark.parametrize(
    ("rules", "said"),
    (
        ("~app:* &app:* +@all", "FLUSHALL must be denied"),
        ("~app:* &app:* -@dangerous +@all -client|kill", "FLUSHALL must be denied"),
        ("~* &app:* +@all -@dangerous -client|kill", "GET foreign must be denied"),
        ("~app:* &* +@all -@dangerous -client|kill", "PSUBSCRIBE * must be denied"),
        ("%R~app:* &app:* +@read +@write +@pubsub -@dangerous +client|setname", "SET app:1 x must be allowed"),
        ("~app:* +@read +@write +@pubsub -@dangerous +client|setname", "PUBLISH app:1 x must be allowed"),
    ),
)
def test_broken_assertions_are_refused_before_anything_changes(states, server, rules, said):
    """New rules by the run, as only a user that exists can be judged; those that the user has by a dry run too."""
    declared = {"rules": rules, "connection": server.connection, **ASSERTIONS}
    server.run("ACL", "SETUSER", "alice", "on", ">old", "~a", "+get")
    before = server.run("ACL", "LIST")
    dry = states.valkey_acl.present("alice", **declared, test=True)
    assert (dry.result, "alice" in dry.changes) == (None, True)
    assert "Not checked in a dry run: allows and denies of alice." in dry.comment
    ret = states.valkey_acl.present("alice", **declared)
    assert (ret.result, ret.changes) == (False, {})
    assert said in ret.comment
    assert server.run("ACL", "LIST") == before
    server.run("ACL", "SETUSER", "alice", "reset", "on", *rules.split(" "))
    for test in (True, False):
        # Another password changes no rules.
        ret = states.valkey_acl.present("alice", password="new", **declared, test=test)
        assert (ret.result, ret.changes) == (False, {})
        assert said in ret.comment


def test_test_mode_makes_no_scratch_user_and_a_real_run_leaves_none(states, server):
    events = []
    stop = threading.Event()

    def watch():
        with server.client() as client:
            while not stop.is_set():
                events.extend(name for name in client.execute_command("ACL", "USERS") if name.startswith("salt-"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    declared = {"rules": RULES, "connection": server.connection, "denies": ["FLUSHALL"]}
    states.valkey_acl.present("alice", **declared, test=True)
    states.valkey_acl.present("alice", **declared)
    states.valkey_acl.present("alice", **{**declared, "rules": "+@all"})
    stop.set()
    watcher.join()
    assert events == []


def test_scratch_user_of_a_crash_is_swept(states, server):
    server.run("ACL", "SETUSER", "salt-scratch-0123", "off", "+@all")
    ret = states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    assert ret.result is True
    assert server.names() == {"default", "alice"}
    assert "salt-scratch" not in server.aclfile.read_text()


def test_dry_run(modules, server):
    server.run("ACL", "SETUSER", "alice", "on", "~a", "+get", "+client|list")
    run = modules.valkey_acl.dry_run
    assert run("alice", "GET", connection=server.connection) == {"allowed": True, "reason": ""}
    assert run("alice", ["GET", "b"], connection=server.connection)["allowed"] is False
    assert run("alice", "CLIENT", connection=server.connection)["allowed"] is False
    assert run("alice", "client list", connection=server.connection)["allowed"] is True
    assert run("any", "FLUSHALL", rules="+@all", connection=server.connection)["allowed"] is True
    with pytest.raises(CommandExecutionError, match="no ACL user bob"):
        run("bob", "GET", connection=server.connection)
    assert server.names() == {"default", "alice"}


def test_scratch_user_of_a_dry_run_is_off_and_without_password(modules, server):
    """Rules with `on` or a password made it one that could log in."""
    with Proxy(("127.0.0.1", server.port)) as proxy:
        connection = {"host": "127.0.0.1", "port": proxy.port}
        rules = ["on", ">topsecret", "nopass", "~*", "+@all"]
        assert modules.valkey_acl.dry_run("any", "FLUSHALL", rules=rules, connection=connection)["allowed"] is True
    words = proxy.sent.split(b"SETUSER", 1)[1].split(b"EXEC", 1)[0].split(b"\r\n")
    assert b"reset" in words
    assert b"off" in words
    assert not {b"on", b"nopass", b"#" + digest("topsecret").encode()} & set(words)


# --- absent ---------------------------------------------------------------------------------------------


def test_absent(states, server, testmode):
    server.run("ACL", "SETUSER", "alice", "on", "~a", "+get")
    server.run("ACL", "SAVE")
    ret = states.valkey_acl.absent("alice", connection=server.connection, test=testmode)
    assert ret.result is (None if testmode else True)
    assert ret.changes["alice"]["new"] is None
    assert ("alice" in server.names()) is testmode
    assert ("alice" in server.aclfile.read_text()) is testmode
    states.valkey_acl.absent("alice", connection=server.connection)
    assert states.valkey_acl.absent("alice", connection=server.connection).changes == {}


def test_absent_refuses_default_and_the_connections_own_user(states, server, testmode):
    server.run("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
    boss = {**server.connection, "username": "boss", "password": "boss"}
    for name, said in (("default", "disabled"), ("boss", "another user")):
        ret = states.valkey_acl.absent(name, connection=boss, test=testmode)
        assert (ret.result, ret.changes) == (False, {})
        assert said in ret.comment


def test_delete_its_own_user(modules, server):
    server.run("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
    server.run("ACL", "SAVE")
    boss = {**server.connection, "username": "boss", "password": "boss"}
    assert modules.valkey_acl.delete("boss", connection=boss) is True
    assert "boss" not in server.aclfile.read_text()
    assert modules.valkey_acl.delete("boss", connection=server.connection) is False


# --- managed --------------------------------------------------------------------------------------------


def test_managed(states, server, testmode):
    server.run("ACL", "SETUSER", "stranger", "on", "~x", "+get")
    users = [{"name": f"u{number}", "password": f"p{number}", "rules": RULES} for number in range(50)]
    ret = states.valkey_acl.managed("users", users=users, connection=server.connection, test=testmode)
    assert ret.result is (None if testmode else True), ret.comment
    assert {f"u{number}" for number in range(50)} <= set(ret.changes)
    assert ("u1" in server.names()) is not testmode
    assert "stranger" in server.names()
    states.valkey_acl.managed("users", users=users, connection=server.connection)
    assert states.valkey_acl.managed("users", users=users, connection=server.connection).changes == {}


def test_managed_removes_unlisted_but_default_and_itself(states, server, testmode):
    server.run("ACL", "SETUSER", "stranger", "on", "~x", "+get")
    server.run("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
    server.run("ACL", "SAVE")
    boss = {**server.connection, "username": "boss", "password": "boss"}
    users = [{"name": "alice", "rules": RULES}]
    ret = states.valkey_acl.managed("users", users=users, remove_unlisted=True, connection=boss, test=testmode)
    assert set(ret.changes) == {"alice", "stranger"}
    assert server.names() == ({"default", "stranger", "boss"} if testmode else {"default", "alice", "boss"})


@pytest.mark.parametrize(
    "own",
    (
        {"name": "boss", "enabled": False},
        {"name": "boss", "rules": "~* +@read"},
        {"name": "boss", "rules": "+@all -acl|setuser"},
    ),
    ids=str,
)
def test_managed_never_locks_itself_out(states, server, testmode, own):
    server.run("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
    before = server.run("ACL", "LIST")
    boss = {**server.connection, "username": "boss", "password": "boss"}
    ret = states.valkey_acl.managed("users", users=[own, {"name": "alice"}], connection=boss, test=testmode)
    assert (ret.result, ret.changes) == (False, {})
    assert "log in as another user" in ret.comment
    assert server.run("ACL", "LIST") == before


@pytest.mark.parametrize("state", ("present", "managed"))
def test_password_of_the_connection_is_not_taken_from_under_it(states, server, testmode, state):
    """The next run could not log in."""
    server.run("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
    boss = {**server.connection, "username": "boss", "password": "boss"}

    def change(connection):
        if state == "present":
            return states.valkey_acl.present("boss", password="new", connection=connection, test=testmode)
        users = [{"name": "boss", "password": "new"}]
        return states.valkey_acl.managed("users", users=users, connection=connection, test=testmode)

    before = server.line("boss")
    ret = change(boss)
    assert (ret.result, ret.changes) == (False, {})
    assert "list a second connection with that" in ret.comment
    assert server.line("boss") == before
    ret = change([{**boss, "password": "new"}, boss])
    assert ret.result is (None if testmode else True), ret.comment
    if not testmode:
        assert server.client("boss", "new").execute_command("ACL", "WHOAMI") == "boss"


def test_converged_run_sends_nothing_that_writes(states, server):
    """By the server's own count of what was sent to it."""
    users = [{"name": f"u{number}", "password": f"p{number}", "rules": RULES, **ASSERTIONS} for number in range(3)]
    for user in users:
        user["rules"] += " +@pubsub"
    declared = {"users": users, "remove_unlisted": True, "connection": server.connection}
    assert states.valkey_acl.managed("users", **declared).result is True
    saved = server.aclfile.stat().st_ino, server.aclfile.stat().st_mtime_ns
    server.run("CONFIG", "RESETSTAT")
    for test in (True, False):
        assert states.valkey_acl.managed("users", **declared, test=test).changes == {}
        for user in users:
            assert states.valkey_acl.present(**user, connection=server.connection, test=test).changes == {}
        assert states.valkey_acl.absent("nobody", connection=server.connection, test=test).changes == {}
    counted = {line.split(":")[0].removeprefix("cmdstat_") for line in server.run("INFO", "commandstats").splitlines()}
    assert "acl|list" in counted
    assert not counted & {"acl|setuser", "acl|deluser", "acl|save", "acl|load", "config|rewrite", "config|set"}
    assert (server.aclfile.stat().st_ino, server.aclfile.stat().st_mtime_ns) == saved


def test_one_bad_user_stops_all(states, server):
    users = [{"name": "alice", "rules": "+get"}, {"name": "bob", "rules": "+nosuch"}]
    ret = states.valkey_acl.managed("users", users=users, connection=server.connection)
    assert ret.result is False
    assert "bob" in ret.comment
    assert server.names() == {"default"}


def test_replacement_is_atomic_for_connected_clients(states, server):
    """A client works on while its user is replaced, and at no instant may it do what it may never do."""
    declared = {"password": "secret", "connection": server.connection}
    forms = ("~app:* +get +set +ping", "~app:* ~other +@read +@write -@dangerous +ping")
    states.valkey_acl.present("alice", rules=forms[0], **declared)
    stop, failures, done = threading.Event(), [], [0]

    def work():
        with server.client("alice", "secret") as client:
            while not stop.is_set():
                try:
                    client.execute_command("SET", "app:1", "x")
                    done[0] += 1
                    client.execute_command("FLUSHALL")
                    failures.append("FLUSHALL was allowed")
                except redis.exceptions.NoPermissionError as err:
                    if "flushall" not in str(err):
                        failures.append(str(err))

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(40):
        assert states.valkey_acl.present("alice", rules=forms[(number + 1) % 2], **declared).changes
    stop.set()
    worker.join()
    assert failures == []
    assert done[0] > 40


@pytest.mark.once
@pytest.mark.parametrize("shared", (OWN_SERVER,), indirect=True)
def test_thousand_users_converged_take_no_command_each(states, server):
    users = [{"name": f"u{number}", "password": f"p{number}", "rules": RULES} for number in range(1000)]
    states.valkey_acl.managed("users", users=users, connection=server.connection)
    commands = int(_statistic(server, "total_commands_processed"))
    ret = states.valkey_acl.managed("users", users=users, connection=server.connection)
    assert ret.changes == {}
    assert int(_statistic(server, "total_commands_processed")) - commands <= 9


@pytest.mark.once
@pytest.mark.parametrize("shared", (OWN_SERVER,), indirect=True)
def test_what_one_user_takes_does_not_grow_with_the_number_of_others(modules, states, server):
    def sent_for_alice():
        """Bytes for one user more in a run that goes on; its first one looks for scratch users among all."""
        alice = {"name": "alice", "rules": RULES}
        before = int(_statistic(server, "total_net_output_bytes"))
        assert modules.valkey_acl.compare([alice], connection=server.connection)["changes"] == {}
        return int(_statistic(server, "total_net_output_bytes")) - before

    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    sent_for_alice()
    alone = sent_for_alice()
    others = [{"name": f"u{number}", "rules": RULES} for number in range(300)]
    states.valkey_acl.managed("users", users=others, connection=server.connection)
    assert sent_for_alice() < alone + 2000  # a list of all of them has some 30,000 bytes


def _statistic(server, name):
    return dict(line.split(":", 1) for line in server.run("INFO", "stats").splitlines() if ":" in line)[name]


# --- saving ---------------------------------------------------------------------------------------------


def test_drift_between_file_and_memory_is_seen_and_saved(states, server, testmode):
    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    saved = server.aclfile.read_text()
    server.aclfile.write_text(saved.replace("~app:*", "~app:* ~more"))
    ret = states.valkey_acl.present("alice", rules=RULES, connection=server.connection, test=testmode)
    assert ret.result is (None if testmode else True)
    assert ret.changes == {"saved": {"old": False, "new": True}}
    assert (server.aclfile.read_text() == saved) is not testmode


def test_file_that_changes_in_the_midst_of_a_run_is_read_again(states, server):
    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    saved = server.aclfile.read_text()
    # Only a file that has been the same for some time is not read again.
    while time.time() - server.aclfile.stat().st_ctime < 2.1:
        time.sleep(0.1)
    for _ in range(2):
        assert states.valkey_acl.present("alice", rules=RULES, connection=server.connection).changes == {}
    server.aclfile.write_text(saved.replace("~app:*", "~apq:*"))  # of the same size
    ret = states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    assert ret.changes == {"saved": {"old": False, "new": True}}
    assert server.aclfile.read_text() == saved


def test_unsaved_users_of_others_are_ignored(states, server):
    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    server.run("ACL", "SETUSER", "stranger", "on", "~x", "+get")
    assert states.valkey_acl.present("alice", rules=RULES, connection=server.connection).changes == {}
    assert "stranger" not in server.aclfile.read_text()


def test_user_that_is_only_in_the_file_is_removed_there(states, server):
    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    server.run("ACL", "DELUSER", "alice")
    assert set(states.valkey_acl.absent("alice", connection=server.connection).changes) == {"saved"}
    assert "alice" not in server.aclfile.read_text()


@pytest.mark.parametrize("program", EACH)
def test_users_survive_a_restart_with_either_file(states, own_server, program):
    for aclfile in (True, False):
        server = own_server(program, aclfile=aclfile)
        states.valkey_acl.present("alice", password="secret", rules=RULES, connection=server.connection)
        line = server.line("alice")
        server.restart()
        # Redis 7.0 keeps the commands of a user in no order.
        assert sorted(server.line("alice").split(" ")) == sorted(line.split(" "))
        ret = states.valkey_acl.present("alice", password="secret", rules=RULES, connection=server.connection)
        assert ret.changes == {}


def test_drift_in_the_configuration_file_is_seen(states, own_server):
    server = own_server(aclfile=False)
    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    text = server.config_file.read_text()
    server.config_file.write_text("".join(line for line in text.splitlines(True) if "user alice" not in line))
    ret = states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    assert set(ret.changes) == {"saved"}
    assert "user alice" in server.config_file.read_text()


def test_password_of_default_in_the_configuration_file_is_no_drift(states, own_server):
    server = own_server(aclfile=False, config="requirepass secret")
    connection = {**server.connection, "password": "secret"}
    assert states.valkey_acl.absent("nobody", connection=connection).changes == {}


def test_nowhere_to_save_is_a_failure_before_any_change(states, own_server, testmode):
    server = own_server(aclfile=False)
    server.stop()
    server.arguments[1:] = ["--port", str(server.port), "--save", ""]
    server.start()
    ret = states.valkey_acl.present("alice", rules=RULES, connection=server.connection, test=testmode)
    assert (ret.result, ret.changes) == (False, {})
    assert "neither an ACL file nor a configuration file" in ret.comment
    assert server.names() == {"default"}


def test_disk_full_changes_nothing(states, own_server):
    server = own_server()
    # The server writes a new file beside the old one: a folder in that place stops even root, as a full disk does.
    server.aclfile.unlink()
    server.aclfile.mkdir()
    (server.aclfile / "x").touch()
    ret = states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    assert (ret.result, ret.changes) == (False, {})
    assert "nothing was changed" in ret.comment
    assert server.names() == {"default"}
    (server.aclfile / "x").unlink()
    server.aclfile.rmdir()
    assert states.valkey_acl.present("alice", rules=RULES, connection=server.connection).result is True


# --- connection -----------------------------------------------------------------------------------------


def test_no_server_is_an_error_and_never_absent(states, modules, own_server):
    server = own_server()
    server.stop()
    with pytest.raises(CommandExecutionError, match="cannot be reached"):
        modules.valkey_acl.get("alice", connection=server.connection)
    ret = states.valkey_acl.absent("alice", connection=server.connection)
    assert (ret.result, ret.changes) == (False, {})
    for denies, said in ((None, "would be changed."), (["FLUSHALL"], "allows and denies of alice. The server judges")):
        ret = states.valkey_acl.present("alice", connection=server.connection, test=True, denies=denies)
        assert ret.result is None
        assert set(ret.changes) == {"alice"}
        assert said in ret.comment
        assert ("Not checked" in ret.comment) is bool(denies)


def test_server_that_restarts_between_two_states_is_found_again(states, own_server):
    server = own_server()
    states.valkey_acl.present("alice", rules=RULES, connection=server.connection)
    server.restart()
    assert states.valkey_acl.present("alice", rules=RULES, connection=server.connection).changes == {}


def test_logins_are_tried_in_turn(modules, server, tmp_path):
    server.run("ACL", "SETUSER", "boss", "on", f">{EVERY_CHARACTER}", "~*", "&*", "+@all")
    password = tmp_path / "password"
    password.write_text(EVERY_CHARACTER + "\n")
    boss = {**server.connection, "username": "boss", "password_file": str(password)}
    wrong = {**boss, "password_file": None, "password": "wrong"}
    missing = {**boss, "password_file": "/not/there"}
    unset = {**boss, "password_file": None, "password_pillar": "not:there"}
    assert modules.valkey_acl.whoami([missing, unset, wrong, boss, server.connection]) == "boss"
    with pytest.raises(CommandExecutionError) as failure:
        modules.valkey_acl.whoami([wrong])
    assert "boss" in str(failure.value)
    assert "wrong" not in str(failure.value)


def test_unix_socket_and_minion_configuration(loaders, server, tmp_path, monkeypatch):
    loaders.opts["pillar"]["valkey"] = {"unix_socket": server.socket}
    assert loaders.modules.valkey_acl.server()["process_id"] == server.process.pid
    # What is nearer wins, and one kind of address or password takes the place of another.
    server.run("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
    password = tmp_path / "password"
    password.write_text("boss\n")
    farther = {"unix_socket": "/not/there", "username": "boss", "password": "wrong", "timeout": 3}
    monkeypatch.setitem(loaders.configuration("valkey_acl.whoami"), "valkey", farther)
    loaders.opts["pillar"]["valkey"] = {"host": "127.0.0.1", "port": server.port}
    assert loaders.modules.valkey_acl.whoami(connection={"password_file": str(password)}) == "boss"
    with pytest.raises(SaltInvocationError, match="sokcet"):
        loaders.modules.valkey_acl.server(connection={"unix_sokcet": server.socket})


def test_one_connection_in_a_run(modules, server):
    before = int(_statistic(server, "total_connections_received"))
    states = {
        f"{name} is there": {
            "valkey_acl.present": [{"name": name}, {"rules": RULES}, {"connection": server.connection}]
        }
        for name in ("alice", "bob", "carol")
    }
    ret = modules.state.template_str(json.dumps(states))
    assert [each.result for each in ret] == [True] * 3
    assert int(_statistic(server, "total_connections_received")) - before == 2  # and the one that asks


def test_tls(modules, own_server, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    os.system(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        f" -keyout {key} -out {certificate} 2>/dev/null"
    )
    server = own_server()
    server.stop()
    port = free_port()
    server.arguments += ["--tls-port", str(port), "--tls-cert-file", str(certificate)]
    server.arguments += ["--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    server.start()
    tls = {"host": "localhost", "port": port, "tls": True, "tls_ca": str(certificate)}
    with pytest.raises(CommandExecutionError, match="cannot be reached"):
        modules.valkey_acl.whoami(connection=tls)  # the server wants a client certificate
    own = {"tls_cert": str(certificate), "tls_key": str(key)}
    assert modules.valkey_acl.whoami(connection={**tls, **own}) == "default"
    with pytest.raises(CommandExecutionError, match="cannot be reached"):
        modules.valkey_acl.whoami(connection={**tls, **own, "tls_ca": None})  # nobody vouches for the server


# --- execution functions --------------------------------------------------------------------------------


def test_functions(modules, server):
    call = {"connection": server.connection}
    assert modules.valkey_acl.whoami(**call) == "default"
    assert modules.valkey_acl.get("alice", **call) is None
    changes = modules.valkey_acl.set("alice", password="secret", rules="~a +get", **call)
    assert set(changes) == {"alice"}
    assert modules.valkey_acl.set("alice", password="secret", rules="~a +get", **call) == {}
    assert modules.valkey_acl.get("alice", **call) == {
        "enabled": True,
        "nopass": False,
        "passwords": 1,
        "rules": "~a resetchannels -@all +get",
    }
    assert set(modules.valkey_acl.list(**call)) == {"default", "alice"}
    assert "flushall" in modules.valkey_acl.categories("dangerous", **call)
    assert "dangerous" in modules.valkey_acl.categories(**call)
    assert modules.valkey_acl.save(**call) is True
    assert modules.valkey_acl.load(**call) is True
    with pytest.raises(redis.exceptions.NoPermissionError):
        server.client("alice", "secret").execute_command("FLUSHALL")
    assert modules.valkey_acl.log(reset=True, **call)[0]["object"] == "flushall"
    assert modules.valkey_acl.log(**call) == []
    assert modules.valkey_acl.delete("alice", **call) is True
    assert modules.valkey_acl.delete("alice", **call) is False
    with pytest.raises(CommandExecutionError, match="does not let the user default be removed"):
        modules.valkey_acl.delete("default", **call)
    with pytest.raises(CommandExecutionError, match="nosuch"):
        modules.valkey_acl.categories("nosuch", **call)
    for wrong in ({"rules": "gibberish"}, {"password": ""}, {"rules": [1]}):
        with pytest.raises(SaltInvocationError):
            modules.valkey_acl.set("alice", **wrong, **call)
    with pytest.raises(SaltInvocationError, match="is empty"):
        modules.valkey_acl.dry_run("default", "", **call)
    with pytest.raises(CommandExecutionError, match="refused ACL FROB"):
        modules.valkey_acl.pipeline([["ACL", "FROB"]], **call)


# --- properties -----------------------------------------------------------------------------------------


def _known(server, rules):
    """The rules without what only a newer server knows."""
    if server.knows_databases:
        return rules
    return [rule for rule in (re.sub("(?i)(db=[0-9,]+|alldbs|resetdbs) ?", "", rule) for rule in rules) if rule]


@given(
    name=acl_rules.NAMES,
    rules=acl_rules.RULES,
    password=acl_rules.PASSWORDS,
    enabled=st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rules_are_set_as_the_server_reads_them_and_then_unchanged(modules, server, name, rules, password, enabled):
    """Set by us and set by the server itself are the same thing, one by one or in a list, and a second run agrees."""
    if name == "default" or name.startswith("salt-scratch-"):
        return
    rules = _known(server, rules)
    arguments = [f">{password}", "on" if enabled else "off", *rules]
    try:
        server.run("ACL", "SETUSER", "reference", "reset", *arguments)
    except redis.exceptions.ResponseError:
        return  # not valid for the server: a pattern after a *
    user = {"name": name, "rules": rules, "password": password, "enabled": enabled}
    modules.valkey_acl.replace([user], connection=server.connection)
    assert modules.valkey_acl.compare([user], connection=server.connection)["changes"] == {}
    copy = {**user, "name": "reference"}
    assert modules.valkey_acl.compare([copy], connection=server.connection)["changes"] == {}
    listed = modules.valkey_acl.list(connection=server.connection)
    for one in (name, "reference"):
        assert modules.valkey_acl.get(one, connection=server.connection) == listed[one]
    for command in ("get", "flushall", "client|kill", "select", "xinfo|stream"):
        words = command.split("|") + ["0"] * 2
        ours, theirs = (_verdict(server, one, words) for one in (name, "reference"))
        assert ours == theirs, command


def _verdict(server, name, words):
    try:
        return server.run("ACL", "DRYRUN", name, *words).removeprefix(f"User {name} ")
    except redis.exceptions.ResponseError as err:
        return str(err)


@given(rules=acl_rules.RULES, other=acl_rules.RULES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_users_differ_exactly_where_they_differ_for_the_server(modules, server, rules, other):
    """Equal in meaning: the server allows the same commands to both. Different: there is one that it does not."""
    rules, other = _known(server, rules), _known(server, other)
    try:
        server.run("ACL", "SETUSER", "one", "reset", *rules)
        server.run("ACL", "SETUSER", "two", "reset", *other)
    except redis.exceptions.ResponseError:
        return
    ours = modules.valkey_acl.compare([{"name": "two", "enabled": None, "rules": rules}], connection=server.connection)
    one, two = (server.line(name).split(" ")[2:] for name in ("one", "two"))
    if one == two:
        assert not ours["changes"]
    if not ours["changes"]:
        for command in (*acl_rules.COMMANDS, *acl_rules.SUBCOMMANDS):
            words = command.split("|") + ["0"] * (1 if "|" in command else 2)
            assert _verdict(server, "one", words) == _verdict(server, "two", words), command


_USERS = st.fixed_dictionaries(
    {"name": acl_rules.NAMES.filter(lambda name: name != "default" and not name.startswith("salt-scratch-"))},
    optional={
        "rules": acl_rules.RULES | acl_rules.RULES.map(" ".join),
        "password": acl_rules.PASSWORDS | st.lists(acl_rules.PASSWORDS, max_size=3),
        "enabled": st.booleans() | st.none(),
        "denies": st.just(["SHUTDOWN"]),
        "allows": st.sampled_from(["GET", "PING"]),
    },
)


@given(users=st.lists(_USERS, min_size=1, max_size=4, unique_by=lambda user: user["name"]), again=_USERS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_users_are_as_managed_or_nothing_has_changed(quick_states, server, users, again):
    """
    `managed` for all of them, `present` for each: a dry run foresees the result or says what it has not checked, a
    second run has nothing to do.
    """
    call = {"connection": server.connection}
    both = [
        ("valkey_acl.managed", {"name": "all", "users": users, "remove_unlisted": True}),
        ("valkey_acl.present", {**again, "name": users[0]["name"]}),
    ]
    for function, declared in both:
        before = server.run("ACL", "LIST")
        dry = quick_states(function, **declared, **call, test=True)
        assert server.run("ACL", "LIST") == before
        real = quick_states(function, **declared, **call)
        foreseen = (dry["result"] is False) is (real["result"] is False)
        assert foreseen or (real["result"] is False and " must be " in real["comment"]), (dry, real)
        assert foreseen or "Not checked in a dry run" in dry["comment"]
        if real["result"] is False:
            assert real["comment"]
            assert (real["changes"], server.run("ACL", "LIST")) == ({}, before)
            continue
        assert real["changes"] == dry["changes"]
        assert sorted(server.run("ACL", "LIST")) == sorted(
            line for line in server.aclfile.read_bytes().decode().split("\n") if line
        )
        for test in (True, False):
            assert quick_states(function, **declared, **call, test=test)["changes"] == {}
