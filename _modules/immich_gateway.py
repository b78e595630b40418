"""
The host's address for Immich's containers, and the firewall table in front of it.

Containers know the host as ``host.containers.internal``: one address, at which PostgreSQL and Valkey answer.
An address that no interface of the host has for good is put on ``lo`` by ``immich-gateway.service``, so that it
is there before any container and before the two services. The nftables table ``inet immich`` lets nobody but
the Immich network in, and keeps that network from what else the host listens at. Nor does it let anybody past the
published port to the containers: this host routes, and a neighbour who sends it packets for them would be served.
"""

from immich_core import findings, gateway, units
from immich_host import gateway as on_host

UNIT = units.GATEWAY
# The doctor's row.
PART = "gateway and firewall"
APPLY = findings.apply("immich.gateway")


def __virtual__():
    if "podman_network.list" not in __salt__:
        return False, "immich_gateway needs the execution module podman_network."
    return True


def wanted(settings):
    """
    Return what the settings want of the gateway: ``address``, ``network``, ``ports``, ``host_ports``, ``services`` and
    ``sign_up``.

    Only managed services count: the formula puts no firewall in front of what it does not manage. Where that is on this
    host all the same, by ``host.containers.internal`` or one of its addresses, its port is among ``host_ports``.

    settings
        The settings, as ``immich_settings.get`` returns them.

    Called by the SLS ``immich.gateway``.
    """
    return gateway.declared(settings, lambda: [held["local"] for _, held in on_host.known_addresses(__context__)])


def plan(address, network, ports, host_ports=(), sign_up="open"):
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

    sign_up
        Who can sign up as Immich's administrator: with ``host`` this host alone reaches Immich's server, with ``root``
        its root alone, with ``open`` and ``closed`` everybody. Defaults to ``open``.

    Raises ``CommandExecutionError`` if Podman or ``ip`` fails.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.plan 10.88.0.1 '{name: immich, subnet: 172.20.0.0/16}' '[5432, 6379]'
    """
    networks = __salt__["podman_network.list"]()
    return gateway.plan(address, network, ports, host_ports, networks, on_host.known_addresses(__context__), sign_up)


def verify(settings):
    """
    Return what of the gateway is not as declared, as findings (``immich_core.findings``).

    settings
        The settings, as ``immich_settings.get`` returns them.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    declared = wanted(settings)
    there = on_host.status(
        plan(declared["address"], declared["network"], declared["ports"], declared["host_ports"]), __context__
    )
    broken = []
    if not there["address"]:
        seen = f"This host does not hold {declared['address']}"
        broken.append(findings.finding("gateway-address-absent", PART, seen, APPLY, UNIT))
    if there["firewall"] != "loaded":
        seen = f"The firewall table inet immich is {there['firewall']}"
        broken.append(findings.finding("gateway-firewall", PART, seen, APPLY, UNIT))
    return broken
