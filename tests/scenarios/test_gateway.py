"""The address at which the services answer containers: there after a reboot, closed to everybody else."""

import shlex

import pytest

from tests.host.machine import Host
from tests.scenarios.conftest import changed, found_by

pytestmark = pytest.mark.long

ADDRESS = "10.88.0.1"
BRIDGE = "172.20.0.1"
SERVICES = {"PostgreSQL": 5432, "Valkey": 6379}
IN_IMMICH = "nsenter -t $(podman inspect --format '{{.State.Pid}}' immich-server) -n"
ON_DEFAULT_NETWORK = "podman run --rm --network podman --rootfs /:O"


@pytest.fixture(scope="module")
def host(deployed_host):
    return deployed_host


@pytest.fixture(scope="module")
def neighbour(host):
    with Host("neighbour", lan=host.lan) as neighbour:
        neighbour.run(f"ip route add {ADDRESS}/32 via {host.address}; ip route add {BRIDGE}/32 via {host.address}")
        neighbour.run("ip address add 172.20.0.77/32 dev lo")  # as which he sends what claims to come from a container
        yield neighbour


# Asks Podman's DNS for a name over UDP, from an address of the host's own, and over TCP; prints what answered.
ASK = """
import socket, sys
query = b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\15immich-server\\0\\0\\1\\0\\1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(3)
    udp.bind((sys.argv[2], 0))
    try:
        udp.sendto(query, (sys.argv[1], 53))
        print("udp" if udp.recv(512) else "")
    except OSError:
        pass
try:
    socket.create_connection((sys.argv[1], 53), 3, (sys.argv[2], 0)).close()
    print("tcp")
except OSError:
    pass
"""


def dns_open_to(host, source="0.0.0.0", prefix="", meant=()):
    """By which protocols Podman's DNS on Immich's bridge answers."""
    host.write("/run/test/ask.py", ASK)
    return found_by(host, f"{prefix} python3 /run/test/ask.py {BRIDGE} {source}", meant)


def dropped(host):
    """Packets that the table has dropped before Podman's DNS."""
    chain = host.out("nft list chain inet immich input")
    return sum(int(line.split("packets ")[1].split()[0]) for line in chain.splitlines() if "counter packets" in line)


def open_to(host, prefix="", meant=()):
    """Which services somebody reaches at the address: the host, or what a command prefix makes of it."""
    tries = " ".join(
        f"(timeout 2 bash -c '</dev/tcp/{ADDRESS}/{port}' 2>/dev/null && echo {name}) &"
        for name, port in SERVICES.items()
    )
    return found_by(host, f"{prefix} sh -c {shlex.quote(f'{tries} wait')}", meant)


def assert_open_to_immich_alone(host, neighbour):
    assert open_to(host, IN_IMMICH, meant=SERVICES) == set(SERVICES)
    assert open_to(host, meant=SERVICES) == set(SERVICES)
    assert open_to(host, ON_DEFAULT_NETWORK) == set()
    assert open_to(neighbour) == set()


def test_neighbour_with_a_route_is_kept_out(host, neighbour):
    assert_open_to_immich_alone(host, neighbour)

    for service in ("restart nftables", "reload nftables", "stop nftables"):
        host.run(f"systemctl {service}")
        host.run("podman network reload --all")  # nftables.service has flushed Podman's own tables too
        assert_open_to_immich_alone(host, neighbour)

    assert dns_open_to(host, prefix=IN_IMMICH, meant={"udp", "tcp"}) == {"udp", "tcp"}
    assert dns_open_to(neighbour) == set()
    before = dropped(host)
    assert dns_open_to(neighbour, "172.20.0.77") == set()
    assert dropped(host) > before

    # Somebody takes the table away: that it is the table which keeps the neighbour out shows, and is mended.
    host.run("nft delete table inet immich")
    assert open_to(neighbour, meant=SERVICES) == set(SERVICES)
    assert dns_open_to(neighbour, meant={"udp", "tcp"}) == {"udp", "tcp"}
    assert changed(host.apply("immich.gateway")) == {
        "The gateway is active": {"firewall": {"old": "absent", "new": "loaded"}}
    }
    assert_open_to_immich_alone(host, neighbour)


def test_address_is_there_after_a_reboot_with_no_container_on_the_default_network(host, neighbour):
    host.reboot()
    assert host.out("podman ps --quiet --filter network=podman") == ""
    assert "podman0" not in host.out("ip -brief link")
    assert open_to(host, meant=SERVICES) == set(SERVICES)
    assert host.out(
        "journalctl -b -u valkey-server -u 'postgresql@*' -g 'Cannot assign|could not bind'", check=False
    ) in (
        "",
        "-- No entries --",
    )
    host.wait_for("systemctl is-active immich", 300)
    assert_open_to_immich_alone(host, neighbour)
    assert changed(host.apply("immich.gateway")) == {}
