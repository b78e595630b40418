"""
What keeps Caddy from serving Immich: ports that others have, a certificate that does not fit
=============================================================================================
"""

import ipaddress

from immich_core import findings, proxy
from immich_core.obstacles import obstacle, ports


def of_ports(sockets, service):
    """
    Yield who has the ports of HTTP and HTTPS, unless that is Caddy.

    sockets
        Those that listen, with the holders of both ports.
    service
        Caddy's service.
    """
    for port in (proxy.HTTP, proxy.HTTPS):
        for each in ports.clashing(sockets, port, ["0.0.0.0", "::"]):
            if not ipaddress.ip_address(each["address"]).is_loopback and not ports.is_of(each["holder"], service):
                seen = f"port {port} is taken by {ports.named(each['holder'])}, and Caddy needs it"
                remedy = "stop that, or let it serve Immich (docs/howto/reverse-proxy.md) and leave immich:proxy out"
                yield obstacle("proxy-port-taken", "proxy:domain", seen, remedy)
                break


def of_files(names, certificate, now):
    """
    Yield why the certificate of a file cannot be served.

    names
        The site's names.
    certificate
        As for ``proxy.of_certificate``.
    now
        The time, in seconds.
    """
    for name in names:
        for each in proxy.of_certificate(name, certificate, proxy.FILES, now):
            if each["severity"] == findings.ERROR:
                yield obstacle(each["code"], "proxy:certificate", each["seen"], "name another file, or renew that one")
