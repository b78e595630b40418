"""
Metrics: where they are published and who may read them
=======================================================
"""

import ipaddress

from immich_core.settings.networks import ip_address
from immich_core.settings.problems import PILLAR_KEY
from immich_core.settings.schema import entries

PORTS = ("api_port", "microservices_port")


def check_metrics(settings):
    """What is wrong with the addresses and ports of metrics."""
    metrics = settings["metrics"]
    listen = ip_address(metrics["listen"])
    if listen is None or listen.version != 4 or listen.is_multicast or listen.is_link_local:
        yield ("metrics", "listen"), "must be an address of IPv4 that a host can have, such as 127.0.0.1 or 0.0.0.0"
        listen = None
    for index, text in entries(metrics["allow"]):
        problem = _not_a_reader(text)
        if problem:
            yield ("metrics", "allow", index), problem
    if not metrics["enabled"]:
        return
    if listen is not None and listen.is_loopback and metrics["allow"]:
        yield ("metrics", "allow"), f"has no effect while {PILLAR_KEY}:metrics:listen is {listen}"
    elif listen is not None and not listen.is_loopback and not metrics["allow"]:
        yield (
            ("metrics", "allow"),
            f"is required where {PILLAR_KEY}:metrics:listen is {listen}: the ports ask for no login",
        )
    yield from _check_ports(settings)


def _not_a_reader(text):
    network = _network(text)
    if network is None:
        return "must be an address or a subnet of IPv4, such as 192.0.2.7 or 192.0.2.0/24"
    if network.prefixlen == 0:
        return "is everybody: name who reads the metrics, as the ports ask for no login"
    return None


def _network(text):
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        return None


def _check_ports(settings):
    taken = {settings["port"]: "port"}
    for service in ("postgres", "valkey"):
        if settings[service]["managed"]:
            taken.setdefault(settings[service]["port"], f"{service}:port")
    for key in PORTS:
        port = settings["metrics"][key]
        if port in taken:
            yield ("metrics", key), f"is the same as {PILLAR_KEY}:{taken[port]}"
        taken.setdefault(port, f"metrics:{key}")


def allowed(texts):
    """
    Return addresses and subnets in the form in which nftables takes them as one set: none is in another one.

    texts
        Those of valid settings.

    .. code-block:: python

        metrics.allowed(["192.0.2.0/24", "192.0.2.7"])
    """
    return [str(network) for network in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, texts))]
