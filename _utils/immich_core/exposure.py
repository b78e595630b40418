"""
Sockets of this installation that listen on more addresses than declared
=========================================================================

``sockets`` is what ``netns.listening`` returns.
"""

from immich_core import findings

EVERY_ADDRESS = ("0.0.0.0", "::")


def wider_than_declared(settings, sockets):
    """
    Return as findings that Immich listens on every address where the settings name some.

    settings
        The formula's settings.
    sockets
        As above.

    .. code-block:: python

        exposure.wider_than_declared(settings, [{"address": "0.0.0.0", "port": 2283}])
    """
    port, addresses = settings["port"], settings["bind_address"]
    if set(addresses) & set(EVERY_ADDRESS) or not _everywhere(port, sockets):
        return []
    seen = f"is {', '.join(addresses)}, and port {port} listens on every address"
    return [findings.finding("port-exposed", "exposure", seen, findings.apply("immich.app"), "immich:bind_address")]


def servers_everywhere(settings, sockets):
    """
    Return findings about managed servers of this host that listen on every address, which the formula does not declare.

    settings
        The formula's settings.
    sockets
        As above.

    .. code-block:: python

        exposure.servers_everywhere(settings, [{"address": "::", "port": 6379}])
    """
    titles = {"postgres": "PostgreSQL", "valkey": "Valkey"}
    needs = f"Immich needs {settings['gateway_address']} alone"
    return [
        findings.finding(
            f"{part}-exposed",
            "exposure",
            f"{title} listens on every address of this host, as its own configuration says: {needs}",
            "see the listen addresses in its configuration",
            severity=findings.WARNING,
        )
        for part, title in titles.items()
        if settings[part]["here"] and _everywhere(settings[part]["port"], sockets)
    ]


def _everywhere(port, sockets):
    return any(each["port"] == port and each["address"] in EVERY_ADDRESS for each in sockets)
