"""
What Podman's command line is given to create a network
=======================================================
"""

import ipaddress

from podman_core import addresses

# Arguments of a description that older Podmans have no option for.
NEWER = ("interface_name", "dns_servers", "routes")


def newer(declared):
    """Return the arguments of a description that not every Podman has an option for."""
    # The parent of these is given in a way that every Podman knows.
    without = {"interface_name"} if declared.get("driver") in ("macvlan", "ipvlan") else set()
    return [option for option in NEWER if declared.get(option) and option not in without]


def arguments(declared):
    """Return the options of ``podman network create`` for a description, as of ``description.described``."""
    words = []
    for option, flag in (("driver", "--driver"), ("interface_name", "--interface-name")):
        if option in declared:
            words += [flag, declared[option]]
    if declared.get("driver") in ("macvlan", "ipvlan") and "interface_name" in declared:
        # The older option, which every Podman has.
        words[-2:] = ["--opt", f"parent={declared['interface_name']}"]
    words += _subnet_arguments(declared.get("subnets", []))
    for option, flag, when in (
        ("ipv6", "--ipv6", True),
        ("internal", "--internal", True),
        ("dns", "--disable-dns", False),
    ):
        if declared.get(option) is when:
            words.append(flag)
    for server in declared.get("dns_servers", []):
        words += ["--dns", server]
    for route in declared.get("routes", []):
        words += ["--route", ",".join(str(part) for part in route.values())]
    for key, value in declared.get("options", {}).items():
        words += ["--opt", f"{key}={value}"]
    for key, value in declared.get("labels", {}).items():
        words += ["--label", f"{key}={value}"]
    return words


def _subnet_arguments(subnets):
    """Podman pairs the n-th gateway and the n-th range with the n-th subnet, and takes no empty one."""
    ordered = sorted(subnets, key=lambda each: "ip_range" not in each)
    gateways = any("gateway" in each for each in ordered)
    arguments = []
    for each in ordered:
        arguments += ["--subnet", each["subnet"]]
        if gateways:
            arguments += ["--gateway", each.get("gateway") or _first(each["subnet"])]
        if "ip_range" in each:
            arguments += ["--ip-range", _block(each["ip_range"])]
    return arguments


def _block(ip_range):
    """A range as the block that Podman makes it of, where there is one: Podman 4.3 takes no other."""
    if "-" not in ip_range:
        return ip_range
    start, end = addresses.bounds(ip_range)
    for prefix in range(start.max_prefixlen, -1, -1):
        block = ipaddress.ip_network((start, prefix), strict=False)
        if addresses.bounds(block) == (start, end):
            return str(block)
    return ip_range


def _first(subnet):
    """The gateway that Podman chooses by itself."""
    network = ipaddress.ip_network(subnet)
    return str(network[1] if network.num_addresses > 1 else network[0])
