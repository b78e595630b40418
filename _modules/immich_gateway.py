"""
The host's address for Immich's containers, and the firewall table in front of it.

Containers know the host as ``host.containers.internal``: one address, at which PostgreSQL and Valkey answer.
An address that no interface of the host has for good is put on ``lo`` by ``immich-gateway.service``, so that it
is there before any container and before the two services. The nftables table ``inet immich`` lets nobody but
the Immich network in, and keeps that network from what else the host listens at. Nor does it let anybody past the
published port to the containers: this host routes, and a neighbour who sends it packets for them would be served.
"""

import ipaddress
import json
import shutil
from pathlib import Path

from salt.exceptions import CommandExecutionError

from immich_core import findings, units

UNIT = units.GATEWAY
RULES = "/etc/immich-gateway.nft"
# Marks the address as the unit's own. A label begins with the name of its interface.
LABEL = "lo:immich"
HOST_NAME = "host.containers.internal"
# What the unit writes after loading: the rules it loaded, and the table as nft printed it then.
LOADED_RULES = Path("/run/immich-gateway/rules.nft")
LOADED_TABLE = Path("/run/immich-gateway/table")
ADDRESSES = "immich_gateway.addresses"
# The doctor's row.
PART = "gateway and firewall"
APPLY = findings.apply("immich.gateway")


def __virtual__():
    if "podman_network.list" not in __salt__:
        return False, "immich_gateway needs the execution module podman_network."
    return True


def wanted(settings):
    """
    Return what the settings want of the gateway: ``address``, ``network``, ``ports``, ``host_ports`` and ``services``.

    Only managed services count: the formula puts no firewall in front of what it does not manage. Where that is on this
    host all the same, by ``host.containers.internal`` or one of its addresses, its port is among ``host_ports``.

    settings
        The settings, as ``immich_settings.get`` returns them.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.wanted "$(salt-call --local --out=json immich_settings.get | jq .local)"
    """
    managed = [name for name in ("postgres", "valkey") if settings[name]["managed"]]
    others = [settings[name] for name in ("postgres", "valkey") if name not in managed]
    here = [service["port"] for service in others if _is_here(service["host"])]
    units = {"postgres": "unit", "valkey": "service"}
    return {
        "address": settings["gateway_address"],
        "network": settings["network"],
        "ports": [settings[name]["port"] for name in managed],
        "host_ports": sorted({*settings["host_ports"], *here}),
        "services": [settings["lookup"][name][units[name]] for name in managed],
    }


def plan(address, network, ports, host_ports=()):
    """
    Return what the unit and the table hold, as data for their templates.

    address
        The host's address for containers.

    network
        The Immich network: ``name``, ``subnet``, and ``gateway`` and ``interface_name`` where it has them.

    ports
        List of the TCP ports that are open to the Immich network, and closed to others.

    host_ports
        List of the TCP ports of this host that are open to the Immich network at any address. Defaults to none.

    Raises ``CommandExecutionError`` if Podman or ``ip`` fails.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.plan 10.88.0.1 '{name: immich, subnet: 172.20.0.0/16}' '[5432, 6379]'
    """
    parsed = ipaddress.ip_address(address)
    networks = __salt__["podman_network.list"]()
    bridges = {each.get("network_interface") for each in networks.values() if each["driver"] == "bridge"}
    # The templates of a run ask one after the other. What a run changes itself is on lo or a bridge.
    addresses = __context__.get(ADDRESSES) or _addresses()
    holders = [name for name, held in addresses if held["local"] == str(parsed) and name not in {"lo", *bridges}]
    # A Podman that cannot name the interface (4.3) counts: podman1, podman2, …
    interface = networks.get(network["name"], network).get("network_interface") or network.get("interface_name")
    interface = interface or "podman*"
    subnet = ipaddress.ip_network(network["subnet"], strict=False)
    # Whatever comes over a bridge that is known is Immich's, also from the bridge's own addresses of IPv6.
    known = not interface.endswith("*")
    subnets = {_family(subnet): subnet}
    gateways = {_family(subnet): network["gateway"]} if network.get("gateway") else {}
    if network.get("ipv6_subnet"):
        subnets["ip6"] = ipaddress.ip_network(network["ipv6_subnet"])
        gateways["ip6"] = subnets["ip6"][1]
    sources = [f" {of} saddr {each}" for of, each in subnets.items()]
    return {
        "address": str(parsed),
        "prefix": parsed.max_prefixlen,
        "family": _family(parsed),
        "label": LABEL if parsed.version == 4 else "",
        "add": not holders,
        "interface": interface,
        "from": [f'iifname "{interface}"{source}' for source in ([""] if known else sources)],
        "past": [f'oifname "{interface}" iifname != "{interface}" {of} daddr {each}' for of, each in subnets.items()],
        "outside": f'iifname != "lo" iifname != "{interface}"',
        "names": [f" ct original {of} daddr {each}" for of, each in gateways.items()] or [""],
        "sources": [str(subnet)] if subnet.version == parsed.version else [],
        "ports": sorted(ports),
        "host_ports": sorted(host_ports),
    }


def status(plan):
    """
    Return what is there: ``address`` (bool), ``stale`` addresses of earlier settings, and ``firewall``.

    ``firewall`` is ``loaded``, ``absent``, ``changed`` (by somebody else), or ``outdated`` (the rules on the
    disk are others than the loaded ones).

    plan
        What ``plan`` returns.

    Raises ``CommandExecutionError`` if ``ip`` or ``nft`` fails.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.status '{address: 10.88.0.1, add: true}'
    """
    on_lo = [held for name, held in _addresses() if name == "lo"]
    address = plan["address"] if plan["add"] else None
    return {
        "address": address is None or any(held["local"] == address for held in on_lo),
        "stale": [held["local"] for held in on_lo if held.get("label") == LABEL and held["local"] != address],
        "firewall": _firewall(),
    }


def load():
    """
    Put address and table in place, by starting or reloading the unit as it is on the disk, and return True.

    Raises ``CommandExecutionError`` if the unit fails.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.load
    """
    __salt__["systemd_unit.call"]("daemon-reload")
    __salt__["systemd_unit.call"]("reload-or-restart", UNIT)
    return True


def release(address):
    """
    Take an address that the unit had put there off ``lo``, and return True.

    address
        The address.

    Raises ``CommandExecutionError`` if ``ip`` fails.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.release 10.88.0.1
    """
    _run("ip", "address", "delete", f"{address}/32", "dev", "lo")
    return True


def verify(settings):
    """
    Return what of the gateway is not as declared, as findings (``immich_core.findings``).

    settings
        The settings, as ``immich_settings.get`` returns them.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.verify "$SETTINGS"
    """
    gateway = wanted(settings)
    there = status(plan(gateway["address"], gateway["network"], gateway["ports"], gateway["host_ports"]))
    broken = []
    if not there["address"]:
        seen = f"This host does not hold {gateway['address']}"
        broken.append(findings.finding("gateway-address-absent", PART, seen, APPLY, UNIT))
    if there["firewall"] != "loaded":
        seen = f"The firewall table inet immich is {there['firewall']}"
        broken.append(findings.finding("gateway-firewall", PART, seen, APPLY, UNIT))
    return broken


def _is_here(host):
    """Whether containers that are told this name or address come to this host."""
    return host == HOST_NAME or any(held["local"] == host for _, held in __context__.get(ADDRESSES) or _addresses())


def _family(address):
    return "ip" if address.version == 4 else "ip6"


def _firewall():
    if not shutil.which("nft"):
        return "absent"
    listed = _run_all("nft", "-s", "list", "table", "inet", "immich")
    if listed["retcode"] and "No such file or directory" in listed["stderr"]:
        return "absent"
    table = _output(listed, "nft")
    if _read(LOADED_RULES) != _read(Path(RULES)):
        return "outdated"
    return "loaded" if table.strip() == _read(LOADED_TABLE).strip() else "changed"


def _addresses():
    """Pairs of an interface's name and one address of it, as `ip` describes it."""
    if not shutil.which("ip"):
        return []
    interfaces = json.loads(_run("ip", "-json", "address", "show"))
    __context__[ADDRESSES] = [
        (each["ifname"], held) for each in interfaces if "ifname" in each for held in each["addr_info"]
    ]
    return __context__[ADDRESSES]


def _read(path):
    try:
        return path.read_text(encoding="utf8")
    except FileNotFoundError:
        return ""


def _run(*command):
    return _output(_run_all(*command), " ".join(command))


def _run_all(*command):
    # ignore_retcode: the error is raised by _output, and told by whoever asked.
    return __salt__["cmd.run_all"](list(command), python_shell=False, ignore_retcode=True, output_loglevel="debug")


def _output(result, what):
    if result["retcode"]:
        raise CommandExecutionError(f"{what}: {(result['stderr'] or result['stdout']).strip()}")
    return result["stdout"]
