"""
Immich on this host in a few words: where it answers, what is where
===================================================================

By the settings and the host's grains. Changes nothing.
"""

import ipaddress
import socket

from immich_core import sign_up

# RFC 5737: nobody's. Nothing is sent there: a datagram socket that is connected knows its own address.
ELSEWHERE = ("192.0.2.1", 9)


def overview(settings, grains):
    """The answer of ``immich.overview``."""
    settings = sign_up.at_the_end(settings)
    learning, backup = settings["machine_learning"], settings["backup"]
    services = [part for part in ("postgres", "valkey") if settings[part]["here"]]
    return {
        "urls": urls(settings, grains),
        "local_only": not settings["proxy"]["domains"]
        and all(address.is_loopback for address in map(ipaddress.ip_address, settings["bind_address"])),
        "port": settings["port"],
        "version": settings["version"],
        "packages": {part: settings["lookup"][part]["packages"] for part in services},
        "images": [settings["server"]["image"], *([learning["image"]] if learning["enabled"] else [])],
        "gateway": {
            "address": settings["gateway_address"],
            "ports": {part: settings[part]["port"] for part in services},
        },
        "network": {"name": settings["network"]["name"], "subnet": settings["network"]["subnet"]},
        "folders": {
            "photos": settings["upload_location"],
            **({"models": learning["cache_location"]} if learning["enabled"] else {}),
            "backups": backup["directory"],
            "compose file": settings["project_dir"],
        },
        "backup": backup["schedule"] if backup["enabled"] else None,
    }


def urls(settings, grains):
    """
    Return the addresses at which a phone or browser reaches the server, best first, as ``http://192.168.1.20:2283``.

    Where it is bound to every address of the host, that is the one from which the host speaks to others.

    settings
        The formula's settings.
    grains
        The minion's grains.
    """
    if settings["proxy"]["domains"]:
        return [f"https://{domain}" for domain in settings["proxy"]["domains"]]
    found = []
    for address in map(ipaddress.ip_address, settings["bind_address"]):
        found += [str(address)] if not address.is_unspecified else _own_addresses(settings, grains, address.version)
    return [
        f"http://{f'[{address}]' if ':' in address else address}:{settings['port']}" for address in dict.fromkeys(found)
    ]


def _own_addresses(settings, grains, version):
    """The address of this host that others know: of the default route, or else of a cable."""
    family, elsewhere = (socket.AF_INET, ELSEWHERE) if version == 4 else (socket.AF_INET6, ("2001:db8::1", 9))
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(elsewhere)
            return [probe.getsockname()[0]]
    except OSError:  # no route
        return _cabled(settings, grains, version) or ["127.0.0.1" if version == 4 else "::1"]


def _cabled(settings, grains, version):
    inside = [ipaddress.ip_network(network["subnet"]) for network in settings["podman"]["external_networks"]]
    found = []
    for addresses in grains.get(f"ip{version}_interfaces", {}).values():
        for address in map(ipaddress.ip_address, addresses):
            foreign = address.is_loopback or address.is_link_local or str(address) == settings["gateway_address"]
            if not foreign and not any(address in network for network in inside if network.version == version):
                found.append(str(address))
    return found[:1]
