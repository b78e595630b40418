"""The settings as Salt loads them, and what they ask of a running host: its sockets, its routes and Podman."""

import shutil
import subprocess
import sys
import time

import pytest

from tests.functional.pgsql_server import UNIT

PASSWORDS = {
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-22", "admin_password": "admin-secret-333"},
}


@pytest.fixture
def errors(loaders):
    """A function from a pillar to its errors, by path."""

    def evaluate(**pillar):
        loaders.opts["pillar"]["immich"] = {**PASSWORDS, **pillar}
        return {error["path"]: error["seen"] for error in loaders.modules["immich_settings.errors"]()}

    return evaluate


@pytest.fixture
def route():
    """A route of the host that a network of Podman would collide with."""
    subprocess.run(["ip", "route", "add", "unreachable", "10.77.0.0/16"], check=True)
    subprocess.run(["ip", "route", "add", "10.78.0.0/16", "dev", "lo"], check=True)
    yield
    subprocess.run(["ip", "route", "del", "unreachable", "10.77.0.0/16"], check=True)
    subprocess.run(["ip", "route", "del", "10.78.0.0/16", "dev", "lo"], check=True)


@pytest.fixture
def network():
    subprocess.run(["podman", "network", "create", "--subnet=10.79.0.0/24", "t-settings"], check=True)
    yield "t-settings"
    subprocess.run(["podman", "network", "rm", "t-settings"], check=True)


def test_settings_are_there_with_salts_own_loader(loaders):
    loaders.opts["pillar"]["immich"] = PASSWORDS
    settings = loaders.modules["immich_settings.get"]()
    assert settings["lookup"]["postgres"]["unit"] == UNIT
    assert settings["gateway_address"] == "10.88.0.1"
    assert not [secret for part in PASSWORDS.values() for secret in part.values() if secret in str(settings)]


def test_library_missing_is_said_in_a_sentence(modules, monkeypatch):
    virtual = modules["immich_settings.get"].func.__globals__["__virtual__"]
    # Salt's Python here has the library; this is how Python notes a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    loadable, reason = virtual()
    assert loadable is False
    assert "jsonschema" in reason


def test_subnet_of_a_route(errors, route):
    networks = [{"name": "a", "subnet": "10.78.1.0/24"}, {"name": "b", "subnet": "10.77.1.0/24"}]
    found = errors(podman={"external_networks": networks})
    assert list(found) == ["immich:podman:external_networks:0:subnet"]
    assert "10.78.0.0/16" in found["immich:podman:external_networks:0:subnet"]


def test_subnet_of_another_network(errors, network):
    found = errors(podman={"external_networks": [{"name": "a", "subnet": "10.79.0.0/16"}]})
    assert network in found["immich:podman:external_networks:0:subnet"]


def test_network_does_not_collide_with_itself(errors, network):
    assert errors(podman={"external_networks": [{"name": network, "subnet": "10.79.0.0/16"}]}) == {}


def test_gateway_is_that_of_podmans_default_network(loaders, tmp_path):
    configured = "/etc/containers/containers.conf.d/99-test-settings.conf"
    with open(configured, "w", encoding="utf-8") as handle:
        handle.write('[network]\ndefault_subnet = "10.99.0.0/16"\n')
    loaders.opts["pillar"]["immich"] = PASSWORDS
    try:
        assert loaders.modules["immich_settings.get"]()["gateway_address"] == "10.99.0.1"
    finally:
        subprocess.run(["rm", configured], check=True)


def test_podman_that_fails_is_an_error(errors, tmp_path, monkeypatch):
    failing = tmp_path / "podman"
    failing.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 125\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = errors()
    assert "no space left on device" in found["immich:host_gateway"]
    assert "no space left on device" in found["immich:podman:external_networks:0:subnet"]


def test_host_without_podman(loaders, tmp_path, monkeypatch):
    for program in ("ip", "sh"):
        (tmp_path / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path))
    loaders.opts["pillar"]["immich"] = PASSWORDS
    assert loaders.modules["immich_settings.errors"]() == []
    assert loaders.modules["immich_settings.get"]()["gateway_address"] == "10.88.0.1"


@pytest.mark.parametrize(
    ("schedule", "valid"),
    (
        ("daily", True),
        ("Mon..Fri *-*-* 03:00:00 Europe/Paris", True),
        ("*-*-* 25:00:00", False),
        ("-h", False),
        ("never", False),
    ),
)
def test_schedule_as_systemd_understands_it(errors, schedule, valid):
    assert list(errors(backup={"schedule": schedule})) == ([] if valid else ["immich:backup:schedule"])


def test_evaluated_in_a_blink(loaders):
    """Every SLS of the formula asks for the settings: after the first time that is free."""
    loaders.opts["pillar"]["immich"] = PASSWORDS
    get = loaders.modules["immich_settings.get"]
    get()
    start = time.process_time()  # this machine may be busy with something else
    for _ in range(10):
        get()
    assert time.process_time() - start < 0.1
