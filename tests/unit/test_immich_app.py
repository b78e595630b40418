"""What the service and its states are told, and what is read from the host."""

import http.server
import json
import threading

import pytest


def test_mounts_of_the_unit_are_quoted(modules, settings):
    unit = modules.immich_app.unit({**settings, "upload_location": "/srv/my photos 100%"})
    assert unit["mounts"] == ['"/srv/my photos 100%%"']


def sockets(*pairs):
    return [{"address": address, "port": port} for address, port in pairs]


def test_a_wider_socket_than_asked_for_is_told(modules, settings):
    narrow = {**settings, "bind_address": ["127.0.0.1", "192.0.2.5"]}
    wider = modules.immich_app.listens_wider
    assert wider(narrow, sockets(("127.0.0.1", 2283), ("0.0.0.0", 22))) == []
    assert "every address" in wider(narrow, sockets(("0.0.0.0", 2283)))[0]["seen"]
    assert wider(settings, sockets(("0.0.0.0", 2283))) == []


def test_a_managed_service_on_every_address_is_told(modules, settings):
    everywhere = modules.immich_app.listens_everywhere
    assert everywhere(settings, sockets(("127.0.0.1", 6379), ("10.88.0.1", 6379), ("0.0.0.0", 22))) == []
    assert "Valkey" in everywhere(settings, sockets(("::", 6379)))[0]["seen"]
    elsewhere = {**settings, "valkey": {**settings["valkey"], "managed": False}}
    assert everywhere(elsewhere, sockets(("::", 6379))) == []


@pytest.fixture
def server(settings):
    """Answers by path, as status and body: a restore in Immich's own pages, a failure, a release that is to come."""

    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers.get(self.path, (404, {"statusCode": 404}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    settings["bind_address"] = ["127.0.0.1"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        settings["port"] = listening.server_port
        yield answers
        listening.shutdown()


CONFIG, PING = "/api/server/config", "/api/server/ping"


@pytest.mark.parametrize(
    ("answer", "maintenance", "initialized"),
    (
        ((200, {"isInitialized": True, "maintenanceMode": False}), False, True),
        ((200, {"isInitialized": False}), None, False),
        # What follows is decided by the database, and this host has none for Immich.
        ((200, {"maintenanceMode": True}), True, None),
        ((200, {"isInitialized": True, "maintenanceMode": True}), True, None),  # Immich v2.4 says so whatever is true
        ((500, {"isInitialized": False, "statusCode": 500}), None, None),
        ((404, {"statusCode": 404}), None, None),
        ((200, ["isInitialized"]), None, None),
        ((200, {"isInitialized": "false"}), None, None),
    ),
)
def test_only_what_is_known_of_a_server_is_said(modules, settings, server, answer, maintenance, initialized):
    server[CONFIG] = answer
    state = modules.immich_app.server_state(settings)
    assert (state["maintenance"], state["initialized"]) == (maintenance, initialized)
    assert bool(state["unknown"]) is (initialized is None)
    warnings = modules.immich_app.server_warnings(settings)
    assert any("Nobody has signed up" in each["seen"] for each in warnings) is (initialized is False)
    assert any("start-restore" in each["seen"] for each in warnings) is (initialized is False)
    assert any("not known" in each["seen"] for each in warnings) is (initialized is None)
    severities = [each["severity"] for each in warnings if each["code"] == "maintenance-mode"]
    assert severities == ["error"] * bool(maintenance)


def test_a_server_in_maintenance_mode_is_not_told_to_restart(modules, settings, server):
    ping = f"http://127.0.0.1:{settings['port']}{PING}"
    server[CONFIG] = 200, {"maintenanceMode": True}
    (found,) = modules.immich_app.server_silent(ping)
    assert found["code"] == "maintenance-mode"
    assert "disable-maintenance-mode" in found["remedy"]
    server[PING] = 500, {"res": "pong"}
    server[CONFIG] = 500, {"maintenanceMode": True}
    (found,) = modules.immich_app.server_silent(ping)
    assert "the answer has the status 500" in found["seen"]
    server[PING] = 200, {"res": "pong"}
    assert modules.immich_app.server_silent(ping) == []
