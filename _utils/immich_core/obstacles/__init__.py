"""
What stands in the way of a component on a host: decided from sockets, texts and answers, without asking the host
=================================================================================================================

``sockets`` are those that listen, each with its ``address``, its ``port`` and its ``holder``
(``host_core.listeners``).
"""

from immich_core import findings


def obstacle(code, path, seen, remedy):
    """
    The finding that this host cannot fulfil a setting.

    path
        The setting, below the pillar key ``immich``.
    """
    return findings.finding(code, "pillar", seen, remedy, f"immich:{path}")
