"""What is computed about PostgreSQL without a server: verifiers, values of settings, privileges, memberships."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsql_core import list_settings, memberships, privileges, setting_values, verifiers
from pgsql_core.errors import InvalidArgumentError

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(PASSWORDS, st.binary(min_size=1, max_size=40), st.integers(1, 50))
def test_own_verifiers(password, salt, iterations):
    verifier = verifiers.scram(password, salt, iterations)
    assert verifiers.SCRAM_VERIFIER.fullmatch(verifier)
    assert verifiers.matches(password, verifier, "r")


@pytest.mark.parametrize(
    "verifier", ("", "abc", "SCRAM-SHA-256$4096:x$y:z", f"SCRAM-SHA-256$1:A${'A' * 44}:{'A' * 44}")
)
def test_no_verifier_matches_nothing(verifier):
    assert not verifiers.matches("abc", verifier, "r")


@pytest.mark.parametrize(
    ("value", "unit", "vartype", "canonical"),
    (
        ("16MB", "kB", "integer", 16384),
        ("16384", "kB", "integer", 16384),
        ("1.5MB", "kB", "integer", 1536),
        ("1GB", "8kB", "integer", 131072),
        ("64", "8kB", "integer", 64),
        ("5min", "s", "integer", 300),
        ("1d", "min", "integer", 1440),
        ("0.5ms", "ms", "real", 0.5),
        ("2", None, "real", 2.0),
        ("1e3", None, "real", 1000.0),
        ("-1", "kB", "integer", -1),
        ("soon", "s", "integer", "soon"),
        ("5 parsecs", "s", "integer", "5 parsecs"),
    ),
)
def test_numbers(value, unit, vartype, canonical):
    assert setting_values.canonical("a", value, (vartype, unit)) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    (("on", "on"), ("TRUE", "on"), ("y", "on"), ("1", "on"), ("off", "off"), ("of", "off"), ("n", "off"), ("o", "o")),
)
def test_booleans(text, canonical):
    assert setting_values.canonical("a", text, ("bool", None)) == canonical


@pytest.mark.parametrize(
    ("text", "entries"),
    (
        ("", []),
        (None, []),
        ("a", ["a"]),
        ("a,b , c", ["a", "b", "c"]),
        ('"$user", public', ["$user", "public"]),
        ('"a, b","c ""d"""', ["a, b", 'c "d"']),
        (["a", 1], ["a", "1"]),
    ),
)
def test_lists(text, entries):
    assert list_settings.entries_of(text) == entries


def test_privileges():
    assert privileges.normal({"public": ["temp", "Connect"], "x": []}, privileges.ON_DATABASES) == {
        "PUBLIC": ["CONNECT", "TEMPORARY"],
        "x": [],
    }
    assert privileges.normal({"x": ["ALL"]}, privileges.ON_SCHEMAS) == {"x": ["CREATE", "USAGE"]}
    with pytest.raises(InvalidArgumentError, match=r"No such privilege: SELECT\."):
        privileges.normal({"x": ["SELECT"]}, privileges.ON_DATABASES)


@pytest.mark.parametrize(
    ("held", "asked", "result"),
    (
        ("localhost", "10.88.0.1", ["localhost", "10.88.0.1"]),
        ("localhost, 10.88.0.1", "10.88.0.1", ["localhost", "10.88.0.1"]),
        ("*", "10.88.0.1", ["*"]),
        ("0.0.0.0", "10.88.0.1", ["0.0.0.0"]),
        ("::", "10.88.0.1", ["::", "10.88.0.1"]),
        ("::", "fd00::1", ["::"]),
        ("0.0.0.0", "fd00::1", ["0.0.0.0", "fd00::1"]),
        ("", "10.88.0.1", ["10.88.0.1"]),
    ),
)
def test_list_of_addresses(held, asked, result):
    assert list_settings.including("listen_addresses", held, [asked]) == result


def test_lists_of_libraries():
    held = '"$libdir/vchord", pg_cron.so'
    assert list_settings.including("shared_preload_libraries", held, ["vchord.so", "pg_cron"]) == [
        "$libdir/vchord",
        "pg_cron.so",
    ]
    assert list_settings.excluding("shared_preload_libraries", held, ["vchord.so"]) == ["pg_cron.so"]
    assert list_settings.including("temp_tablespaces", "a", ["b"]) == ["a", "b"]


def test_membership_options_in_both_forms():
    expected = {"a": {}, "b": {"admin": True}}
    assert memberships.options(["a", {"b": {"admin": True}}]) == expected
    assert memberships.options({"a": None, "b": {"admin": True}}) == expected
    with pytest.raises(InvalidArgumentError):
        memberships.options([{"a": {"sudo": True}}])


def test_several_grants_of_a_role_are_one_membership():
    rows = [["a", False, True, None], ["a", True, False, None], ["b", False, None, None]]
    assert memberships.held(rows) == {"a": {"admin": True, "inherit": True}, "b": {"admin": False}}


def test_settings_are_compared_by_what_they_mean_and_reset_by_name():
    kinds = {"work_mem": ("integer", "kB")}
    current = {"work_mem": "16384kB", "application_name": "a"}
    desired = {"Work_Mem": "16MB", "application_name": "b", "jit": None}
    assert setting_values.changes(current, desired, lambda: kinds) == {"application_name": {"old": "a", "new": "b"}}
    assert setting_values.to_reset(current, True) == {"work_mem": None, "application_name": None}
    assert setting_values.to_reset(current, ["WORK_MEM"]) == {"application_name": None}


def test_the_server_is_not_asked_for_kinds_where_the_texts_are_equal():
    assert setting_values.changes({"work_mem": "16MB"}, {"work_mem": "16MB", "jit": None}, None) == {}
