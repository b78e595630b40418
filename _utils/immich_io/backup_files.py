"""
Files of backups as they are on this host
==========================================

What is in a backup, for its checksum, and what the program that makes backups has reported. Needs nothing but Python.
"""

import hashlib
import json
import os

from immich_io import progress

# Where the program reports how far it is.
STATUS = "/run/immich-backup/status.json"
_BLOCK = 1 << 20


def checksum(path):
    """
    Return the SHA-256 of a file, in hexadecimal.

    path
        The file.

    .. code-block:: python

        backup_files.checksum("/var/backups/immich/immich_20261124T203000Z_v3.3.1_immich.dump")
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def last_run():
    """
    Return what the last run since the boot has reported of itself; empty if there was none.

    .. code-block:: python

        backup_files.last_run().get("state")
    """
    try:
        with open(os.open(STATUS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def how_far(run):
    """
    Return in words how far a run is: ``dumping: 12.0 MB of about 48.0 MB, 25 %, …``; empty if it does not run.

    run
        What :py:func:`last_run` returns.

    .. code-block:: python

        backup_files.how_far(backup_files.last_run())
    """
    if run.get("state") != "running" or not os.path.exists(f"/proc/{run.get('pid')}"):
        return ""
    far = progress.far(run["done"], run["expected"], run["seconds"], lambda count: f"{count / 1e6:.1f} MB", about=True)
    return f"{run['phase']}: {far}"
