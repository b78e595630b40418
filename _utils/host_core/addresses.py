"""
Addresses of this host
======================
"""

import errno
import socket


def is_here(address):
    """
    Return whether a socket can be bound to an address now, as Podman binds one.

    address
        An IP address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as err:
        return err.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True
