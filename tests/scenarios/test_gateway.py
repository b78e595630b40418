"""The address at which the services answer containers: there after a reboot, closed to everybody else."""

import shlex

import pytest

from tests.host.machine import Host
from tests.scenarios.conftest import changed

pytestmark = pytest.mark.long

ADDRESS = "10.88.0.1"
SERVICES = {"PostgreSQL": 5432, "Valkey": 6379}
IN_IMMICH = "nsenter -t $(podman inspect --format '{{.State.Pid}}' immich-server) -n"
ON_DEFAULT_NETWORK = "podman run --rm --network podman --rootfs /:O"


@pytest.fixture(scope="module")
def host(deployed_host):
    return deployed_host


@pytest.fixture(scope="module")
def neighbour(host):
    with Host("neighbour", lan=host.lan) as neighbour:
        neighbour.run(f"ip route add {ADDRESS}/32 via {host.address}")
        yield neighbour


def open_to(host, prefix=""):
    """Which services somebody reaches at the address: the host, or what a command prefix makes of it."""
    tries = " ".join(
        f"(timeout 2 bash -c '</dev/tcp/{ADDRESS}/{port}' 2>/dev/null && echo {name}) &"
        for name, port in SERVICES.items()
    )
    return set(host.out(f"{prefix} sh -c {shlex.quote(f'{tries} wait')}").split())


def assert_open_to_immich_alone(host, neighbour):
    assert open_to(host, IN_IMMICH) == set(SERVICES)
    assert open_to(host) == set(SERVICES)
    assert open_to(host, ON_DEFAULT_NETWORK) == set()
    assert open_to(neighbour) == set()


def test_neighbour_with_a_route_is_kept_out(host, neighbour):
    assert_open_to_immich_alone(host, neighbour)

    for service in ("restart nftables", "reload nftables", "stop nftables"):
        host.run(f"systemctl {service}")
        host.run("podman network reload --all")  # nftables.service has flushed Podman's own tables too
        assert_open_to_immich_alone(host, neighbour)

    # Somebody takes the table away: that it is the table which keeps the neighbour out shows, and is mended.
    host.run("nft delete table inet immich")
    assert open_to(neighbour) == set(SERVICES)
    assert changed(host.apply("immich.gateway")) == {
        "The gateway is active": {"firewall": {"old": "absent", "new": "loaded"}}
    }
    assert_open_to_immich_alone(host, neighbour)


def test_address_is_there_after_a_reboot_with_no_container_on_the_default_network(host, neighbour):
    host.reboot()
    assert host.out("podman ps --quiet --filter network=podman") == ""
    assert "podman0" not in host.out("ip -brief link")
    assert open_to(host) == set(SERVICES)
    assert host.out(
        "journalctl -b -u valkey-server -u 'postgresql@*' -g 'Cannot assign|could not bind'", check=False
    ) in (
        "",
        "-- No entries --",
    )
    host.wait_for("systemctl is-active immich", 60)
    assert_open_to_immich_alone(host, neighbour)
    assert changed(host.apply("immich.gateway")) == {}
