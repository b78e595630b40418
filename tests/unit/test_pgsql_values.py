"""What `pgsql` computes without a server: verifiers and values of settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import SaltInvocationError

from _modules import pgsql

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(PASSWORDS, st.binary(min_size=1, max_size=40), st.integers(1, 50))
def test_own_verifiers(password, salt, iterations):
    verifier = pgsql._scram_verifier(password, salt, iterations)
    assert pgsql.SCRAM_VERIFIER.fullmatch(verifier)
    assert pgsql.password_matches(password, verifier, "r")


@pytest.mark.parametrize(
    "verifier", ("", "abc", "SCRAM-SHA-256$4096:x$y:z", f"SCRAM-SHA-256$1:A${'A' * 44}:{'A' * 44}")
)
def test_no_verifier_matches_nothing(verifier):
    assert not pgsql.password_matches("abc", verifier, "r")


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
    assert pgsql._number(value, unit, vartype) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    (("on", "on"), ("TRUE", "on"), ("y", "on"), ("1", "on"), ("off", "off"), ("of", "off"), ("n", "off"), ("o", "o")),
)
def test_booleans(text, canonical):
    assert pgsql._boolean(text) == canonical


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
    assert pgsql._as_list(text) == entries


def test_privileges():
    assert pgsql.normal_privileges({"public": ["temp", "Connect"], "x": []}) == {
        "PUBLIC": ["CONNECT", "TEMPORARY"],
        "x": [],
    }
    assert pgsql.normal_privileges({"x": ["ALL"]}, pgsql.SCHEMA_PRIVILEGES) == {"x": ["CREATE", "USAGE"]}
    with pytest.raises(SaltInvocationError, match=r"No such privilege: SELECT\."):
        pgsql.normal_privileges({"x": ["SELECT"]})
