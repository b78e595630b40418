"""
Addresses and ports that others have
====================================
"""

import ipaddress
import os

from immich_core import compose
from immich_core.obstacles import obstacle

LAST_PORT = 65535


def of_addresses(addresses, is_here, path="bind_address"):
    """
    Yield the addresses at which Immich cannot be published.

    addresses
        Those of the settings.
    is_here
        Function that says whether this host has one.
    path
        The setting that has them. Defaults to ``bind_address``.
    """
    for address in addresses:
        if not is_here(address):
            every = ipaddress.ip_address(address).is_unspecified
            missing = "this host has no IPv6" if every else f"{address} is on no interface of this host"
            seen = f"{missing}, so Immich cannot be published there"
            yield obstacle("address-absent", path, seen, "bring it up, or remove it")


def of_immich(port, addresses, sockets, path="port"):
    """
    Yield who has the port at which Immich is to be published, unless that is Immich.

    port, addresses
        Those of the settings.
    sockets
        As above.
    path
        The setting that has the port. Defaults to ``port``.
    """
    for each in clashing(sockets, port, addresses):
        if not _is_immich(each["holder"]):
            seen = f"{port} is taken by {named(each['holder'])}"
            yield obstacle("port-taken", path, seen, "stop that, or set another port")
            return


def _is_immich(holder):
    # Podman's conmon holds the published ports of a container, and before it the podman that starts it; the container's
    # name is among the arguments of both.
    if program(holder) not in ("conmon", "podman"):
        return False
    return any(compose.SERVER in argument for argument in holder["arguments"])


def clashing(sockets, port, addresses):
    """The sockets that keep others from listening on a port at some addresses."""
    desired = [ipaddress.ip_address(address) for address in addresses]
    return [
        each
        for each in sockets
        if each["port"] == port and any(clash(one, ipaddress.ip_address(each["address"])) for one in desired)
    ]


def clash(desired, held):
    """Whether a socket at one address keeps others from listening at another one, on the same port."""
    if desired == held:
        return True
    if held.is_unspecified:
        # Another program's :: may be that of both versions.
        return held.version == 6 or desired.version == 4
    return desired.is_unspecified and desired.version == held.version


def free(after, sockets, taken=()):
    """The first port after one at which nobody listens, and that is none of those taken otherwise."""
    taken = {each["port"] for each in sockets} | set(taken)
    return next(port for port in range(after + 1, LAST_PORT) if port not in taken)


def is_of(holder, service):
    """Whether the process that holds a socket is of a service of systemd."""
    return bool(holder) and holder["unit"] == f"{service}.service"


def program(holder):
    """Name of the program of a process; empty where it cannot be seen."""
    return os.path.basename(holder["arguments"][0].split(" ")[0]) if holder else ""


def named(holder):
    """A process in words by which a person finds it."""
    if not holder:
        return "another process"
    name = program(holder) or "a process without a name"
    if name == "conmon" and "-n" in holder["arguments"][:-1]:
        name = f"the container {holder['arguments'][holder['arguments'].index('-n') + 1]}"
    unit = f"{holder['unit']}, " if holder["unit"].endswith(".service") else ""
    return f"{name} ({unit}process {holder['number']})"
