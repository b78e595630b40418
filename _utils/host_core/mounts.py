"""
What should be mounted on this host, and is not
===============================================

As fstab(5) and proc_pid_mounts(5) say it.
"""

import os
from pathlib import Path

FSTAB, MOUNTS = "/etc/fstab", "/proc/self/mounts"


def missing(path):
    """
    Return the mount point above a path that ``/etc/fstab`` names and that is not mounted, or ``None``.

    path
        An absolute path. It need not exist.

    .. code-block:: python

        mounts.missing("/srv/photos/upload")
    """
    declared = _read(FSTAB) if os.path.exists(FSTAB) else ""
    return missing_above(os.path.realpath(path), declared, _read(MOUNTS))


def missing_above(path, fstab, mounted):
    """
    Return what :py:func:`missing` does, from the texts of ``/etc/fstab`` and ``/proc/self/mounts``.

    path
        An absolute path without symbolic links.

    fstab, mounted
        The two texts.

    .. code-block:: python

        mounts.missing_above("/srv/photos/upload", "UUID=2f1c /srv/photos ext4 defaults 0 2", "")
    """
    there = set(_points(mounted))
    for point in sorted(_points(fstab), key=len, reverse=True):
        above = path == point or path.startswith(point.rstrip("/") + "/")
        if above and point not in there and point != "/":
            return point
    return None


def _read(path):
    # Comments and folders of others may be in Latin-1.
    return Path(path).read_text(encoding="utf8", errors="replace")


def _points(table):
    fields = [line.split() for line in table.splitlines() if not line.lstrip().startswith("#")]
    return [field[1].replace("\\040", " ") for field in fields if len(field) > 1 and field[1].startswith("/")]
