"""What Immich's server is asked, and what its answers mean."""

import http.server
import json
import socket
import threading

import pytest

from immich_io import server

SETTINGS = {"sign_up": "open", "port": 2283}


class Answers(dict):
    """Answers of a server by path, with its address as ``url``."""


@pytest.fixture
def answers():
    """Answers by path, as status and body: a restore in Immich's own pages, a failure, a release that is to come."""

    given = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = given.get(self.path, (404, {"statusCode": 404}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        given.url = f"http://127.0.0.1:{listening.server_port}"
        yield given
        listening.shutdown()


CONFIG, PING = "/api/server/config", "/api/server/ping"


@pytest.mark.parametrize(
    ("answer", "maintenance", "initialized"),
    (
        ((200, {"isInitialized": True, "maintenanceMode": False}), False, True),
        ((200, {"isInitialized": False}), None, False),
        # What follows is decided by the database, which is not there.
        ((200, {"maintenanceMode": True}), True, None),
        ((200, {"isInitialized": True, "maintenanceMode": True}), True, None),  # Immich v2.4 says so whatever is true
        ((500, {"isInitialized": False, "statusCode": 500}), None, None),
        ((404, {"statusCode": 404}), None, None),
        ((200, ["isInitialized"]), None, None),
        ((200, {"isInitialized": "false"}), None, None),
    ),
)
def test_only_what_is_known_of_a_server_is_said(answers, answer, maintenance, initialized):
    answers[CONFIG] = answer
    state = server.state(answers.url, lambda: (None, "there is no database"))
    assert (state["maintenance"], state["initialized"]) == (maintenance, initialized)
    assert bool(state["unknown"]) is (initialized is None)
    warnings = server.warnings(state, SETTINGS, "http://photos.example:2283")
    assert any("Nobody has signed up" in each["seen"] for each in warnings) is (initialized is False)
    assert any("start-restore" in each["seen"] for each in warnings) is (initialized is False)
    assert any("not known" in each["seen"] for each in warnings) is (initialized is None)
    severities = [each["severity"] for each in warnings if each["code"] == "maintenance-mode"]
    assert severities == ["error"] * bool(maintenance)


def test_a_server_in_maintenance_mode_is_not_told_to_restart(answers):
    ping = f"{answers.url}{PING}"
    answers[CONFIG] = 200, {"maintenanceMode": True}
    (found,) = server.silent(ping)
    assert found["code"] == "maintenance-mode"
    assert "disable-maintenance-mode" in found["remedy"]
    answers[PING] = 500, {"res": "pong"}
    answers[CONFIG] = 500, {"maintenanceMode": True}
    (found,) = server.silent(ping)
    assert "the answer has the status 500" in found["seen"]
    answers[PING] = 200, {"res": "pong"}
    assert server.silent(ping) == []
    assert server.answers(ping, 10)


def test_another_program_at_the_port_and_none_are_told_apart(answers):
    answers[PING] = 200, {"res": "hello"}
    (found,) = server.silent(f"{answers.url}{PING}")
    assert (found["code"], found["remedy"]) == ("server-foreign", "see `ss -ltnp`")
    assert not server.answers(f"{answers.url}{PING}", 10)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}{PING}"
    (found,) = server.silent(url)
    assert found["code"] == "server-silent"
    assert found["seen"].startswith(f"{url} does not answer: ")


@pytest.mark.parametrize(("signed_up", "codes"), ((True, []), (False, ["administrator-missing"])))
def test_where_the_server_does_not_say_the_database_does(answers, signed_up, codes):
    """A server without /api/server/config, as later releases mean to be."""
    state = server.state(answers.url, lambda: (signed_up, ""))
    assert state == {"maintenance": None, "initialized": signed_up, "unknown": ""}
    assert [each["code"] for each in server.warnings(state, SETTINGS, "http://photos.example:2283")] == codes
