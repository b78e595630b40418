"""What the Debian release of the test host has, as far as tests differ by it."""

import platform

import pytest

RELEASES = {
    "13": {"postgres": 17, "servers": ("valkey", "redis"), "podman_lacks": set()},
    "12": {
        "postgres": 15,
        "servers": ("redis",),
        "podman_lacks": {
            "interface_name",
            "routes",
            "dns_servers",
            "isolate: strict",
            "ip_range from-to",
            "ipvlan",
            "macvlan without subnet",
            "no_default_route",
        },
    },
}
HERE = RELEASES[platform.freedesktop_os_release()["VERSION_ID"]]

# Servers with ACL users. The first one runs as a service of the host, on the standard port.
SERVERS = HERE["servers"]
OWN_SERVER = SERVERS[0]
# Arguments of `podman_network.create` that this Podman has no options for, and values that it does not take.
PODMAN_LACKS = HERE["podman_lacks"]
# Major version of PostgreSQL.
POSTGRES = HERE["postgres"]


def only(applies):
    """Collect a test only where the release has what it is about; what the others do instead has tests of its own."""
    return pytest.mark.only(applies)
