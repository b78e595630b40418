"""States of accounts and libraries, where Immich refuses what they ask for."""

import pytest
from salt.exceptions import CommandExecutionError

from _modules import immich
from _states import immich_account, immich_library
from immich_core.obstacles import accounts
from immich_io import api
from tests.accounts import BEN


class Immich:
    """As much of ``api.Client`` as the states call, on a server that has accounts and libraries."""

    def __init__(self):
        self.readable, self.scanned, self._libraries = False, [], []

    def users(self):
        return [BEN]

    def libraries(self):
        return self._libraries

    def create_library(self, fields):
        made = {"id": str(len(self._libraries)), "importPaths": [], "exclusionPatterns": [], **fields}
        self._libraries.append(made)
        return made

    def update_library(self, identifier, fields):
        if not self.readable:
            raise api.ApiError("Invalid import path: Lacking read permission for folder", 400)
        self._libraries[int(identifier)].update(fields)

    def scan_library(self, identifier):
        self.scanned.append(identifier)


@pytest.fixture
def server(monkeypatch):
    server = Immich()
    monkeypatch.setattr(immich_library.api_key, "required_client", lambda *_: server)
    monkeypatch.setattr(immich_library, "__opts__", {"test": False}, raising=False)
    return server


def test_the_name_of_a_library_that_has_the_folder_is_one_printable_line(server):
    server.create_library({"ownerId": "another", "name": "x\x1b]0;y\x07\nz", "importPaths": ["/mnt/photos"]})
    comment = immich_library.present("/mnt/photos", BEN["email"])["comment"]
    assert "in a library of another account, x z, and Immich cannot give a library to another one" in comment


def test_a_dry_run_does_not_know_whether_an_owner_will_be_there(monkeypatch, server):
    for test, result, words in ((True, None, "Now it has none"), (False, False, "declare it in immich:users")):
        monkeypatch.setattr(immich_library, "__opts__", {"test": test}, raising=False)
        ret = immich_library.present("/mnt/photos", "cem@example.org")
        assert (ret["result"], bool(ret["changes"])) == (result, test)
        assert words in ret["comment"]


def test_a_folder_that_immich_cannot_read_is_refused_until_it_can_and_is_then_scanned_once(server):
    for _ in range(2):
        refused = immich_library.present("/mnt/photos", BEN["email"])
        assert (refused["result"], refused["changes"]) == (False, {})
        assert "Lacking read permission" in refused["comment"]
    server.readable = True
    assert immich_library.present("/mnt/photos", BEN["email"])["changes"] != {}
    assert immich_library.present("/mnt/photos", BEN["email"])["changes"] == {}
    (library,) = server.libraries()
    assert (library["importPaths"], server.scanned) == (["/mnt/photos"], [library["id"]])


class Login:
    """As much of ``api.Client`` as it takes to log in; the answer is an account, or why there is none."""

    def __init__(self, answer, password_login=True):
        self._answer, self._password_login, self.ended = answer, password_login, False

    def login(self, email, password):
        assert (email, password) == ("ana@example.org", "a password")
        if isinstance(self._answer, str):
            raise api.ApiError(f"Immich answers 401: {self._answer}", 401)
        return self._answer

    def has_password_login(self):
        return self._password_login

    def logout(self):
        self.ended = True
        raise api.ApiError("Invalid user token", 401)


@pytest.mark.parametrize(
    ("client", "result", "words", "ended"),
    (
        (Login({"isAdmin": True}), True, "An API key was made", True),
        (Login({"isAdmin": False}), False, "ana@example.org is no administrator in Immich", True),
        (Login("Incorrect email or password"), False, "a:b is the initial password", False),
        (Login("Password login has been disabled", False), False, "set passwordLogin:enabled to true", False),
    ),
)
def test_a_key_is_made_by_an_administrator_who_logs_in(monkeypatch, client, result, words, ended):
    made = []
    monkeypatch.setattr(immich_account.api_key, "state", lambda *_: "absent")
    monkeypatch.setattr(immich_account.api_key, "make", lambda *given: made.append(given))
    monkeypatch.setattr(immich_account.api, "Client", lambda _url, wait: client)
    monkeypatch.setattr(immich_account, "__opts__", {"test": False}, raising=False)
    monkeypatch.setattr(immich_account, "__pillar__", {"a": {"b": "a password"}}, raising=False)
    ret = immich_account.key_present("/key", "ana@example.org", "a:b")
    assert (ret["result"], bool(ret["changes"]), bool(made)) == (result, result, result)
    assert words in ret["comment"]
    assert client.ended is ended


class Unclaimed:
    """As much of ``api.Client`` as it takes to sign up, on a server that does not say who has."""

    def __init__(self):
        self.administrators = []

    def signed_up(self):
        raise api.ApiError("Immich answers 404 to GET /api/server/config: Not Found", 404)

    def sign_up(self, email, name, password):
        self.administrators.append((email, name, password))
        return {"email": email.lower(), "isAdmin": True}


def test_a_release_that_does_not_say_who_has_signed_up_leaves_it_to_the_database(monkeypatch):
    client = Unclaimed()

    def query_as(user, database, _statement, _connection):
        assert (user, database) == ("immich", "photos")
        return [{"found": bool(client.administrators)}]

    monkeypatch.setattr(immich_account.api, "Client", lambda _url, wait: client)
    monkeypatch.setattr(immich_account, "__opts__", {"test": False}, raising=False)
    monkeypatch.setattr(immich_account, "__pillar__", {"a": "a password"}, raising=False)
    monkeypatch.setattr(immich_account, "__salt__", {"pgsql_database.query_as": query_as}, raising=False)
    asked = {"postgres": {"user": "immich", "database": "photos", "connection": {}}}
    assert immich_account.administrator_present("Ana@example.org", "Ana", "a", **asked)["changes"] != {}
    assert immich_account.administrator_present("Ana@example.org", "Ana", "a", **asked)["changes"] == {}
    assert client.administrators == [("Ana@example.org", "Ana", "a password")]
    assert immich_account.administrator_present("Ana@example.org", "Ana", "a")["result"] is False


@pytest.mark.parametrize(
    ("declared", "has_key", "refused"), ((False, False, 1), (False, True, 0), (None, False, 0), (True, False, 0))
)
def test_oauth_alone_is_refused_before_the_key_is_made(declared, has_key, refused):
    assert len(list(accounts.of_login(declared, has_key))) == refused


def test_no_key_is_made_for_a_database_that_is_about_to_be_replaced(monkeypatch):
    made = []
    monkeypatch.setattr(immich, "__salt__", {"immich_settings.get": lambda: {"port": 2283}}, raising=False)
    monkeypatch.setattr(immich.lock, "restore_under_way", lambda: "A restore is at work")
    monkeypatch.setattr(immich.api_key, "make", made.append)
    with pytest.raises(CommandExecutionError, match="A restore is at work"):
        immich.rotate()
    assert made == []
