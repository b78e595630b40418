"""
Addresses of this host
======================
"""

import socket


def is_own(host):
    """Return whether a name or address is this host's own: a socket can be bound to it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
