"""The decisions of `podman_network` that need no Podman: what a description means, and what a route is."""

import pytest

from host_core import routes
from podman_core import addresses, create_options, description, isolation
from podman_core.errors import DescriptionError

# Lines as the kernel prints them: default, half a default, a subnet, a refused one.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
*\t000000AC\t00000000\t0201\t0\t0\t0\t000000FF\t0\t0\t0
"""
ROUTES_6 = """\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
fd000000000000000000000000000005 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001       lo
"""  # noqa: E501


def test_routes_leave_out_defaults_and_what_is_no_way_out(monkeypatch):
    texts = {"/proc/net/route": ROUTES, "/proc/net/ipv6_route": ROUTES_6}
    monkeypatch.setattr(routes, "_lines", lambda path: texts[path].splitlines())
    found = [(str(route), interface) for route, interface in routes.subnets()]
    assert found == [("192.168.1.0/24", "eth0"), ("fd00::/64", "eth0")]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    (
        ("10.5.0.0/24", "10.5.0.1", "10.5.0.255"),
        ("10.5.0.6/30", "10.5.0.5", "10.5.0.7"),
        ("10.5.0.4/31", "10.5.0.5", "10.5.0.5"),
        ("10.5.0.4/32", "10.5.0.4", "10.5.0.4"),
        ("10.5.0.4-10.5.0.9", "10.5.0.4", "10.5.0.9"),
        ("fd01::100/120", "fd01::101", "fd01::1ff"),
    ),
)
def test_range_is_what_podman_makes_of_it(text, start, end):
    """Podman 5.4 answered these."""
    assert [str(address) for address in addresses.bounds(text)] == [start, end]


def test_gateways_and_ranges_stay_with_their_subnet():
    """Podman pairs them by their place alone: a subnet without must not inherit its neighbour's."""
    arguments = create_options.arguments(
        {
            "subnets": [
                {"subnet": "10.1.0.0/24", "gateway": "10.1.0.9"},
                {"subnet": "10.2.0.0/24", "ip_range": "10.2.0.128/25"},
            ]
        }
    )
    places = {}
    for flag, value in zip(arguments[::2], arguments[1::2]):
        places.setdefault(flag, []).append(value)
    assert places == {
        "--subnet": ["10.2.0.0/24", "10.1.0.0/24"],
        "--gateway": ["10.2.0.1", "10.1.0.9"],
        "--ip-range": ["10.2.0.128/25"],
    }


@pytest.mark.parametrize(
    ("said", "says"),
    (
        ({"name": "-x"}, "no name for a network"),
        ({"name": "a b"}, "no name for a network"),
        ({"ipv6_subnet": "fd00::/64"}, "ipv6_subnet without a subnet"),
        ({"subnet": "10.0.0.0/24", "ipv6_subnet": "10.1.0.0/24"}, "has to be of IPv6"),
        ({"subnet": "fd01::/64", "ipv6_subnet": "fd00::/64"}, "has to be of IPv6"),
        ({"subnets": [{"subnet": "10.0.0.0/24"}], "ipv6_subnet": "fd00::/64"}, "Give either"),
        ({"subnet": "10.0.0.0/33"}, "10.0.0.0/33 is no subnet"),
        ({"gateway": "10.0.0.1"}, "gateway without a subnet"),
        ({"subnet": "10.0.0.0/24", "subnets": [{"subnet": "10.1.0.0/24"}]}, "Give either"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}, "10.0.1.1 is not in the subnet"),
        ({"subnet": "10.0.0.0/24", "gateway": "fd00::1"}, "fd00::1 is not in the subnet"),
        ({"subnet": "10.0.0.0/24", "ip_range": "10.0.1.0/28"}, "10.0.1.0/28 is not in the subnet"),
        ({"subnets": [{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"}]}, "overlap"),
        ({"subnets": [{"gateway": "10.0.0.1"}]}, "A subnet is"),
        ({"subnets": [{"subnet": "10.0.0.0/24", "gatway": "10.0.0.1"}]}, "A subnet is"),
        ({"dns_servers": ["one.one.one.one"]}, "one.one.one.one is no address"),
        ({"dns_servers": ["1.1.1.1"], "dns": False}, "dns_servers need dns"),
        ({"driver": "macvlan", "dns": True}, "dns needs driver bridge"),
        ({"subnet": "fd00::/64", "ipv6": False}, "ipv6 is False"),
        ({"interface_name": "a" * 16}, "more than 15 characters"),
        ({"internal": "no"}, "internal is True or False"),
        ({"routes": [{"destination": "10.0.0.0/8"}]}, "a destination and a gateway"),
        ({"routes": ["10.0.0.0/8,10.1.0.1,low"]}, "metric of a route is a number"),
    ),
)
def test_description_that_makes_no_sense_is_refused(said, says):
    with pytest.raises(DescriptionError, match=says):
        description.described(**{"name": "shop", **said})


@pytest.mark.parametrize(("version", "default"), (("4.3.1", "false"), ("5.4.2", "false"), ("6.0.0", "strict")))
def test_without_isolation_a_network_is_as_its_podman_makes_it(version, default):
    """Podman 6 isolates bridges strictly. Debian has none yet."""
    for isolate in (False, True, "strict"):
        said = description.described("shop", isolate=isolate)
        value = said["options"]["isolate"]
        changed = description.differences(said, {"options": {}}, lambda: isolation.default(version))
        assert bool(changed) is (value != default)
        assert description.differences(said, {"options": {"isolate": value}}, None) == {}


def test_a_second_subnet_of_ipv6():
    said = description.described("shop", subnet="10.1.0.0/24", gateway="10.1.0.9", ipv6_subnet="fd00:1:0::/64")
    assert said == {"subnets": [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.9"}, {"subnet": "fd00:1::/64"}]}


def test_description_has_one_form():
    said = description.described(
        "shop",
        subnet="FD00:0:0::5/64",
        gateway="fd00:0::1",
        isolate=True,
        mtu=1400,
        options={"vlan": 5, "no_default_route": False},
        routes=["10.9.1.2/24,10.5.0.5,100", {"destination": "10.8.0.0/24", "gateway": "10.5.0.5"}],
        dns_servers=["2606:4700:4700:0::1111"],
        labels={"tier": 1},
    )
    assert said == {
        "subnets": [{"subnet": "fd00::/64", "gateway": "fd00::1"}],
        "options": {"vlan": "5", "no_default_route": "false", "isolate": "true", "mtu": "1400"},
        "routes": [
            {"destination": "10.9.1.0/24", "gateway": "10.5.0.5", "metric": 100},
            {"destination": "10.8.0.0/24", "gateway": "10.5.0.5"},
        ],
        "dns_servers": ["2606:4700:4700::1111"],
        "labels": {"tier": "1"},
    }


def test_parent_is_the_interface():
    """Podman keeps the option under the other name."""
    assert description.described("shop", driver="macvlan", options={"parent": "eth0"}) == {
        "driver": "macvlan",
        "interface_name": "eth0",
    }


@pytest.mark.parametrize(
    ("old", "new", "ipv6", "same"),
    (
        (["10.1.0.0/24"], ["10.1.0.0/24"], None, True),
        (["10.1.0.0/24", "fd00::/64"], ["fd00::/64", "10.1.0.0/24"], None, True),
        (["10.1.0.0/24", "fd00::/64"], ["10.1.0.0/24"], None, False),
        (["10.1.0.0/24", "fd00::/64"], ["10.1.0.0/24"], True, True),  # the second one is Podman's
        (["10.1.0.0/24", "10.2.0.0/24"], ["10.1.0.0/24"], True, False),
        (["10.1.0.0/24"], ["10.1.0.0/24", "10.2.0.0/24"], None, False),
        ([], ["10.1.0.0/24"], None, False),
    ),
)
def test_subnets_are_a_whole_list_but_for_what_podman_adds(old, new, ipv6, same):
    old, new = ({"subnets": [{"subnet": subnet} for subnet in side]} for side in (old, new))
    assert (description.differences({**new, "ipv6": ipv6}, {**old, "ipv6": ipv6}, None) == {}) is same
