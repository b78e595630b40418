"""What the gateway's unit and firewall hold, by settings, networks and addresses."""

import pytest

from immich_core import gateway

NETWORK = {"name": "immich", "subnet": "172.20.0.0/16", "gateway": "172.20.0.1", "interface_name": "immich0"}
BRIDGE = {"podman": {"driver": "bridge", "network_interface": "podman0"}}


def plan(network=NETWORK, networks=BRIDGE, addresses=(), address="10.88.0.1"):
    return gateway.plan(address, network, [6379, 5432], [], networks, addresses)


@pytest.mark.parametrize(
    ("interface", "added"), (("lo", True), ("podman0", True), ("eth0", False)), ids=("lo", "bridge", "elsewhere")
)
def test_an_address_that_an_interface_holds_for_good_is_not_added(interface, added):
    assert plan(addresses=[(interface, {"local": "10.88.0.1"})])["add"] is added


def test_what_comes_over_a_known_bridge_is_immichs():
    held = plan()
    assert held["from"] == ['iifname "immich0"']
    assert (held["ports"], held["names"]) == ([5432, 6379], [" ct original ip daddr 172.20.0.1"])
    unknown = plan({**NETWORK, "interface_name": None, "ipv6_subnet": "fd49::/64"})
    assert unknown["from"] == [
        'iifname "podman*" ip saddr 172.20.0.0/16',
        'iifname "podman*" ip6 saddr fd49::/64',
    ]


def test_an_address_of_ipv6_has_no_label_and_no_sources_of_ipv4():
    held = plan(address="fd00::1")
    assert (held["prefix"], held["family"], held["label"], held["sources"]) == (128, "ip6", "", [])


def test_a_server_that_is_not_managed_is_let_through_where_it_is_on_this_host():
    settings = {
        "gateway_address": "10.88.0.1",
        "network": NETWORK,
        "sign_up": "open",
        "host_ports": [443],
        "metrics": {"allow": ["192.0.2.8/32"]},
        "postgres": {"managed": False, "here": False, "port": 5432, "host": "192.0.2.7"},
        "valkey": {"managed": True, "here": True, "port": 6379},
        "lookup": {"postgres": {"unit": "postgresql@17-main"}, "valkey": {"service": "valkey-server"}},
    }
    found = gateway.declared(settings, lambda: ["192.0.2.7"])
    assert (found["ports"], found["host_ports"], found["services"]) == ([6379], [443, 5432], ["valkey-server"])
    assert found["metrics_allow"] == ["192.0.2.8/32"]
    assert gateway.declared(settings, list)["host_ports"] == [443]
