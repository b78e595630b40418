"""
The host's address for Immich's containers, and the firewall table that protects it.

Containers know the host as ``host.containers.internal``: one address, on which PostgreSQL and Valkey listen. An
address that no interface of the host has permanently is added to ``lo`` by ``immich-gateway.service``, so that it
exists before any container and before the two services. The nftables table ``inet immich`` permits only the Immich
network, and denies that network everything else on which the host listens. It also denies others direct access to the
containers, except through the published port: this host routes, so packets from a neighbour would reach them.
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


def desired(settings):
    """
    Return the declared gateway: ``address``, ``network``, ``ports``, ``host_ports``, ``services``, ``sign_up`` and
    ``metrics_allow``.

    Only managed services count: the formula does not protect services that it does not manage. If such a service is
    on this host all the same, under ``host.containers.internal`` or one of the host's addresses, its port is among
    ``host_ports``.

    settings
        The settings, as ``immich_settings.get`` returns them.

    Called by the SLS ``immich.gateway``.
    """
    return gateway.declared(settings, lambda: [held["local"] for _, held in on_host.known_addresses(__context__)])


def plan(address, network, ports, host_ports=(), sign_up="open", metrics_allow=()):
    """
    Return the content of the unit and the table, as data for their templates.

    address
        The host's address for containers.

    network
        The Immich network: ``name``, ``subnet``, and ``gateway`` and ``interface_name`` where it has them.

    ports
        List of the TCP ports that are open to the Immich network only.

    host_ports
        List of the TCP ports of this host that are open to the Immich network at any address. Defaults to none.

    sign_up
        Who can sign up as Immich's administrator: with ``host`` this host alone reaches Immich's server, with ``root``
        its root alone, with ``open`` and ``closed`` everybody. Defaults to ``open``.

    metrics_allow
        List of the addresses and subnets of IPv4 from which the ports of Immich's metrics are reached, besides from
        this host. Defaults to none.

    Raises ``CommandExecutionError`` if Podman or ``ip`` fails.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_gateway.plan 10.88.0.1 '{name: immich, subnet: 172.20.0.0/16}' '[5432, 6379]'
    """
    networks = __salt__["podman_network.list"]()
    addresses = on_host.known_addresses(__context__)
    return gateway.plan(address, network, ports, host_ports, networks, addresses, sign_up, metrics_allow)


def verify(settings):
    """
    Return what of the gateway is not as declared, as findings (``immich_core.findings``).

    settings
        The settings, as ``immich_settings.get`` returns them.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    declared = desired(settings)
    there = on_host.status(
        plan(declared["address"], declared["network"], declared["ports"], declared["host_ports"]), __context__
    )
    broken = []
    if not there["address"]:
        seen = f"This host does not have the address {declared['address']}"
        broken.append(findings.finding("gateway-address-absent", PART, seen, APPLY, UNIT))
    if there["firewall"] != "loaded":
        seen = f"The firewall table inet immich is {there['firewall']}"
        broken.append(findings.finding("gateway-firewall", PART, seen, APPLY, UNIT))
    return broken
