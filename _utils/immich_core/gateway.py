"""
The gateway: what settings declare of it, and what its unit and its firewall table hold
========================================================================================

The host's address for containers, and the nftables table in front of it and of Immich's containers.
"""

import ipaddress

from immich_core import sign_up, telemetry

# Marks the address as the unit's own. A label begins with the name of its interface.
LABEL = "lo:immich"
# As Podman calls the host for containers.
HOST_NAME = "host.containers.internal"
SERVERS = {"postgres": "unit", "valkey": "service"}
# The port of Immich's server in its container.
SERVER_PORT = 2283


def declared(settings, addresses):
    """
    Return what the settings want of the gateway: ``address``, ``network``, ``ports``, ``host_ports``, ``services``,
    ``sign_up`` and ``metrics_allow``.

    Only managed services count: the formula puts no firewall in front of what it does not manage. Where that is on this
    host all the same, by ``host.containers.internal`` or one of its addresses, its port is among ``host_ports``.

    settings
        The formula's settings.
    addresses
        Function that returns those of this host, as text. Called only where it matters.

    .. code-block:: python

        gateway.declared(settings, lambda: ["127.0.0.1", "192.0.2.7"])
    """
    here = [name for name in SERVERS if settings[name]["here"]]
    others = [settings[name] for name in SERVERS if not settings[name]["managed"]]
    foreign = [server["port"] for server in others if server["host"] == HOST_NAME or server["host"] in addresses()]
    return {
        "address": settings["gateway_address"],
        "network": settings["network"],
        "ports": [settings[name]["port"] for name in here],
        "host_ports": sorted({*settings["host_ports"], *foreign}),
        "services": [settings["lookup"][name][SERVERS[name]] for name in here],
        "sign_up": settings["sign_up"],
        "metrics_allow": settings["metrics"]["allow"],
    }


def plan(address, network, ports, host_ports, networks, addresses, setup=sign_up.OPEN, metrics_allow=()):
    """
    Return what the unit and the table hold, as data for their templates.

    address
        The host's address for containers.
    network
        The Immich network: ``name``, ``subnet``, and ``gateway`` and ``interface_name`` where it has them.
    ports
        TCP ports that are open to the Immich network, and closed to others.
    host_ports
        TCP ports of this host that are open to the Immich network at any address.
    networks
        Podman's networks by name, as ``podman_network.list`` returns them.
    addresses
        Pairs of an interface's name and one address of it, as ``ip -json`` describes it.
    setup
        Who can sign up as Immich's administrator (``sign_up``): others do not reach the server then. Defaults to
        ``open``.
    metrics_allow
        Addresses and subnets of IPv4 that reach the ports of Immich's metrics. Defaults to none.

    .. code-block:: python

        gateway.plan("10.88.0.1", {"name": "immich", "subnet": "172.20.0.0/16"}, [5432, 6379], [], {}, [])
    """
    parsed = ipaddress.ip_address(address)
    bridges = {each.get("network_interface") for each in networks.values() if each["driver"] == "bridge"}
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
        "server": f"tcp dport {SERVER_PORT}",
        "closed": sign_up.is_local(setup),
        "metrics": f"tcp dport {{ {', '.join(map(str, telemetry.PORTS.values()))} }}",
        "metrics_allow": list(metrics_allow),
        # Of this host, where root alone has access: a reverse proxy here would pass on everybody's requests.
        "root_alone": [f"{of} daddr {each}" for of, each in subnets.items()] if setup == sign_up.ROOT else [],
    }


def _family(address):
    return "ip" if address.version == 4 else "ip6"
