"""Connections of `valkey_core`: where their arguments come from, and what a server says about itself."""

import sys

import pytest

from valkey_core import connection, errors, passwords, replies, session
from valkey_core.errors import InvalidArgumentError, RefusedError, ServerError


def nothing(path):
    """A pillar without passwords."""


@pytest.mark.parametrize(
    ("layers", "expected"),
    (
        ((None, None), {}),
        (({"host": "a", "port": 1}, {"host": "b"}), {"host": "b", "port": 1}),
        (({"unix_socket": "/s"}, {"host": "b"}), {"host": "b"}),
        (({"host": "a"}, {"unix_socket": "/s"}), {"unix_socket": "/s"}),
        (({"password": "x", "username": "u"}, {"password_file": "/f"}), {"username": "u", "password_file": "/f"}),
        (({"password_pillar": "a:b"}, {"timeout": 3}, {"password": "y"}), {"timeout": 3, "password": "y"}),
        (({"password": "x"}, {"password_file": None}), {"password": "x", "password_file": None}),
    ),
)
def test_what_is_nearer_wins_and_one_kind_takes_the_place_of_another(layers, expected):
    assert connection.merged(*layers) == expected


def test_arguments_that_do_not_exist_are_named():
    with pytest.raises(InvalidArgumentError, match="unix_sokcet"):
        connection.merged({"unix_sokcet": "/s"})


def test_each_of_several_connections_is_laid_over_the_same_layers():
    both = connection.candidates([{"username": "u"}, None], [{"port": 1}])
    assert both == [{"port": 1, "username": "u"}, {"port": 1}]
    assert connection.candidates({"username": "u"}, [None]) == [{"username": "u"}]


@pytest.mark.parametrize(
    ("arguments", "where"),
    (
        ({}, "Valkey at 127.0.0.1:6379"),
        ({"host": "h", "port": 1}, "Valkey at h:1"),
        ({"unix_socket": "/s", "host": "h"}, "Valkey at /s"),
    ),
)
def test_name_of_a_server(arguments, where):
    assert connection.where(arguments) == where


def test_what_redis_py_is_given():
    plain = connection.client_arguments({"password": "x"}, nothing)
    assert (plain["host"], plain["port"], plain["username"], plain["password"]) == ("127.0.0.1", 6379, None, "x")
    assert plain["socket_timeout"] == plain["socket_connect_timeout"] == 5
    assert "ssl" not in plain
    over_tls = connection.client_arguments({"tls": True, "tls_ca": "/ca", "timeout": 2}, nothing)
    assert (over_tls["ssl"], over_tls["ssl_ca_certs"], over_tls["socket_timeout"]) == (True, "/ca", 2)
    by_socket = connection.client_arguments({"unix_socket": "/s", "tls": True}, nothing)
    assert by_socket["unix_socket_path"] == "/s"
    assert not {"host", "ssl"} & set(by_socket)


def test_passwords_of_a_connection(tmp_path):
    file = tmp_path / "password"
    file.write_text(" of a file\n")
    pillar = {"one": "of the pillar", "list": ["first", "second"], "number": 1, "empty": []}.get
    assert connection.password({}, pillar) is None
    assert connection.password({"password": 12}, pillar) == "12"
    assert connection.password({"password_file": str(file)}, pillar) == " of a file"
    assert connection.password({"password_pillar": "one"}, pillar) == "of the pillar"
    assert connection.password({"password_pillar": "list"}, pillar) == "first"
    file.write_text("\n")
    for wrong in ({"password_file": str(file)}, {"password_file": "/not/there"}, {"password_pillar": "number"}):
        # Another connection may have one that is accepted.
        with pytest.raises(RefusedError):
            connection.password(wrong, pillar)


def test_declared_passwords_of_a_user():
    pillar = {"list": ["first", "second"]}.get
    a, first, second = map(passwords.sha256, ("a", "first", "second"))
    assert passwords.declared({"name": "alice"}, pillar) is None
    assert passwords.declared({"password": ["a"], "password_pillar": "list"}, pillar) == {a, first, second}
    assert passwords.declared({"password_hash": f"#{a.upper()}"}, pillar) == {a}
    assert passwords.declared({"password": []}, pillar) == set()
    for wrong in ({"password": ""}, {"password": 1}, {"password_hash": "abc"}, {"password_pillar": "other"}):
        with pytest.raises(InvalidArgumentError):
            passwords.declared(wrong, pillar)


def test_redis_py_that_is_installed_in_the_same_run_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    assert session.missing_library() == "The Python library redis is missing."
    monkeypatch.undo()
    assert session.missing_library() == ""
    import redis

    monkeypatch.setattr(redis, "__version__", "4.6.0")
    assert session.missing_library() == "The Python library redis is older than 5.0."


class FailureError(Exception):
    """What a caller raises for errors of the server."""


@pytest.mark.parametrize(
    ("error", "attributes"),
    (
        (errors.UnreachableError("x"), {"unreachable": True}),
        (errors.RefusedError("x"), {"refused": True}),
        (errors.BusyError("Valkey at h:1", "BUSY … FUNCTION KILL or SHUTDOWN NOSAVE"), {"remedy": "FUNCTION KILL"}),
        (errors.BusyError("Valkey at h:1", "BUSY … SCRIPT KILL or SHUTDOWN NOSAVE"), {"remedy": "SCRIPT KILL"}),
        (errors.ServerError("x"), {}),
    ),
)
def test_errors_reach_the_caller_with_what_distinguishes_them(error, attributes):
    with pytest.raises(FailureError) as caught, errors.raised_as(FailureError, ValueError):
        raise error
    assert str(caught.value) == str(error)
    assert vars(caught.value) == attributes


def test_wrong_arguments_are_no_failure():
    with pytest.raises(ValueError, match="x"), errors.raised_as(FailureError, ValueError):
        raise InvalidArgumentError("x")


@pytest.mark.parametrize(
    ("info", "product"),
    (
        ({"redis_version": "7.2.4", "valkey_version": "8.1.1"}, "Valkey"),
        ({"redis_version": "8.0.2"}, "Redis"),
        ({"redis_version": "7.0.15"}, "Redis"),
    ),
)
def test_servers_that_are_new_enough(info, product):
    assert replies.product(info, "Valkey at h:1")["product"] == product


def test_server_that_is_too_old_is_named():
    with pytest.raises(ServerError, match=r"Redis 6\.2\.14 at h:1 is too old"):
        replies.product({"redis_version": "6.2.14"}, "Valkey at h:1")


@pytest.mark.parametrize(
    ("product", "version", "known"), (("Valkey", "9.1.0", True), ("Valkey", "8.1.6", False), ("Redis", "9.1.0", False))
)
def test_servers_with_databases_in_their_rules(product, version, known):
    assert replies.knows_databases({"product": product, "version": version}) is known
