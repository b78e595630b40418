"""
Immich's own metrics on this host: whether they are published
==============================================================
"""

from immich_core import findings, telemetry
from immich_io import untrusted

# A row of the doctor's table.
PART = "metrics"
# Of an answer that has a few hundred histograms.
BEGINNING = 4096


def silent(settings, timeout=10):
    """
    Return which workers of Immich do not answer with metrics, as findings.

    settings
        The formula's settings, with metrics enabled.
    timeout
        Seconds for each answer. Defaults to 10.
    """
    found = []
    for url in telemetry.urls(settings).values():
        try:
            beginning = untrusted.beginning(url, BEGINNING, timeout)
            problem = None if telemetry.looks_right(beginning) else "answers something else than metrics"
        except (OSError, ValueError) as error:
            problem = f"does not answer: {error}"
        if problem:
            found.append(findings.finding("metrics-silent", PART, f"{url} {problem}", "systemctl restart immich"))
    return found
