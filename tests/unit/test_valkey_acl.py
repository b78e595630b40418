"""What `valkey_core` decides about ACL users: how rules are read, what they mean, and what the server is asked."""

import hashlib

import pytest
from hypothesis import given, settings

from tests import acl_rules
from valkey_core import acl_assertions, acl_commands, acl_file, acl_users
from valkey_core import acl_rules as grammar
from valkey_core.errors import InvalidArgumentError, ServerError

# A piece of the server's table as COMMAND gives it: name, arity, flags, keys, categories, tips, specs, subcommands.
COMMANDS = [
    ["get", 2, [], 1, 1, 1, ["@read", "@string"], [], [], []],
    ["set", -3, [], 1, 1, 1, ["@write", "@string"], [], [], []],
    ["select", 2, [], 0, 0, 0, ["@connection"], [], [], []],
    [
        "client",
        -2,
        [],
        0,
        0,
        0,
        ["@slow"],
        [],
        [],
        [
            ["client|kill", -3, [], 0, 0, 0, ["@admin"], [], [], []],
            ["client|list", -2, [], 0, 0, 0, ["@admin"], [], [], []],
            ["client|help", 2, [], 0, 0, 0, ["@slow"], [], [], []],
        ],
    ],
]
TABLE = acl_commands.table(COMMANDS)


def normal_form(rules):
    return " ".join(grammar.user_rules(parsed(rules)))


def parsed(rules):
    return grammar.parse(grammar.split_rules(rules))


def allowed(rules):
    return set(acl_commands.reached(parsed(rules)["selectors"][0], TABLE))


@pytest.mark.parametrize(
    ("rules", "normal"),
    (
        ("", "resetchannels -@all"),
        ("+GET +set -get", "resetchannels -@all +set -get"),
        ("+client|kill +client|list -client", "resetchannels -@all -client"),
        ("%R~a %W~a", "~a resetchannels -@all"),
        ("%rw~b %R~a", "%R~a ~b resetchannels -@all"),
        ("~a ~*", "~* resetchannels -@all"),
        ("%R~* %W~* ~a", "~* resetchannels -@all"),
        ("&b &a &*", "&* -@all"),
        ("&b &a", "resetchannels &a &b -@all"),
        ("allkeys allchannels allcommands", "~* &* +@all"),
        ("+@all -get +@all", "resetchannels +@all"),
        ("~a (~b +get) (&c)", "~a resetchannels -@all (~b resetchannels -@all +get) (resetchannels &c -@all)"),
        ("( ~b +get ) clearselectors", "resetchannels -@all"),
        ("skip-sanitize-payload", "skip-sanitize-payload resetchannels -@all"),
        ("db=3,1", "resetchannels db=1,3 -@all"),
        ("db=1 resetdbs", "resetchannels resetdbs -@all"),
        ("db=1 alldbs", "resetchannels -@all"),
        ("~a +get reset", "resetchannels -@all"),
    ),
)
def test_normal_form(rules, normal):
    assert normal_form(rules) == normal
    assert normal_form(normal) == normal


@pytest.mark.parametrize(
    "rules",
    ("x", "~a b", "%~a", "%X~a", "%R", "&", "+", "(~a", "(~a (~b))", "(on)", "db=x", "db=1 db=2", "#abc", ["~a", 1]),
    ids=str,
)
def test_what_is_not_grammar(rules):
    with pytest.raises(InvalidArgumentError):
        normal_form(rules)


def test_a_password_is_never_in_a_message():
    for rules in (">secret word", [">x", "secret"], "<secret word"):
        with pytest.raises(InvalidArgumentError) as failure:
            normal_form([*rules, "%"] if isinstance(rules, list) else rules)
        assert "word" not in str(failure.value)
        assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("rules", "expected"),
    (
        ("+@all", {"get", "set", "select", "client|kill", "client|list", "client|help"}),
        ("+@string -set", {"get"}),
        ("-set +@string", {"get", "set"}),
        ("+client", {"client|kill", "client|list", "client|help"}),
        ("+client -client|kill", {"client|list", "client|help"}),
        ("+@admin", {"client|kill", "client|list"}),
        # The command itself is in it, and takes its subcommands along.
        ("+@slow", {"client|kill", "client|list", "client|help"}),
        ("+select|0 +select|1", {"select|0", "select|1"}),
        ("+select|0 +select", {"select"}),
        ("+select|0 -select", set()),
        ("+select|0 -@connection", set()),
    ),
)
def test_allowed_commands(rules, expected):
    assert allowed(rules) == expected


def commands():
    return TABLE


def not_asked():
    raise AssertionError("the server's table of commands is long, and not needed here")


@settings(deadline=None)
@given(rules=acl_rules.RULES)
def test_any_rules_have_one_normal_form(rules):
    """Read again, as from the server's list or file, it is the same user."""
    user = parsed(rules)
    normal = grammar.user_rules(user)
    again = grammar.parse(grammar.split_rules(" ".join(normal)))
    assert again == user
    _, listed = grammar.parse_line(" ".join(["user", "alice", *grammar.setuser_arguments(user)]))
    assert listed == user
    assert acl_users.changed({"alice": again}, {"alice": user}, not_asked) == []


@settings(deadline=None)
@given(rules=acl_rules.RULES, password=acl_rules.PASSWORDS)
def test_any_reply_of_getuser_is_read_as_the_list_is(rules, password):
    user = grammar.parse([*rules, "on", f">{password}"])
    root, *others = (reply_of(selector) for selector in user["selectors"])
    flags = ["on", "sanitize-payload" if user["sanitize"] else "skip-sanitize-payload"]
    reply = {"flags": flags, "passwords": sorted(user["passwords"]), **root, "selectors": others}
    assert grammar.parse_reply(reply) == user
    reply["selectors"] = [[word for pair in other.items() for word in pair] for other in others]  # as of RESP2
    assert grammar.parse_reply(reply) == user


def reply_of(selector):
    """A selector as ACL GETUSER of Valkey 9.1 describes it."""
    keys = (f"~{key}" if rights == "RW" else f"%{rights}~{key}" for key, rights in selector["keys"].items())
    databases = "alldbs"
    if selector["dbs"] is not None:
        databases = "db=" + ",".join(map(str, selector["dbs"])) if selector["dbs"] else ""
    return {
        "commands": " ".join(["+@all" if selector["all"] else "-@all", *selector["commands"]]),
        "keys": " ".join(keys),
        "channels": " ".join(f"&{channel}" for channel in selector["channels"]),
        "databases": databases,
    }


def test_names_that_the_server_does_not_know():
    user = parsed("+get +@string +select|1 +nosuch -@other (+client|frob +client|kill)")
    assert acl_commands.unknown(user, TABLE) == ["nosuch", "@other", "client|frob"]


# -- declared against current ----------------------------------------------------------------------------


def digest(password):
    return hashlib.sha256(password.encode()).hexdigest()


@pytest.mark.parametrize(
    ("users", "said"),
    (
        ([{}], "name without blanks"),
        ([{"name": "a b"}], "name without blanks"),
        ([{"name": "a"}, {"name": "a"}], "listed twice"),
        ([{"name": "salt-scratch-x"}], "reserved"),
        ([{"name": "a", "password_pilar": "x"}], "unknown settings: password_pilar"),
        # These counted as true.
        ([{"name": "a", "enabled": "false"}], "enabled is true or false, not 'false'"),
        ([{"name": "a", "nopass": "false"}], "nopass is true or false, not 'false'"),
    ),
)
def test_lists_that_cannot_be(users, said):
    with pytest.raises(InvalidArgumentError, match=said):
        acl_users.check(users)


CURRENT = grammar.parse(["off", f"#{digest('old')}", "~a", "+get"])


@pytest.mark.parametrize(
    ("user", "hashes", "expected"),
    (
        ({}, None, {"enabled": True}),
        ({"enabled": None}, None, {}),
        ({"enabled": True, "rules": "off ~a +get"}, None, {}),  # the rules win
        ({"enabled": None}, {digest("new")}, {"passwords": {digest("new")}}),
        ({"enabled": None, "keep_passwords": True}, {digest("new")}, {"passwords": {digest("old"), digest("new")}}),
        ({"enabled": None, "nopass": True}, None, {"nopass": True, "passwords": set()}),
        ({"enabled": None, "rules": "~b"}, None, {"selectors": parsed("~b")["selectors"]}),
    ),
)
def test_what_is_declared_over_what_there_is(user, hashes, expected):
    assert acl_users.definition(user, CURRENT, hashes) == {**CURRENT, **expected}


@pytest.mark.parametrize(
    ("user", "hashes"), (({"nopass": True}, {digest("a")}), ({"nopass": True, "keep_passwords": True}, None))
)
def test_a_password_and_none_exclude_each_other(user, hashes):
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        acl_users.definition(user, CURRENT, hashes)


@pytest.mark.parametrize(
    ("rules", "other", "same"),
    (
        ("+get +set", "+set +get", True),
        ("+@string", "+get +set", True),
        ("+@string -set", "+get", True),
        ("+client", "+client|kill +client|list", False),
        ("~a +get", "~b +get", False),
        ("(~a +get) (~b +set)", "(~b +set) (~a +@string -set)", True),
        ("skip-sanitize-payload", "", False),
    ),
)
def test_rules_of_the_same_meaning(rules, other, same):
    one, two = parsed(rules), parsed(other)
    assert acl_users.same_rules(one, two, commands) is same
    assert acl_users.same_rules({**one, "enabled": True, "passwords": {digest("a")}}, two, commands) is same
    assert acl_users.changed({"alice": one}, {"alice": two}, commands) == ([] if same else ["alice"])
    assert acl_users.change(two, one, commands)["new"].keys() == (set() if same else {"rules"})


def test_the_servers_commands_are_asked_for_only_where_texts_differ():
    one = parsed("~a +get")
    assert acl_users.changed({"a": one, "new": one, "b": one}, {"a": one, "b": parsed("~b +get")}, not_asked) == [
        "new",
        "b",
    ]
    assert acl_users.same_rules(one, None, not_asked) is False


def test_only_that_a_password_differs_is_shown():
    change = acl_users.change(CURRENT, {**CURRENT, "passwords": {digest("new")}}, not_asked)
    assert change == {"old": {}, "new": {"password": "changed"}}
    assert digest("old") not in str(acl_users.described(CURRENT))


def test_unlisted_users_go_but_default_ourselves_and_scratch_users():
    current = dict.fromkeys(("default", "boss", "stranger", "salt-scratch-1", "listed"), CURRENT)
    listed = {"listed": CURRENT}
    assert acl_users.removed(listed, current, None, True, "boss") == (["stranger"], ["boss", "default"])
    assert acl_users.removed(listed, current, ["stranger", "nobody"], False, "boss") == (["stranger"], [])


def test_who_can_manage_users():
    names = ("getuser", "list", "setuser", "whoami")
    subcommands = [[f"acl|{name}", 2, [], 0, 0, 0, [], [], [], []] for name in names]
    table = acl_commands.table([["acl", -2, [], 0, 0, 0, [], [], [], subcommands]])
    assert acl_users.manages_users(parsed("on +@all"), table)
    assert acl_users.manages_users(parsed("on (+acl|getuser +acl|list) (+acl|setuser +acl|whoami)"), table)
    assert not acl_users.manages_users(parsed("off +@all"), table)
    assert not acl_users.manages_users(parsed("on +@all -acl|setuser"), table)


# -- allows and denies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "asked"),
    (
        ("GET", [["get", "0"]]),
        ("get a", [["get", "a"]]),
        (["SET", "a key", "x"], [["set", "a key", "x"]]),
        ("CLIENT", [["client", "kill", "0"], ["client", "list"]]),  # HELP harms nobody
        ("CLIENT KILL", [["client", "KILL", "0"]]),
        ("CLIENT FROB", [["client", "FROB"]]),
        ("NOSUCH", [["nosuch"]]),
    ),
    ids=str,
)
def test_what_the_server_is_asked(command, asked):
    lines = acl_assertions.lines(acl_assertions.words(command), TABLE)
    assert [line["words"] for line in lines] == asked


NO_COMMAND = "User alice has no permissions to run the 'get' command"
NO_KEY = "User alice has no permissions to access the '0' key"


@pytest.mark.parametrize(
    ("reply", "bare", "reason"),
    (
        ("OK", True, ""),
        (NO_COMMAND, True, NO_COMMAND[11:]),
        (NO_KEY, True, ""),  # about the padding
        (NO_KEY, False, NO_KEY[11:]),
        (Exception("Command 'nosuch' not found"), False, "Command 'nosuch' not found"),
    ),
)
def test_what_the_server_answers(reply, bare, reason):
    assert acl_assertions.denial({"words": ["get", "0"], "bare": bare}, reply) == reason


def test_an_error_is_no_verdict():
    with pytest.raises(ServerError, match="ACL DRYRUN of get failed: wrong number of arguments"):
        acl_assertions.denial({"words": ["get"], "bare": False}, Exception("wrong number of arguments"))


def test_sentences_about_what_does_not_hold():
    pairs = acl_assertions.of({"allows": ["GET", ["SET", "a", "x"]], "denies": ["CLIENT", "NOSUCH"]})
    denials = [[""], ["has none"], ["has none", ""], ["has none"]]
    assert acl_assertions.broken("alice", pairs, denials) == [
        "SET a x must be allowed to alice, but is denied: has none.",
        "CLIENT must be denied to alice, but is allowed.",
    ]
    assert acl_assertions.of({}) == []
    with pytest.raises(InvalidArgumentError, match="is empty"):
        acl_assertions.of({"allows": [""]})


# -- files -----------------------------------------------------------------------------------------------

FILE = f"""\
# a comment
requirepass "an old one"
requirepass "secret"
user alice on #{digest("alice")} ~a resetchannels -@all +get\r
user stranger\u00a0x off  nopass ~b\u00a0c &* +@all
username x
"""


def test_users_of_a_file():
    found = acl_file.lines_of(FILE.split("\n"))
    assert set(found["users"]) == {"alice", "stranger\u00a0x"}
    users = acl_file.users_of(found, None, False)
    assert users["alice"] == grammar.parse(["on", f"#{digest('alice')}", "~a", "+get"])
    assert users["stranger\u00a0x"]["selectors"][0]["keys"] == {"b\u00a0c": "RW"}
    assert set(acl_file.users_of(found, ["alice", "nobody"], False)) == {"alice", "default"}


@pytest.mark.parametrize(
    ("is_acl_file", "nopass", "held"), ((True, True, set()), (False, False, {digest("secret")})), ids=["acl", "config"]
)
def test_default_where_no_file_has_it(is_acl_file, nopass, held):
    default = acl_file.users_of(acl_file.lines_of(FILE.split("\n")), [], is_acl_file)["default"]
    assert (default["enabled"], default["nopass"], default["passwords"]) == (True, nopass, held)
    assert default["selectors"] == parsed("~* &* +@all")["selectors"]


def test_a_file_that_is_no_grammar_holds_no_users():
    assert acl_file.users_of(acl_file.lines_of(["user alice frob"]), None, True) == {}
