"""How the arguments of a connection to PostgreSQL are merged, and where its password comes from."""

import pytest

from pgsql_core import connection, errors, features, passwords


def test_later_layers_win_and_bring_their_own_password():
    merged = connection.merged({"port": 1, "password": "a"}, None, {"password_file": "/b", "user": None})
    assert (merged["port"], merged["user"], merged["os_user"]) == (1, "postgres", "postgres")
    assert connection.password_sources(merged) == {"password": None, "password_pillar": None, "password_file": "/b"}


def test_only_a_socket_has_a_user_of_the_system():
    assert connection.merged({"host": "db.example.org"})["os_user"] is None
    with pytest.raises(errors.InvalidArgumentError, match="Unknown in a PostgreSQL connection: prot"):
        connection.merged({"prot": 1})


@pytest.mark.parametrize(
    ("path", "found"), (("a:b", "x"), ("a:list:1", "z"), ("a:list:key", "v"), ("a:7", "seven"), ("a:list:0:key", "v"))
)
def test_passwords_in_the_pillar(path, found):
    pillar = {"a": {"b": "x", "list": [{"key": "v"}, "z"], 7: "seven"}}
    assert passwords.given(pillar, password_pillar=path) == found


@pytest.mark.parametrize("path", ("b", "a:c", "a:b:c", "a:list:5", "a:list:other"))
def test_a_path_that_the_pillar_lacks(path):
    with pytest.raises(errors.InvalidArgumentError, match=f"The pillar has no {path}"):
        passwords.given({"a": {"b": "x", "list": [{"key": "v"}]}}, password_pillar=path)


def test_passwords_in_files(tmp_path):
    (tmp_path / "p").write_text("abc\n\n")
    assert passwords.given({}, password_file=str(tmp_path / "p")) == "abc\n"
    assert passwords.given({}) is None
    with pytest.raises(errors.ServerError, match="Cannot read"):
        passwords.given({}, password_file=str(tmp_path / "absent"))
    with pytest.raises(errors.InvalidArgumentError, match="Give one of"):
        passwords.given({}, password="a", password_pillar="b")


def test_what_a_server_is_too_old_for():
    needed = features.needed(member_of=[{"a": {"admin": True, "set": False}}], provider="icu")
    features.check(needed, 160000)
    with pytest.raises(errors.InvalidArgumentError, match=r"option set of a membership needs PostgreSQL 16, and .* 15"):
        features.check(needed, 150004)
    assert features.needed(member_of=["a"], provider="libc") == {}


def test_errors_become_those_of_the_caller():
    @errors.raised_as(RuntimeError, ValueError)
    def fail(error):
        raise error

    with pytest.raises(ValueError, match="wrong"):
        fail(errors.InvalidArgumentError("wrong"))
    with pytest.raises(RuntimeError, match="down") as caught:
        fail(errors.ServerError("down", "server"))
    assert (caught.value.absent, caught.value.sqlstate) == ("server", None)
