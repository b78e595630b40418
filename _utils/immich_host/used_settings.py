"""
Which of Immich's own settings the server says that it uses
============================================================
"""

from host_core import pillar as of_pillar
from immich_core import compose, findings, server_settings
from immich_io import server

# A row of the doctor's table.
PART = "Immich's settings"


def differing(settings, pillar, timeout=10):
    """
    Return which of the declared ``immich:settings`` the server says that it does not use, as findings
    (``immich_core.findings``). It says that of a few alone, to everybody, and of no secret.

    settings
        The formula's settings.
    pillar
        The whole pillar (``__pillar__``).
    timeout
        Seconds for each of the server's answers, 10 by default.
    """
    if not settings["server"]["settings_managed"]:
        return []
    declared = of_pillar.value(pillar, f"immich:{server_settings.KEY}")
    try:
        answers = server.shown(compose.server_url(settings), server_settings.ADDRESSES, timeout)
    except (OSError, ValueError) as error:
        return [findings.not_verified(PART, f"the server does not say which settings it uses: {error}")]
    remedy = f"{findings.apply()} && systemctl restart immich"
    return [
        findings.finding("server-settings-unused", PART, "the server uses another value", remedy, path)
        for path in server_settings.differing(declared, answers)
    ]
