"""
Networks and addresses in the settings: their usual form, and what is wrong with them
======================================================================================

Whether a subnet is free on this host is asked of the host: ``subnets_to_compare`` says which.
"""

import ipaddress
import itertools

from immich_core.settings.problems import likely, path_text
from immich_core.settings.schema import entries


def with_own_network(defaults, lookup):
    """The defaults with a network of Immich's that this system's Podman can make."""
    podman = defaults["podman"]
    own = {**podman["external_networks"][0], **lookup.get("podman", {}).get("network", {})}
    own = {key: value for key, value in own.items() if value is not None}
    return {**defaults, "podman": {**podman, "external_networks": [own]}}


def described(settings, defaults):
    """Each external network with its place in the pillar; Immich's own is among them without being listed."""
    default = defaults["podman"]["external_networks"][0]
    listed = entries(settings["podman"]["external_networks"])
    if settings["network"] == default["name"] and all(entry["name"] != default["name"] for _, entry in listed):
        listed.insert(0, (len(settings["podman"]["external_networks"]), default))
    # The default entry's interface name and isolation hold for whatever subnet that network is given.
    kept = {key: value for key, value in default.items() if key not in ("subnet", "gateway")}
    second = ip_network(settings["ipv6_subnet"])
    return [
        (
            ("podman", "external_networks", index),
            _network(
                {**kept, **entry} if entry["name"] == default["name"] else entry,
                # What is sent to an address of IPv6 is passed on to one of the container.
                second if entry["name"] == settings["network"] and _wants_ipv6(settings) else None,
            ),
        )
        for index, entry in listed
    ]


def _network(entry, second):
    """A network with the gateway that Podman would take by itself, and its addresses in their usual form."""
    subnet = ip_network(entry["subnet"])
    if second is not None:
        entry = {**entry, "ipv6_subnet": str(second)}
    if subnet is None:
        return {"gateway": "", **entry}
    gateway = entry.get("gateway", str(subnet.network_address + 1) if subnet.num_addresses > 1 else "")
    return {**entry, "subnet": str(subnet), "gateway": str(ip_address(gateway) or gateway)}


def _wants_ipv6(settings):
    addresses = [ip_address(text) for _, text in bind_addresses(settings)]
    return any(address is not None and address.version == 6 for address in addresses)


def bind_addresses(settings):
    """The addresses to publish at, as text, each with its place in the pillar."""
    given = settings["bind_address"]
    if isinstance(given, str):
        return [(("bind_address",), given)]
    return [(("bind_address", index), text) for index, text in entries(given)]


def _subnets(place, network):
    """The subnets of a network, each with its own place in the pillar."""
    yield (*place, "subnet"), network["subnet"]
    if "ipv6_subnet" in network:
        yield ("ipv6_subnet",), network["ipv6_subnet"]


def subnets_to_compare(networks, wrong):
    """
    Each subnet that can be compared with this host's routes: its place in the pillar, itself, and its network's name.

    wrong
        Paths of what is known to be wrong.
    """
    for place, network in networks:
        for path, subnet in _subnets(place, network):
            if path not in wrong and not any(each[: len(place)] == place for each in wrong):
                yield path, subnet, network["name"]


def check_networks(settings, networks):
    names = {}
    for path, network in networks:
        name = network["name"]
        if name in names:
            yield (*path, "name"), f"is the name of two networks; the first is immich:{path_text(names[name])}"
        elif name == "podman":
            yield (*path, "name"), "is the name of Podman's default network, which is not the formula's"
        names.setdefault(name, path)
        yield from _check_network(path, network)
    yield from _check_network_overlap(networks)
    if None in settings["podman"]["external_networks"]:
        return
    if settings["network"] not in names:
        yield (
            ("network",),
            f"names none of immich:podman:external_networks{likely(settings['network'], list(names))}",
        )
        return
    path, own = next(each for each in networks if each[1]["name"] == settings["network"])
    subnet, gateway = ip_network(own["subnet"]), ip_address(settings["host_gateway"])
    if subnet and subnet.version != 4:
        yield (*path, "subnet"), "must be an IPv4 subnet: PostgreSQL and Valkey are reached by IPv4"
    second = ip_network(settings["ipv6_subnet"])
    if second is None or second.version != 6:
        yield ("ipv6_subnet",), "must be a subnet of IPv6 in CIDR notation, such as fd00:20::/64"
    else:
        yield from ((("ipv6_subnet",), message) for message in _unfit_subnet(second))
    if subnet and gateway and gateway in subnet:
        yield ("host_gateway",), f"must not be in the subnet of the network {own['name']}, which a bridge has"


def _check_network(path, network):
    subnet = ip_network(network["subnet"])
    if subnet is None:
        yield (*path, "subnet"), f"is not a subnet in CIDR notation{_mended(network['subnet'])}"
        return
    yield from (((*path, "subnet"), message) for message in _unfit_subnet(subnet))
    if subnet.num_addresses < 8:
        return
    gateway = ip_address(network["gateway"])
    if gateway is None:
        yield (*path, "gateway"), "must be an IP address"
    elif gateway not in subnet:
        yield (*path, "gateway"), f"{gateway} is not in the subnet {subnet}"
    elif gateway in (subnet.network_address, subnet.broadcast_address):
        yield (
            (*path, "gateway"),
            f"{gateway} is the first or last address of {subnet}, which no host can have",
        )


def _unfit_subnet(subnet):
    if subnet.is_loopback or subnet.is_multicast or subnet.is_unspecified or subnet.is_link_local:
        yield f"{subnet} has another use in every network"
    if subnet.num_addresses < 8:
        yield f"{subnet} is too small: at least {'/29' if subnet.version == 4 else '/125'}"


def _mended(subnet):
    try:
        return f": did you mean {ipaddress.ip_network(subnet, strict=False)}?" if "/" in subnet else ": 172.20.0.0/16"
    except ValueError:
        return ", such as 172.20.0.0/16"


def _check_network_overlap(networks):
    every = [(network["name"], *each) for place, network in networks for each in _subnets(place, network)]
    known = [(path, name, ip_network(subnet)) for name, path, subnet in every if ip_network(subnet)]
    for (first, one, subnet), (path, name, other) in itertools.combinations(known, 2):
        if one != name and subnet.version == other.version and subnet.overlaps(other):
            yield path, f"{other} overlaps {subnet} of immich:{path_text(first)}"


def check_bind_addresses(settings):
    if settings["bind_address"] == []:
        yield ("bind_address",), "must hold an address, such as 0.0.0.0"
    taken = {}
    for path, text in bind_addresses(settings):
        address = ip_address(text)
        problem = _unbindable(address, text)
        if problem:
            yield path, problem
            continue
        for other, first in taken.items():
            if address == other:
                yield path, f"is the same address as immich:{path_text(first)}"
            elif address.version == other.version and (address.is_unspecified or other.is_unspecified):
                every, single = sorted((address, other), key=lambda each: not each.is_unspecified)
                yield path, f"overlaps immich:{path_text(first)}: {single} is one of {every}, so name one of the two"
        taken.setdefault(address, path)
    # Measured with Podman 5.4: where the network has IPv6, it publishes 0.0.0.0 at every address of IPv6 too, and
    # cannot remove the rules of two mappings that are alike: https://github.com/containers/netavark/issues/1338
    if any(str(address) == "0.0.0.0" for address in taken):
        for address, path in taken.items():
            if address.version == 6 and not address.is_unspecified:
                yield (
                    path,
                    'cannot be used with 0.0.0.0, with which Podman publishes on every address: use "::" instead',
                )


def _unbindable(address, text):
    """Why Podman cannot publish a port at an address, or nothing."""
    link_local = text.lower().startswith("fe80:") if address is None else address.version == 6 and address.is_link_local
    if link_local:
        return "is link-local, which is valid on one interface only and cannot be published: use another address"
    if address is None:
        return 'must be an IP address, such as 0.0.0.0, "::" or 127.0.0.1'
    if getattr(address, "ipv4_mapped", None):
        return f"must be written as {address.ipv4_mapped}"
    if address.version == 6 and address.is_loopback:
        return "cannot be published: Linux does not forward from ::1 to a container; use 127.0.0.1"
    if address.is_multicast or str(address) == "255.255.255.255":
        return "is not an address that a host can have"
    return None


def check_addresses(settings):
    given = settings["host_gateway"]
    if given == "podman":
        return
    address = ip_address(given)
    if address is None or address.version != 4:
        yield ("host_gateway",), "must be podman or an IPv4 address"
    elif address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved:
        yield ("host_gateway",), f"must be an address that containers can reach, which {address} is not"


def ip_address(text):
    """An address without a zone, or None where a text is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address


def ip_network(text):
    """A network in CIDR notation, or None where a text is none."""
    try:
        return ipaddress.ip_network(text) if "/" in text else None
    except ValueError:
        return None
