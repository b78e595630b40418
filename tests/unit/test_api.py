"""The client of Immich's API, and servers that were taken over."""

import contextlib
import http.server
import json
import socket
import threading
import time

import pytest

from immich_io import api
from tests.accounts import BEN

IDENTIFIER = "0f8fad5b-d9cb-469f-a165-70867728950e"
USER = {**BEN, "id": IDENTIFIER, "more": {"is": "ignored"}}
KEY = "k" * 43


@pytest.fixture
def server():
    """A server that answers by method and path, and keeps what it was asked."""
    given, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            status, body = given.get((self.command, self.path), (404, {"message": "Cannot"}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def __getattr__(self, name):
            return self.answer if name.startswith("do_") else super().__getattribute__(name)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", given, asked
        listening.shutdown()


USERS = ("GET", "/api/admin/users?withDeleted=true")


def test_an_answer_has_its_types_and_nothing_else(server):
    url, given, asked = server
    given[USERS] = 200, [USER]
    (user,) = api.Client(url, KEY).users()
    assert user == {key: value for key, value in USER.items() if key != "more"}
    assert asked[0][2]["x-api-key"] == KEY


@pytest.mark.parametrize(
    "answer",
    (
        {},
        [1],
        [{**USER, "id": "../../auth/login"}],
        [{**USER, "email": None}],
        [{**USER, "isAdmin": 1}],
        [{**USER, "quotaSizeInBytes": True}],
        [{key: value for key, value in USER.items() if key != "name"}],
        b"[" * 100000,
        b"\xff",
        b"[" + b" " * api.LARGEST_LIST + b"]",
        b"",
    ),
)
def test_another_answer_is_an_error(server, answer):
    url, given, _ = server
    given[USERS] = 200, answer
    with pytest.raises(api.ApiError):
        api.Client(url, KEY).users()


def test_a_login_is_by_password_then_by_token_and_ends(server):
    url, given, asked = server
    token = "t" * 43
    given["POST", "/api/auth/login"] = 201, {"accessToken": token, "userEmail": "a@example.org", "isAdmin": True}
    given["POST", "/api/api-keys"] = 201, {"secret": KEY, "apiKey": {"id": IDENTIFIER, "name": "a"}}
    given["POST", "/api/auth/logout"] = 200, {"successful": True}
    client = api.Client(url)
    client.login("a@example.org", 'pass"wörd')
    assert client.create_key("a", ["apiKey.read"]) == {"id": IDENTIFIER, "secret": KEY}
    client.logout()
    assert json.loads(asked[0][3]) == {"email": "a@example.org", "password": 'pass"wörd'}
    assert [each[2].get("Authorization") for each in asked] == [None, f"Bearer {token}", f"Bearer {token}"]


@pytest.mark.parametrize("token", ("short", "x" * 43 + "\r\nX-Injected: 1", 7, "x" * 100000))
def test_a_token_that_is_none_is_never_sent(server, token):
    url, given, asked = server
    given["POST", "/api/auth/login"] = 201, {"accessToken": token, "userEmail": "a@example.org", "isAdmin": True}
    client = api.Client(url)
    with pytest.raises(api.ApiError):
        client.login("a@example.org", "a password")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    (
        ({"message": "User exists"}, "User exists"),
        ({"message": ["email must be an email", "name should not be empty"]}, "an email; name should"),
        ({"message": "Validation failed", "errors": [{"path": ["email"], "message": "Invalid"}]}, "email: Invalid"),
        ({"message": "a\x1b[2Jb\nc"}, "ab c"),
        ({"message": {"a": 1}, "errors": "x"}, "no reason"),
        (["x"], "no reason"),
        ({"message": "x" * 10000}, "xxx"),
    ),
)
def test_a_refusal_is_one_printable_line(server, answer, words):
    url, given, _ = server
    given["POST", "/api/admin/users"] = 400, answer
    with pytest.raises(api.ApiError) as failure:
        api.Client(url, KEY).create_user({"email": "a@example.org", "password": "a password", "name": "A"})
    assert words in str(failure.value)
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) <= 300
    assert (failure.value.status, failure.value.refused) == (400, False)


def test_no_message_holds_what_was_sent_as_a_secret(server):
    url, given, _ = server
    password = 'pa\'ss "word" {{ x }}'
    given["POST", "/api/auth/login"] = 401, {"message": f"Incorrect: {password} {KEY}"}
    client = api.Client(url, KEY)
    with pytest.raises(api.ApiError) as failure:
        client.login("a@example.org", password)
    assert str(failure.value).endswith("Incorrect: (hidden) (hidden)")
    assert failure.value.refused


def test_a_server_that_is_away_or_another_one_is_an_error(server):
    url, _, _ = server
    with pytest.raises(api.ApiError, match="Connection refused"):
        api.Client("http://127.0.0.1:1").signed_up()
    with pytest.raises(api.ApiError, match="404"):
        api.Client(url).signed_up()


def test_a_server_that_restarts_is_waited_for(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(api.ApiError, match="Connection refused"):
            api.Client(url).signed_up()

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"isInitialized": true}')

        def started(_):
            listening.listen()
            threading.Thread(target=answer, daemon=True).start()

        monkeypatch.setattr(api.time, "sleep", started)
        assert api.Client(url, wait=60).signed_up()


@pytest.mark.parametrize(
    ("status", "answer", "known"),
    ((200, {"passwordLogin": False}, False), (200, {"passwordLogin": True}, True), (200, [], True), (404, {}, True)),
)
def test_login_by_password_is_off_where_the_server_says_so_alone(server, status, answer, known):
    url, given, _ = server
    given["GET", "/api/server/features"] = status, answer
    assert api.Client(url).has_password_login() is known


def test_an_answer_that_drips_ends_with_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            with contextlib.suppress(OSError):
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(api.ApiError, match=r"no complete answer within 0\.4 s"):
            api.Client(f"http://127.0.0.1:{listening.getsockname()[1]}", KEY, timeout=0.4).users()
        assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("answer", "words"),
    (
        ({}, "does not say"),
        ({"isInitialized": 1}, "does not say"),
        ({"isInitialized": True, "maintenanceMode": True}, "mode"),
    ),
)
def test_whether_somebody_has_signed_up_is_known_or_an_error(server, answer, words):
    url, given, _ = server
    given["GET", "/api/server/config"] = 200, answer
    with pytest.raises(api.ApiError, match=words):
        api.Client(url).signed_up()
