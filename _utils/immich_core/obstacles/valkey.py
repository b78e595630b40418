"""
A Valkey at another port, and a port of its that others have
============================================================
"""

import re

from immich_core import findings
from immich_core.obstacles import obstacle, ports


def configured_port(text):
    """The port in Valkey's configuration file, or None where it names none."""
    matches = re.findall(r"^port\s+(\d+)", text, re.MULTILINE)
    return int(matches[-1]) if matches else None


def serves(port, service, sockets):
    """Whether this host's Valkey listens on a port."""
    return any(each["port"] == port and ports.is_of(each["holder"], service) for each in sockets)


def of_ports(port, service, addresses, configured, sockets):
    """
    Return what is in the way of the server, as a list of at most one finding.

    port, service, addresses
        Where it is to serve, and its service in systemd.
    configured
        Its port by its configuration file, or None.
    sockets
        As above; those on both ports with their holders.
    """
    if configured not in (port, None) and serves(configured, service, sockets):
        remedy = f"write `immich:valkey:port: {configured}`"
        return [obstacle("valkey-port", "valkey:port", f"this host's Valkey is at port {configured}", remedy)]
    for each in ports.clashing(sockets, port, addresses):
        if not ports.is_of(each["holder"], service):
            remedy = f"stop that, or write `immich:valkey:port: {ports.free(port, sockets)}`"
            seen = f"{port} is taken by {ports.named(each['holder'])}"
            return [obstacle("valkey-port-taken", "valkey:port", seen, remedy)]
    return []


def not_asked(error):
    """The finding that Valkey cannot be asked, as its connection is declared."""
    remedy = "correct the key `valkey` of the pillar or of the minion's configuration"
    return findings.finding("valkey-not-asked", "pillar", str(error).rstrip("."), remedy, "valkey")


def password_unknown():
    """The finding that this host's Valkey has a password that the pillar does not know."""
    seen = "this host's Valkey has another password for its user default (`requirepass`, or in its ACL file)"
    remedy = "write that one as `immich:valkey:admin_password: …`, and change it once the formula is applied"
    return obstacle("valkey-password-unknown", "valkey:admin_password", seen, remedy)
