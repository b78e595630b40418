"""
Descriptions of a network: what is declared, and what Podman has, in one form
=============================================================================
"""

import ipaddress
import re

from podman_core import addresses
from podman_core.errors import DescriptionError

# What Podman accepts as the name of a network: containers/common, libnetwork/types/define.go.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

# Podman (5.4) reads these with strconv.ParseBool of Go, and keeps true or false.
BOOLEAN_OPTIONS = ("isolate", "no_default_route")
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), "true"),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), "false"),
}


def described(name, subnets=None, options=None, **rest):
    """
    Return a description in its normal form, with what is declared only.

    name
        Name of the network.
    subnets, options, rest
        The other arguments of ``podman_network.create``.

    Raises ``DescriptionError`` if it makes no sense.
    """
    if not NAME.fullmatch(name):
        raise DescriptionError(f"{name!r} is no name for a network: letters, digits, '_', '.' and '-'")
    single = {key: rest.pop(key) for key in ("subnet", "gateway", "ip_range") if key in rest}
    second = rest.pop("ipv6_subnet", None)
    if (single or second) and subnets:
        raise DescriptionError("Give either subnet, gateway, ip_range and ipv6_subnet, or subnets")
    if (single or second) and "subnet" not in single:
        raise DescriptionError(f"{' and '.join(single) or 'ipv6_subnet'} without a subnet")
    if second and {addresses.subnet(each).version for each in (single["subnet"], second)} != {4, 6}:
        raise DescriptionError(f"ipv6_subnet {second} has to be of IPv6, and the subnet beside it of IPv4")
    declared = {key: _normal(key, rest[key]) for key in rest if key not in ("isolate", "mtu")}
    if single:
        subnets = [single, *([{"subnet": second}] if second else [])]
    if subnets:
        declared["subnets"] = _subnets(subnets)
    options = dict(options or {}, **{key: rest[key] for key in ("isolate", "mtu") if key in rest})
    if "parent" in options:  # Podman keeps it as the name of the interface.
        declared.setdefault("interface_name", str(options.pop("parent")))
    if options:
        declared["options"] = {str(key): _option(str(key), value) for key, value in options.items()}
    _check(declared)
    return declared


def _check(declared):
    bridge = declared.get("driver", "bridge") == "bridge"
    if len(declared.get("interface_name", "")) > 15:
        raise DescriptionError(f"interface_name {declared['interface_name']} has more than 15 characters")
    if declared.get("dns_servers") and declared.get("dns") is False:
        raise DescriptionError("dns_servers need dns: Podman refuses them where dns is False")
    if declared.get("ipv6") is False and any(":" in each["subnet"] for each in declared.get("subnets", [])):
        raise DescriptionError("ipv6 is False, but a subnet of IPv6 is given")
    if declared.get("dns") and not bridge:
        raise DescriptionError(f"dns needs driver bridge: a {declared['driver']} network has none")


def _normal(what, value):
    if what == "dns_servers":
        return [str(addresses.address(server)) for server in value]
    if what == "labels":
        return {str(key): _text(text) for key, text in value.items()}
    if what == "routes":
        return [_route(route) for route in value]
    if what in ("ipv6", "internal", "dns"):
        if not isinstance(value, bool):
            raise DescriptionError(f"{what} is True or False, not {value!r}")
        return value
    return str(value)


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def _option(key, value):
    text = _text(value)
    return BOOLEANS.get(text, text) if key in BOOLEAN_OPTIONS else text


def _route(route):
    if isinstance(route, str):
        route = dict(zip(("destination", "gateway", "metric"), route.split(",")))
    if not {"destination", "gateway"} <= set(route):
        raise DescriptionError(f"A route has a destination and a gateway: {route}")
    normal = {
        "destination": str(addresses.subnet(route["destination"])),
        "gateway": str(addresses.address(route["gateway"])),
    }
    if route.get("metric") is not None:
        try:
            normal["metric"] = int(route["metric"])
        except ValueError:
            raise DescriptionError(f"The metric of a route is a number, not {route['metric']}") from None
    return normal


def _subnets(subnets):
    normal = []
    for each in subnets:
        unknown = set(each) - {"subnet", "gateway", "ip_range"}
        if unknown or "subnet" not in each:
            raise DescriptionError(f"A subnet is {{subnet, gateway, ip_range}}, the last two optional: {each}")
        network = addresses.subnet(each["subnet"])
        subnet = {"subnet": str(network)}
        if each.get("gateway") is not None:
            gateway = addresses.address(each["gateway"])
            if gateway not in network:
                raise DescriptionError(f"The gateway {gateway} is not in the subnet {network}")
            subnet["gateway"] = str(gateway)
        if each.get("ip_range") is not None:
            start, end = addresses.bounds(each["ip_range"])
            if start not in network or end not in network:
                raise DescriptionError(f"The ip_range {each['ip_range']} is not in the subnet {network}")
            subnet["ip_range"] = str(each["ip_range"])
        for other in normal:
            if ipaddress.ip_network(other["subnet"]).version == network.version and network.overlaps(
                ipaddress.ip_network(other["subnet"])
            ):
                raise DescriptionError(f"The subnets {other['subnet']} and {network} overlap")
        normal.append(subnet)
    return normal


def actual(network):
    """Return a network in the same form, from the answer of ``podman network inspect``."""
    return {
        "driver": network["driver"],
        "subnets": [_actual_subnet(each) for each in network.get("subnets") or []],
        "ipv6": network["ipv6_enabled"],
        "interface_name": network.get("network_interface", ""),
        "internal": network["internal"],
        "dns": network["dns_enabled"],
        "dns_servers": [str(addresses.address(each)) for each in network.get("network_dns_servers") or []],
        "options": network.get("options") or {},
        "labels": network.get("labels") or {},
        "routes": [_route(each) for each in network.get("routes") or []],
    }


def _actual_subnet(subnet):
    actual = {"subnet": str(addresses.subnet(subnet["subnet"]))}
    if subnet.get("gateway"):
        actual["gateway"] = str(addresses.address(subnet["gateway"]))
    lease = subnet.get("lease_range")
    if lease:
        network = addresses.subnet(subnet["subnet"])
        actual["ip_range"] = f"{lease.get('start_ip') or network[1]}-{lease.get('end_ip') or network[-1]}"
    return actual


def differences(declared, held, default_isolation):
    """
    Return how a network differs from a description, as ``{what: {old, new}}``. Only what is declared is compared.

    declared, held
        A description, and a network, as of :py:func:`described` and :py:func:`actual`.
    default_isolation
        A function that returns what ``isolate`` is of a bridge that was created without it.
    """
    changes = {}
    for what, new in declared.items():
        old = held.get(what)
        if what in ("options", "labels"):
            old = {key: old[key] for key in new if key in old}
        if what == "options" and "isolate" in new and "isolate" not in old:
            same = {"isolate": default_isolation(), **old} == new
        else:
            same = _same(what, old, new, declared.get("ipv6"))
        if not same:
            changes[what] = {"old": old, "new": new}
    return changes


def _same(what, old, new, ipv6):
    if what == "subnets":
        return _same_subnets(old, new, ipv6)
    if what == "routes":
        return sorted(map(str, old)) == sorted(map(str, new))
    return old == new


def _same_subnets(old, new, ipv6):
    actual = {each["subnet"]: each for each in old}
    for declared in new:
        found = actual.pop(declared["subnet"], {})
        if declared.get("gateway", found.get("gateway")) != found.get("gateway") or not found:
            return False
        if "ip_range" in declared and (
            "ip_range" not in found or addresses.bounds(declared["ip_range"]) != addresses.bounds(found["ip_range"])
        ):
            return False
    if not ipv6:
        return not actual
    # Asked for IPv6, Podman adds a subnet of the version that is not declared.
    versions = {addresses.subnet(declared["subnet"]).version for declared in new}
    return versions.isdisjoint(addresses.subnet(extra).version for extra in actual)
