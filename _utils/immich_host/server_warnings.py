"""
What a person should know of a server that runs
===============================================
"""

from immich_core import compose
from immich_host import administrator
from immich_io import overview, server


def found(settings, salt, timeout=10):
    """
    Return what a person should know of a server that runs, as findings (``immich_core.findings``): that it is in
    maintenance mode, or that nobody has signed up as administrator.

    settings
        The formula's settings.
    salt
        Salt's execution functions by name (``__salt__``).
    timeout
        Seconds for the server's answer, 10 by default.
    """
    url = compose.server_url(settings)
    known = server.state(url, lambda: administrator.in_database(settings["postgres"], salt), timeout)
    return server.warnings(known, settings, overview.urls(settings, salt["grains.items"]())[0])
