"""The decisions of `valkey_acl` that need no server: how rules are read, and what they mean."""

import pytest
from salt.exceptions import SaltInvocationError

from _modules import valkey_acl

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
TABLE = valkey_acl._parsed_commands(COMMANDS)


def normal_form(rules):
    return " ".join(valkey_acl._user_rules(valkey_acl._parse(valkey_acl._tokens(rules))))


def allowed(rules):
    user = valkey_acl._parse(valkey_acl._tokens(rules))
    return set(valkey_acl._allowed(user["selectors"][0], TABLE))


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
    with pytest.raises(SaltInvocationError):
        normal_form(rules)


def test_a_password_is_never_in_a_message():
    for rules in (">secret word", [">x", "secret"], "<secret word"):
        with pytest.raises(SaltInvocationError) as failure:
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


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    (
        ("app:*", "app:1", True),
        ("app:*", "App:1", False),
        ("a?c", "abc", True),
        ("[^a]b", "cb", True),
        ("[^a]b", "ab", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"a\?", "a?", True),
        ("socket.io#/#*", "socket.io#/#room#", True),
        ("*", "", True),
    ),
)
def test_globs_are_the_servers(pattern, text, matches):
    assert valkey_acl._matches(pattern, text) is matches


@pytest.mark.parametrize(
    ("info", "product"),
    (
        ({"redis_version": "7.2.4", "valkey_version": "8.1.1"}, "Valkey"),
        ({"redis_version": "8.0.2"}, "Redis"),
        ({"redis_version": "7.0.15"}, "Redis"),
    ),
)
def test_servers_that_are_new_enough(info, product):
    assert valkey_acl._product(info, "Valkey at h:1")["product"] == product


def test_server_that_is_too_old_is_named():
    with pytest.raises(Exception, match=r"Redis 6\.2\.14 at h:1 is too old"):
        valkey_acl._product({"redis_version": "6.2.14"}, "Valkey at h:1")
