"""
Read, create and remove the networks of Podman.

One ``podman network ls`` reads every network of a run. It is kept in ``__context__`` until this module
changes something.

What is not said about a network is left to Podman, and left alone afterwards. Addresses are compared as
addresses: ``fd00:0::/64`` is ``fd00::/64``.

Works with Podman 4.3 to 5.x, as root. What a Podman does not have (``interface_name``, ``routes``, ``dns_servers`` and
``isolate: strict`` are missing in 4.3) is refused by name.

:depends: - ``_utils/host_core``
"""

import ipaddress
import json
import re
import shutil
from pathlib import Path

import salt.utils.args
import salt.utils.platform
from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import command, podman

__func_alias__ = {"list_": "list"}

NETWORKS = "podman_network.networks"
OPTIONS = "podman_network.create_options"
VERSION = "podman_network.version"

# Flags of /proc/net/route and /proc/net/ipv6_route: include/uapi/linux/route.h and ipv6_route.h of Linux.
RTF_REJECT = 0x0200
RTF_ANYCAST = 0x00100000
RTF_LOCAL = 0x80000000

# What Podman accepts as the name of a network: containers/common, libnetwork/types/define.go.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


# Podman (5.4) reads these with strconv.ParseBool of Go, and keeps true or false.
BOOLEAN_OPTIONS = ("isolate", "no_default_route")
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), "true"),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), "false"),
}


def __virtual__():
    if not salt.utils.platform.is_linux():
        return False, "podman_network needs Linux: Podman's networks and the routes in /proc are only there."
    return True


def list_():
    """
    Return every network of Podman, as Podman describes it, by name.

    A host without Podman has none.

    Raises ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.list
    """
    if not shutil.which("podman"):
        return {}
    if NETWORKS not in __context__:
        # `null` is what Podman prints where there is no network at all.
        networks = json.loads(_podman("network", "ls", "--format", "json")) or []
        __context__[NETWORKS] = {network["name"]: network for network in networks}
    return __context__[NETWORKS]


def exists(name):
    """
    Tell whether Podman has a network.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.exists immich
    """
    return name in list_()


def inspect(name):
    """
    Return one network, in the words of this module: what ``create`` takes, as it is.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if there is no such network, or Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.inspect immich
    """
    return _actual(_network(name))


def gateway(name="podman", version=4):
    """
    Return the address of the host in a network: its gateway.

    name
        Name of the network. Defaults to Podman's default network, ``podman``.

    version
        4 or 6: the version of IP asked for. Defaults to 4.

    Raises ``CommandExecutionError`` if there is no such network, or it has no such gateway.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.gateway
        salt '*' podman_network.gateway immich
    """
    for subnet in inspect(name)["subnets"]:
        if "gateway" in subnet and ipaddress.ip_address(subnet["gateway"]).version == version:
            return subnet["gateway"]
    raise CommandExecutionError(f"Podman's network {name} has no gateway for IPv{version}")


def containers(name):
    """
    Return the names of the containers that use a network, running or not.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.containers immich
    """
    listed = json.loads(_podman("ps", "--all", "--filter", f"network={name}", "--format", "json")) or []
    return sorted(container["Names"][0] for container in listed)


def supports(option):
    """
    Tell whether ``podman network create`` of this host has an option.

    option
        An argument of ``create`` of this module: ``interface_name``, ``routes``, ``dns_servers``, …

    Raises ``CommandExecutionError`` if Podman fails or is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.supports interface_name
    """
    flag = {"routes": "route", "dns_servers": "dns"}.get(option, option.replace("_", "-"))
    if OPTIONS not in __context__:
        text = _podman("network", "create", "--help")
        __context__[OPTIONS] = re.findall(r"^\s+(?:-\w, )?--([\w-]+)", text, re.MULTILINE)
    return flag in __context__[OPTIONS]


def default_isolation():
    """
    Return what ``isolate`` is of a bridge network that was created without it: ``false``, or ``strict``.

    The bridges of Netavark 2 are isolated strictly, and Podman 6 is the first that requires it:
    https://github.com/podman-container-tools/podman/pull/28524.

    Raises ``CommandExecutionError`` if Podman fails or is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.default_isolation
    """
    return "strict" if _release() >= (6,) else "false"


def conflicts(subnet, ignore=None):
    """
    Return, in words, the routes of this host and the networks of Podman that a subnet overlaps.

    Works without Podman. Default routes, and routes that only refuse, are no conflict.

    subnet
        The subnet, as ``172.20.0.0/16``.

    ignore
        Name of a network that may have this subnet, or a list of names. Defaults to none.

    Raises ``SaltInvocationError`` if the subnet is none, ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.conflicts 172.20.0.0/16 ignore=immich
    """
    wanted = _ip_network(subnet)
    ignored = [ignore] if isinstance(ignore, str) else list(ignore or [])
    found = []
    bridges = set()
    for name, network in list_().items():
        if network["driver"] == "bridge":
            bridges.add(network.get("network_interface"))
        if name in ignored:
            continue
        found += [
            f"Podman's network {name} ({taken})"
            for taken in (ipaddress.ip_network(each["subnet"]) for each in network.get("subnets") or [])
            if taken.version == wanted.version and taken.overlaps(wanted)
        ]
    # A bridge of Podman is told by the name of its network, above.
    found += [
        f"the host's route to {route} through {interface}"
        for route, interface in _routes()
        if interface not in bridges and route.version == wanted.version and route.overlaps(wanted)
    ]
    return found


def diff(
    name,
    driver=None,
    subnet=None,
    gateway=None,
    ip_range=None,
    ipv6_subnet=None,
    subnets=None,
    ipv6=None,
    interface_name=None,
    internal=None,
    isolate=None,
    dns=None,
    dns_servers=None,
    options=None,
    labels=None,
    routes=None,
    mtu=None,
):
    """
    Return in what a network differs from a description, as ``{what: {old, new}}``: nothing if in nothing.

    Only what is said is compared. ``options`` and ``labels`` compare the keys that are said; ``subnets``,
    ``routes`` and ``dns_servers`` are whole lists. Takes the arguments of :py:func:`create`.

    Raises ``SaltInvocationError`` if the description makes no sense, ``CommandExecutionError`` if Podman
    fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.diff immich subnet=172.20.0.0/16 isolate=True
    """
    said = _spec(**_arguments(locals()))
    if not exists(name):
        return {name: {"old": None, "new": said or "present"}}
    actual = inspect(name)
    changes = {}
    for what, new in said.items():
        old = actual.get(what)
        if what in ("options", "labels"):
            old = {key: old[key] for key in new if key in old}
        if not _same(what, old, new, ipv6=said.get("ipv6")):
            changes[what] = {"old": old, "new": new}
    return changes


def create(
    name,
    driver=None,
    subnet=None,
    gateway=None,
    ip_range=None,
    ipv6_subnet=None,
    subnets=None,
    ipv6=None,
    interface_name=None,
    internal=None,
    isolate=None,
    dns=None,
    dns_servers=None,
    options=None,
    labels=None,
    routes=None,
    mtu=None,
):
    """
    Create a network, and return it as ``inspect`` does.

    name
        Name of the network: letters, digits, ``_``, ``.`` and ``-``, the first one a letter or a digit.

    driver
        ``bridge``, ``macvlan`` or ``ipvlan``. Defaults to Podman's default, ``bridge``.

    subnet
        Its subnet, as ``172.20.0.0/16``. Defaults to one that Podman chooses.

    gateway
        Address of the host in that subnet. Defaults to the subnet's first address.

    ip_range
        Part of the subnet from which containers get their addresses, as ``172.20.1.0/24`` or
        ``172.20.1.5-172.20.1.99`` (not in Podman 4.3). Defaults to the whole subnet.

    ipv6_subnet
        A subnet of IPv6 besides ``subnet``, as ``fd00:20::/64``. Its gateway is its first address. Defaults to none.

    subnets
        Several subnets, a list of ``{subnet, gateway, ip_range}``, instead of those four.

    ipv6
        Whether it has IPv6. Defaults to whether a subnet of IPv6 is given. If True, Podman adds a subnet of
        each version of IP that is not given.

    interface_name
        Name of the bridge; for ``macvlan`` and ``ipvlan``, of the parent interface. At most 15 characters.
        Defaults to a name that Podman chooses.

    internal
        Whether the network is cut off from the outside. Defaults to False.

    isolate
        Whether it is cut off from other networks that are isolated too; ``strict``: from all others (Podman 4.6
        and later). Defaults to Podman's default: False, and ``strict`` from Podman 6 on.

    dns
        Whether containers find each other by name. Defaults to Podman's default, True for ``bridge``.

    dns_servers
        List of addresses of the name servers that containers use. Defaults to the host's.

    options
        Further options of the driver, a dictionary. Defaults to none.

    labels
        Labels, a dictionary. Defaults to none.

    routes
        List of ``{destination, gateway, metric}``, the metric optional. Defaults to none.

    mtu
        Greatest size of a packet in bytes. Defaults to the driver's.

    Raises ``SaltInvocationError`` if the description makes no sense, ``CommandExecutionError`` if Podman is
    not installed, has not got an option, or refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.create immich subnet=172.20.0.0/16 gateway=172.20.0.1 isolate=True
    """
    said = _spec(**_arguments(locals()))
    arguments = _create_arguments(said)
    __context__.pop(NETWORKS, None)
    _podman("network", "create", *arguments, name)
    return inspect(name)


def check(name, **description):
    """
    Raise what ``create`` would raise before it asks Podman for the network, and return True otherwise.

    name
        Name of the network.

    description
        The other arguments of :py:func:`create`.

    Raises ``SaltInvocationError`` if the description makes no sense, ``CommandExecutionError`` if Podman is
    not installed or has not got an option.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.check immich subnet=172.20.0.0/16 isolate=strict
    """
    _create_arguments(_spec(name, **_arguments(salt.utils.args.clean_kwargs(**description))))
    return True


def remove(name):
    """
    Remove a network that no container uses, and return True.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if there is no such network, a container uses it, or Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.remove immich
    """
    __context__.pop(NETWORKS, None)
    _podman("network", "rm", name)
    return True


# --- Podman ---------------------------------------------------------------------------------------------


def _podman(*arguments):
    if not shutil.which("podman"):
        raise CommandExecutionError("Podman is not installed on this host")
    try:
        return podman.run(*arguments)
    except command.CommandError as error:
        raise CommandExecutionError(str(error)) from error


def _network(name):
    try:
        return list_()[name]
    except KeyError:
        raise CommandExecutionError(f"Podman has no network {name}") from None


def _create_arguments(said):
    arguments = []
    for option, flag in (("driver", "--driver"), ("interface_name", "--interface-name")):
        if option in said:
            arguments += [flag, said[option]]
    if said.get("driver") in ("macvlan", "ipvlan") and "interface_name" in said:
        # The older way to say it, which every Podman has.
        arguments[-2:] = ["--opt", f"parent={said['interface_name']}"]
    elif "interface_name" in said:
        _require("interface_name")
    arguments += _subnet_arguments(said.get("subnets", []))
    for option, flag, when in (
        ("ipv6", "--ipv6", True),
        ("internal", "--internal", True),
        ("dns", "--disable-dns", False),
    ):
        if said.get(option) is when:
            arguments.append(flag)
    for server in said.get("dns_servers", []):
        _require("dns_servers")
        arguments += ["--dns", server]
    for route in said.get("routes", []):
        _require("routes")
        arguments += ["--route", ",".join(str(part) for part in route.values())]
    if said.get("options", {}).get("isolate") == "strict":
        _require_strict_isolation()
    for key, value in said.get("options", {}).items():
        arguments += ["--opt", f"{key}={value}"]
    for key, value in said.get("labels", {}).items():
        arguments += ["--label", f"{key}={value}"]
    return arguments


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
    start, end = _range(ip_range)
    for prefix in range(start.max_prefixlen, -1, -1):
        block = ipaddress.ip_network((start, prefix), strict=False)
        if _range(block) == (start, end):
            return str(block)
    return ip_range


def _first(subnet):
    """The gateway that Podman chooses by itself."""
    network = ipaddress.ip_network(subnet)
    return str(network[1] if network.num_addresses > 1 else network[0])


def _require(option):
    if not supports(option):
        raise CommandExecutionError(f"Podman {_version()} cannot create a network with {option}")


def _require_strict_isolation():
    # https://github.com/containers/common/pull/1513
    if _release() < (4, 6):
        raise CommandExecutionError(
            f"Podman {_version()} cannot create a network with isolate: strict, which needs 4.6. There is "
            f"isolate: true, which cuts it off only from networks that are isolated too"
        )


def _release():
    """Podman's version as numbers: ``(5, 4)``."""
    return tuple(int(number) for number in re.findall(r"\d+", _version())[:2])


def _version():
    if VERSION not in __context__:
        __context__[VERSION] = _podman("--version").split()[-1]
    return __context__[VERSION]


# --- Descriptions: what is said, and what is there, in the same words -----------------------------------


def _arguments(scope):
    return {key: value for key, value in scope.items() if value is not None}


def _spec(name, subnets=None, options=None, **rest):
    if not NAME.fullmatch(name):
        raise SaltInvocationError(f"{name!r} is no name for a network: letters, digits, '_', '.' and '-'")
    single = {key: rest.pop(key) for key in ("subnet", "gateway", "ip_range") if key in rest}
    second = rest.pop("ipv6_subnet", None)
    if (single or second) and subnets:
        raise SaltInvocationError("Give either subnet, gateway, ip_range and ipv6_subnet, or subnets")
    if (single or second) and "subnet" not in single:
        raise SaltInvocationError(f"{' and '.join(single) or 'ipv6_subnet'} without a subnet")
    if second and {_ip_network(each).version for each in (single["subnet"], second)} != {4, 6}:
        raise SaltInvocationError(f"ipv6_subnet {second} has to be of IPv6, and the subnet beside it of IPv4")
    said = {key: _normal(key, rest[key]) for key in rest if key not in ("isolate", "mtu")}
    if single:
        subnets = [single, *([{"subnet": second}] if second else [])]
    if subnets:
        said["subnets"] = _spec_subnets(subnets)
    options = dict(options or {}, **{key: rest[key] for key in ("isolate", "mtu") if key in rest})
    if "parent" in options:  # Podman keeps it as the name of the interface.
        said.setdefault("interface_name", str(options.pop("parent")))
    if options:
        said["options"] = {str(key): _option(str(key), value) for key, value in options.items()}
    _check(said)
    return said


def _check(said):
    bridge = said.get("driver", "bridge") == "bridge"
    if len(said.get("interface_name", "")) > 15:
        raise SaltInvocationError(f"interface_name {said['interface_name']} has more than 15 characters")
    if said.get("dns_servers") and said.get("dns") is False:
        raise SaltInvocationError("dns_servers need dns: Podman refuses them where dns is False")
    if said.get("ipv6") is False and any(":" in each["subnet"] for each in said.get("subnets", [])):
        raise SaltInvocationError("ipv6 is False, but a subnet of IPv6 is given")
    if said.get("dns") and not bridge:
        raise SaltInvocationError(f"dns needs driver bridge: a {said['driver']} network has none")


def _normal(what, value):
    if what == "dns_servers":
        return [str(_ip_address(server)) for server in value]
    if what == "labels":
        return {str(key): _text(text) for key, text in value.items()}
    if what == "routes":
        return [_route(route) for route in value]
    if what in ("ipv6", "internal", "dns"):
        if not isinstance(value, bool):
            raise SaltInvocationError(f"{what} is True or False, not {value!r}")
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
        raise SaltInvocationError(f"A route has a destination and a gateway: {route}")
    normal = {
        "destination": str(_ip_network(route["destination"])),
        "gateway": str(_ip_address(route["gateway"])),
    }
    if route.get("metric") is not None:
        try:
            normal["metric"] = int(route["metric"])
        except ValueError:
            raise SaltInvocationError(f"The metric of a route is a number, not {route['metric']}") from None
    return normal


def _spec_subnets(subnets):
    normal = []
    for each in subnets:
        unknown = set(each) - {"subnet", "gateway", "ip_range"}
        if unknown or "subnet" not in each:
            raise SaltInvocationError(f"A subnet is {{subnet, gateway, ip_range}}, the last two optional: {each}")
        network = _ip_network(each["subnet"])
        subnet = {"subnet": str(network)}
        if each.get("gateway") is not None:
            gateway = _ip_address(each["gateway"])
            if gateway not in network:
                raise SaltInvocationError(f"The gateway {gateway} is not in the subnet {network}")
            subnet["gateway"] = str(gateway)
        if each.get("ip_range") is not None:
            start, end = _range(each["ip_range"])
            if start not in network or end not in network:
                raise SaltInvocationError(f"The ip_range {each['ip_range']} is not in the subnet {network}")
            subnet["ip_range"] = str(each["ip_range"])
        for other in normal:
            if ipaddress.ip_network(other["subnet"]).version == network.version and network.overlaps(
                ipaddress.ip_network(other["subnet"])
            ):
                raise SaltInvocationError(f"The subnets {other['subnet']} and {network} overlap")
        normal.append(subnet)
    return normal


def _range(ip_range):
    """First and last address of a range: Podman leaves out the first of a block, and keeps the last."""
    text = str(ip_range)
    if "-" in text:
        start, _, end = text.partition("-")
        return _ip_address(start.strip()), _ip_address(end.strip())
    network = _ip_network(text)
    return network[min(1, network.num_addresses - 1)], network[-1]


def _actual(network):
    return {
        "driver": network["driver"],
        "subnets": [_actual_subnet(each) for each in network.get("subnets") or []],
        "ipv6": network["ipv6_enabled"],
        "interface_name": network.get("network_interface", ""),
        "internal": network["internal"],
        "dns": network["dns_enabled"],
        "dns_servers": [str(_ip_address(each)) for each in network.get("network_dns_servers") or []],
        "options": network.get("options") or {},
        "labels": network.get("labels") or {},
        "routes": [_route(each) for each in network.get("routes") or []],
    }


def _actual_subnet(subnet):
    actual = {"subnet": str(_ip_network(subnet["subnet"]))}
    if subnet.get("gateway"):
        actual["gateway"] = str(_ip_address(subnet["gateway"]))
    lease = subnet.get("lease_range")
    if lease:
        network = _ip_network(subnet["subnet"])
        actual["ip_range"] = f"{lease.get('start_ip') or network[1]}-{lease.get('end_ip') or network[-1]}"
    return actual


def _same(what, old, new, ipv6=None):
    if what == "subnets":
        return _same_subnets(old, new, ipv6)
    if what == "routes":
        return sorted(map(str, old)) == sorted(map(str, new))
    if what == "options" and "isolate" in new and "isolate" not in old:
        old = {"isolate": default_isolation(), **old}
    return old == new


def _same_subnets(old, new, ipv6):
    actual = {each["subnet"]: each for each in old}
    for said in new:
        found = actual.pop(said["subnet"], {})
        if said.get("gateway", found.get("gateway")) != found.get("gateway") or not found:
            return False
        if "ip_range" in said and ("ip_range" not in found or _range(said["ip_range"]) != _range(found["ip_range"])):
            return False
    if not ipv6:
        return not actual
    # Asked for IPv6, Podman adds a subnet of the version that nobody gave.
    versions = {_ip_network(said["subnet"]).version for said in new}
    return versions.isdisjoint(_ip_network(extra).version for extra in actual)


# --- Addresses and routes -------------------------------------------------------------------------------


def _ip_network(text):
    try:
        # Podman takes any address of a subnet for the subnet.
        return ipaddress.ip_network(str(text), strict=False)
    except ValueError as exc:
        raise SaltInvocationError(f"{text} is no subnet: {exc}") from exc


def _ip_address(text):
    try:
        return ipaddress.ip_address(str(text))
    except ValueError as exc:
        raise SaltInvocationError(f"{text} is no address: {exc}") from exc


def _routes():
    """Yield the subnets that this host routes, with the interface of each, but for the default routes."""
    for line in _lines("/proc/net/route")[1:]:
        interface, destination, _, flags, _, _, _, mask = line.split()[:8]
        if int(flags, 16) & RTF_REJECT:
            continue
        prefix = bin(int(mask, 16)).count("1")
        # The kernel prints the address as a number in the machine's byte order.
        yield from _unless_default(bytes.fromhex(destination)[::-1], prefix, interface)
    for line in _lines("/proc/net/ipv6_route"):
        destination, prefix, *_, flags, interface = line.split()
        if int(flags, 16) & (RTF_REJECT | RTF_ANYCAST | RTF_LOCAL) or interface == "lo":
            continue
        yield from _unless_default(bytes.fromhex(destination), int(prefix, 16), interface)


def _unless_default(packed, prefix, interface):
    route = ipaddress.ip_network((packed, prefix))
    # Two halves (0.0.0.0/1, 128.0.0.0/1) are how VPNs write a default route.
    if prefix > 1 and not route.is_link_local and not route.is_multicast:
        yield route, interface


def _lines(path):
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # A kernel without IPv6.
        return []
