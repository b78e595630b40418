"""
One look at every part of Immich
================================

In the order in which the parts need each other, so that the first line that failed is the cause and what follows from
it stands below. Without a pillar that can be used it goes by what was deployed: ``docker-compose.yml`` and
``immich.service``.

Sources of the rules: Immich's documentation, and what was measured with its server v3.0.3.
"""

import os

from immich_diagnosis import facts, parts
from immich_diagnosis.check import OK, WARNING, table_row
from immich_diagnosis.running import run_groups
from immich_io import lock

# On a host whose load is this many times its CPUs, or more, a check has so many times as long.
LONGEST_FACTOR = 6
# While one of these is under way, Immich and its database are not as they will be, and nobody should start Immich.
DISTURBING = ("restore", "update", "removal")
DISTURBED = {check.part for group in parts.GROUPS for check in group if check.disturbed}


def rows(salt, pillar, timeout):
    """
    The rows of ``immich.doctor``.

    salt, pillar
        Salt's execution functions by name (``__salt__``), and the whole pillar.
    timeout
        Seconds that each check may take on a host that is not busy.
    """
    seconds = timeout * max(1, min(os.getloadavg()[0] / os.cpu_count(), LONGEST_FACTOR))
    loaded = {"salt": salt, "pillar": pillar}
    found, told = run_groups((parts.FORMULA,), loaded, seconds)
    working = lock.under_way() or {}
    gathered = {"working": working, "seconds": seconds, "asked": parts.ASKED}
    here = {**loaded, **facts.gather(told.get("settings")), **gathered}
    rest, _ = run_groups(parts.of_host(here["settings"]), here, seconds)
    return [*found, *(_meanwhile(row, working) for row in rest)]


def _meanwhile(row, working):
    """A row of what is not well while a restore or an update is under way: that is why, and it is to be waited for."""
    what = working.get("what")
    if what not in DISTURBING or row["result"] == OK or row["part"] not in DISTURBED:
        return row
    seen = f"{row['seen']}: {what} under way since {working['since']}"
    remedy = f"wait until it has ended (process {working['pid']}); do not start Immich"
    return table_row(row["part"], WARNING, seen, remedy, f"during-{what}")
