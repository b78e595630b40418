"""Sockets that are wider than declared."""

from immich_core import exposure

SETTINGS = {
    "port": 2283,
    "bind_address": ["0.0.0.0"],
    "gateway_address": "10.88.0.1",
    "postgres": {"here": True, "port": 5432},
    "valkey": {"here": True, "port": 6379},
}


def sockets(*pairs):
    return [{"address": address, "port": port} for address, port in pairs]


def test_a_wider_socket_than_declared_is_found():
    narrow = {**SETTINGS, "bind_address": ["127.0.0.1", "192.0.2.5"]}
    wider = exposure.wider_than_declared
    assert wider(narrow, sockets(("127.0.0.1", 2283), ("0.0.0.0", 22))) == []
    assert "every address" in wider(narrow, sockets(("0.0.0.0", 2283)))[0]["seen"]
    assert wider(SETTINGS, sockets(("0.0.0.0", 2283))) == []


def test_a_managed_server_on_every_address_is_found():
    everywhere = exposure.servers_everywhere
    assert everywhere(SETTINGS, sockets(("127.0.0.1", 6379), ("10.88.0.1", 6379), ("0.0.0.0", 22))) == []
    assert "Valkey" in everywhere(SETTINGS, sockets(("::", 6379)))[0]["seen"]
    elsewhere = {**SETTINGS, "valkey": {"here": False, "port": 6379}}
    assert everywhere(elsewhere, sockets(("::", 6379))) == []
