"""
Caddy in front of Immich: what this host has against it, and whether it serves
==============================================================================

``settings`` is what ``immich_settings.get`` returns.
"""

import time

from salt.exceptions import CommandExecutionError

from host_core import command
from immich_core import findings, proxy
from immich_core.obstacles import obstacle
from immich_core.obstacles import proxy as of_proxy
from immich_host import certificates
from immich_host import proxy as on_host

__virtualname__ = "immich_proxy"


def __virtual__():
    return __virtualname__


def obstacles(settings, listeners):
    """
    Return what keeps Caddy from serving Immich on this host, as findings: a port that is taken, a certificate that does
    not fit.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host (``host_core.listeners``).

    Called by ``immich_preflight.obstacles``.
    """
    sockets = listeners.with_holders({proxy.HTTP, proxy.HTTPS})
    found = list(of_proxy.of_ports(sockets, settings["lookup"]["caddy"]["service"]))
    return [*found, *_of_files(settings)] if settings["proxy"]["tls"] == proxy.FILES else found


def _of_files(settings):
    declared = settings["proxy"]
    try:
        held = certificates.first(certificates.text(declared["certificate"]), declared["certificate"])
        certificates.text(declared["key"])
        certificates.check_pair(declared["certificate"], declared["key"])
        return list(of_proxy.of_files(declared["domains"], certificates.described(held), time.time()))
    except (CommandExecutionError, ValueError) as error:
        return [obstacle("proxy-certificate", "proxy:certificate", str(error), "name PEM files that fit")]


def verify(settings):
    """
    Return what of Immich's site is not as declared, as findings (``immich_core.findings``).

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return [each for each in _examined(settings) if each["severity"] == findings.ERROR]


def warnings(settings):
    """
    Return which certificates of Immich's site expire soon, as findings.

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return [each for each in _examined(settings) if each["severity"] == findings.WARNING]


def _examined(settings):
    with command.raised_as(CommandExecutionError):
        if not on_host.active(settings):
            return [proxy.inactive(settings["lookup"]["caddy"]["service"])]
    return [each for name in settings["proxy"]["domains"] for each in on_host.examined(settings, name)]
