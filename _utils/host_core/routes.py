"""
The routes of this host
=======================
"""

import ipaddress
from pathlib import Path

# Flags of /proc/net/route and /proc/net/ipv6_route: include/uapi/linux/route.h and ipv6_route.h of Linux.
RTF_REJECT = 0x0200
RTF_ANYCAST = 0x00100000
RTF_LOCAL = 0x80000000


def subnets():
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
