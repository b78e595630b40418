"""
How long a restore may take
===========================
"""

import time

# A check or a default in a dump may never end. So much for all of a restore, and more for each gigabyte of its rows: no
# disk is so slow. Progress tells nothing: one large index is one step for hours, and a check that sleeps for
# each row makes progress for years.
RESTORE_SECONDS, RESTORE_SECONDS_PER_GB, MOST_RESTORE_SECONDS = 6 * 3600, 6 * 3600, 7 * 86400
# Counting the rows of the live database may never end either: its owner can lock it or give it policies.
COUNT_SECONDS = 3600


def of_restore(contents):
    """Until when a backup has to be restored, on the monotonic clock."""
    seconds = RESTORE_SECONDS + contents["size"] / 1000**3 * RESTORE_SECONDS_PER_GB
    return time.monotonic() + min(seconds, MOST_RESTORE_SECONDS)


def of_counting():
    """Until when the rows of Immich's database have to be counted, on the monotonic clock."""
    return time.monotonic() + COUNT_SECONDS


def seconds_left(deadline):
    """Whole seconds until a deadline, at least one."""
    return max(1, round(deadline - time.monotonic()))
