"""What follows from the roles of a host, and which the formula cannot make yet."""

import pytest

from immich_core.settings import roles

ALL = ["postgres", "valkey", "server", "microservices", "machine_learning", "proxy"]
POSTGRES, VALKEY, DEFAULT = ("postgres", "password"), ("valkey", "password"), ("valkey", "admin_password")


def settings(*names, valkey=True):
    return {"roles": list(names), "postgres": {"managed": True}, "valkey": {"managed": valkey}}


@pytest.mark.parametrize(
    ("host", "expected"),
    (
        (settings(*ALL), [POSTGRES, VALKEY, DEFAULT]),
        (settings(*ALL, valkey=False), [POSTGRES, VALKEY]),
        (settings("postgres"), [POSTGRES]),
        (settings("valkey"), [VALKEY, DEFAULT]),
        (settings("server", "microservices"), [POSTGRES, VALKEY]),
        (settings("machine_learning"), []),
        (settings("proxy"), []),
    ),
)
def test_a_host_needs_the_passwords_of_its_roles(host, expected):
    assert roles.passwords(host) == expected


def test_a_server_that_is_managed_is_here_where_its_component_is():
    both = ["identity", "postgres", "valkey"]
    assert roles.here(settings(*ALL), both) == ["postgres", "valkey"]
    assert roles.here(settings(*ALL, valkey=False), both) == ["postgres"]
    assert roles.here(settings("valkey"), ["identity", "valkey"]) == ["valkey"]
    assert roles.here(settings("proxy"), ["identity"]) == []


@pytest.mark.parametrize("names", (ALL, ALL[:4], ["postgres"], ["valkey"], ["postgres", "valkey", "proxy"], ["proxy"]))
def test_what_the_formula_can_make(names):
    assert list(roles.check_roles(settings(*names))) == []


@pytest.mark.parametrize(
    ("names", "path", "words"),
    (
        ([], ("roles",), "must name a role"),
        (["postgres", "valkey", "postgres"], ("roles", 2), "second postgres"),
        (["server", "postgres", "valkey"], ("roles",), "lacks microservices:"),
        (["microservices"], ("roles",), "lacks server and postgres and valkey:"),
        (["machine_learning"], ("roles",), "on different hosts yet"),
        (["server", "microservices", "valkey"], ("roles",), "immich:postgres:managed: false"),
    ),
)
def test_what_the_formula_cannot_make_yet(names, path, words):
    ((found, message),) = roles.check_roles(settings(*names))
    assert found == path
    assert words in message
