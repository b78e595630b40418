"""
What the program that backs up the library has noted on this host
==================================================================

Needs nothing but Python.
"""

import json
import os

# How far a run is, and what the last one has made or why it failed; gone after a boot.
STATUS = "/run/immich-library-backup/status.json"
# How far a restore is.
RESTORE_STATUS = "/run/immich-library-backup/restore.json"
# The repository's id, the last snapshot, all snapshots as of then, and when the repository was checked.
RECORD = "/var/lib/immich-library-backup/record.json"
_LARGEST = 16 * 1024**2


def last_run():
    """
    Return what the last run since the boot has reported of itself; empty if there was none.

    .. code-block:: python

        library_backup_files.last_run().get("state")
    """
    return _read(STATUS)


def last_restore():
    """
    Return what the last restore since the boot has reported of itself; empty if there was none.

    .. code-block:: python

        library_backup_files.last_restore().get("done")
    """
    return _read(RESTORE_STATUS)


def record():
    """
    Return what runs have noted of the repository: ``repository``, ``last``, ``snapshots``, ``checked``; empty before
    the first one.

    .. code-block:: python

        library_backup_files.record().get("last")
    """
    return _read(RECORD)


def _read(path):
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf8") as file:
            found = json.loads(file.read(_LARGEST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
