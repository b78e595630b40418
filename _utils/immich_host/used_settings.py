"""
Which of Immich's own settings the server says that it uses
============================================================
"""

import json

from host_core import pillar as of_pillar
from immich_core import compose, findings, server_settings
from immich_host import secret_files
from immich_io import server

# A row of the doctor's table.
PART = "Immich's settings"
REMEDY = f"{findings.apply()} && systemctl restart immich"


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
    return [
        findings.finding("server-settings-unused", PART, "the server uses another value", REMEDY, path)
        for path in server_settings.differing(declared, answers)
    ]


def unlike(settings, pillar, client):
    """
    Return which of all of Immich's settings the server does not use as declared, as warnings: it may have adapted some.

    settings, pillar
        As of :py:func:`differing`.
    client
        A client of the server's API that authenticates as administrator (``immich_io.api``).

    Raises ``ApiError``, and CommandExecutionError if a secret is not where the pillar says.
    """
    desired = json.loads(secret_files.settings_text(settings, pillar))
    return [
        findings.finding("server-settings-unlike", PART, "the server has another value", REMEDY, path, findings.WARNING)
        for path in server_settings.unlike(desired, client.system_config())
    ]
