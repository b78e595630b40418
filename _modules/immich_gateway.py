"""
The host's address for Immich's containers, and the firewall table in front of it.

Containers know the host as ``host.containers.internal``: one address, at which PostgreSQL and Valkey answer.
An address that no interface of the host has for good is put on ``lo`` by ``immich-gateway.service``, so that it
is there before any container and before the two services. The nftables table ``inet immich`` lets nobody but
the Immich network in, and keeps that network from what else the host listens at. Nor does it let anybody past the
published port to the containers: this host routes, and a neighbour who sends it packets for them would be served.
"""

import json
import shutil
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import command
from immich_core import findings, gateway, units

UNIT = units.GATEWAY
RULES = "/etc/immich-gateway.nft"
# What the unit writes after loading: the rules it loaded, and the table as nft printed it then.
LOADED_RULES = Path("/run/immich-gateway/rules.nft")
LOADED_TABLE = Path("/run/immich-gateway/table")
ADDRESSES = "immich_gateway.addresses"
# What `ip` and `nft` may take, in seconds, and print, in bytes: networks and rules of others are among it.
SECONDS, LARGEST_ANSWER = 30, 4 * 1024**2
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

    Called by the SLS ``immich.gateway``.
    """
    return gateway.declared(settings, lambda: [held["local"] for _, held in _known_addresses()])


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
    networks = __salt__["podman_network.list"]()
    return gateway.plan(address, network, ports, host_ports, networks, _known_addresses())


def status(plan):
    """
    Return what is there: ``address`` (bool), ``stale`` addresses of earlier settings, and ``firewall``.

    ``firewall`` is ``loaded``, ``absent``, ``changed`` (by somebody else), or ``outdated`` (the rules on the
    disk are others than the loaded ones).

    plan
        What ``plan`` returns.

    Raises ``CommandExecutionError`` if ``ip`` or ``nft`` fails.

    Called by the state ``immich_gateway.active``.
    """
    on_lo = [held for name, held in _addresses() if name == "lo"]
    address = plan["address"] if plan["add"] else None
    return {
        "address": address is None or any(held["local"] == address for held in on_lo),
        "stale": [held["local"] for held in on_lo if held.get("label") == gateway.LABEL and held["local"] != address],
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

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    declared = wanted(settings)
    there = status(plan(declared["address"], declared["network"], declared["ports"], declared["host_ports"]))
    broken = []
    if not there["address"]:
        seen = f"This host does not hold {declared['address']}"
        broken.append(findings.finding("gateway-address-absent", PART, seen, APPLY, UNIT))
    if there["firewall"] != "loaded":
        seen = f"The firewall table inet immich is {there['firewall']}"
        broken.append(findings.finding("gateway-firewall", PART, seen, APPLY, UNIT))
    return broken


def _firewall():
    if not shutil.which("nft"):
        return "absent"
    try:
        table = _run("nft", "-s", "list", "table", "inet", "immich")
    except CommandExecutionError as error:
        if "No such file or directory" in str(error):
            return "absent"
        raise
    if _read(LOADED_RULES) != _read(Path(RULES)):
        return "outdated"
    return "loaded" if table.strip() == _read(LOADED_TABLE).strip() else "changed"


def _known_addresses():
    """Those of the first look of a run: what a run changes itself is on lo or a bridge."""
    return __context__.get(ADDRESSES) or _addresses()


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


def _run(*words):
    with command.raised_as(CommandExecutionError):
        return command.run(words, SECONDS, LARGEST_ANSWER)
