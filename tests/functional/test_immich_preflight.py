"""What the preflight check asks of a running host: its sockets, its addresses, and who holds what."""

import socket
import subprocess

import pytest
import redis

PASSWORDS = {
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-22", "admin_password": "admin-secret-333"},
}


@pytest.fixture
def obstacles(loaders):
    """A function from a pillar to what stands in its way, by path. PostgreSQL and Valkey are somebody else's."""

    def evaluate(**pillar):
        elsewhere = {
            part: {**PASSWORDS[part], "managed": False, "admin": {"host": "192.0.2.1", "password": "secret"}}
            for part in PASSWORDS
        }
        loaders.opts["pillar"]["immich"] = {**elsewhere, **pillar}
        settings = loaders.modules["immich_settings.get"]()
        assert settings, loaders.modules["immich_settings.errors"]()
        found = loaders.modules["immich_preflight.obstacles"](settings)
        # Salt keeps what was found for a run; each call is another.
        loaders.context.clear()
        return {obstacle["path"]: obstacle["seen"] for obstacle in found}

    return evaluate


@pytest.mark.parametrize("listen", ("0.0.0.0", "127.0.0.1", "::"))
@pytest.mark.parametrize("bind", ("0.0.0.0", "127.0.0.1", ["127.0.0.2", "127.0.0.1"], ["0.0.0.0", "::"]))
def test_port_taken_by_another_process(obstacles, listen, bind):
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.create_server((listen, 22830), family=family):
        message = obstacles(port=22830, bind_address=bind)["immich:port"]
    assert message.startswith("22830 is taken by ")
    assert "python" in message


def test_port_of_another_address_is_free(obstacles):
    with socket.create_server(("127.0.0.2", 22830)):
        assert obstacles(port=22830, bind_address="127.0.0.1") == {}


def test_port_of_a_connection_is_free(obstacles):
    with socket.create_server(("127.0.0.1", 22831)) as server:
        client = socket.create_connection(server.getsockname(), source_address=("127.0.0.1", 22830))
        assert obstacles(port=22830) == {}
        client.close()


def podman_run(name, port):
    publish = f"--publish={port}:2283"
    subprocess.run(
        ["podman", "run", "--detach", f"--name={name}", publish, "--rootfs", "/:O", "sleep", "1000"], check=True
    )


@pytest.mark.parametrize(("name", "taken"), (("immich-server", False), ("t-other", True)))
def test_port_published_by_a_container(obstacles, name, taken):
    podman_run(name, 22830)
    try:
        found = obstacles(port=22830)
    finally:
        subprocess.run(["podman", "rm", "--force", "--time=0", name], check=True)
    assert bool(found) == taken


def test_an_address_that_is_not_there(obstacles):
    found = obstacles(port=22830, bind_address=["127.0.0.1", "10.8.0.1"])
    assert list(found) == ["immich:bind_address"]
    assert found["immich:bind_address"].startswith("10.8.0.1 is on no interface of this host")
    subprocess.run(["ip", "address", "add", "10.8.0.1/32", "dev", "lo"], check=True)
    try:
        assert obstacles(port=22830, bind_address=["127.0.0.1", "10.8.0.1"]) == {}
    finally:
        subprocess.run(["ip", "address", "delete", "10.8.0.1/32", "dev", "lo"], check=True)


def test_a_memory_limit_below_what_valkey_holds(obstacles):
    valkey = {**PASSWORDS["valkey"], "maxmemory": "64m"}
    assert obstacles(port=22830, valkey=valkey) == {}
    with redis.Redis() as client:
        client.set("large", "x" * (70 << 20))
        try:
            found = obstacles(port=22830, valkey=valkey)
        finally:
            client.delete("large")
    assert list(found) == ["immich:valkey:maxmemory"]
    assert "is 64m, and this Valkey holds" in found["immich:valkey:maxmemory"]


def test_a_host_is_asked_for_what_its_components_need(loaders):
    """Immich's port and Valkey's are nothing to a host of PostgreSQL, nor is a Valkey with a password."""
    with socket.create_server(("127.0.0.1", 2283)):
        loaders.opts["pillar"]["immich"] = {"postgres": PASSWORDS["postgres"], "roles": ["postgres"]}
        assert found_of(loaders) == set()
        # Valkey serves on this host, and its administrator's password is another one.
        with redis.Redis() as client:
            client.config_set("requirepass", "of-another-service")
            try:
                loaders.context.clear()
                assert found_of(loaders) == set()
                loaders.context.clear()
                loaders.opts["pillar"]["immich"] = PASSWORDS
                assert {"immich:port", "immich:valkey:admin_password"} <= found_of(loaders)
            finally:
                client.execute_command("AUTH", "of-another-service")
                client.config_set("requirepass", "")


def found_of(loaders):
    settings = loaders.modules["immich_settings.get"]()
    return {each["path"] for each in loaders.modules["immich_preflight.obstacles"](settings)}


def test_a_component_of_another_role_is_the_one_obstacle(loaders):
    loaders.opts["pillar"]["immich"] = {"postgres": PASSWORDS["postgres"], "roles": ["postgres"]}
    settings = loaders.modules["immich_settings.get"]()
    (found,) = loaders.modules["immich_preflight.obstacles"](settings, "immich.podman")
    assert found["seen"] == "this host is postgres, and has no component podman"
    assert loaders.modules["immich_preflight.obstacles"](settings, "immich.postgres") == []
