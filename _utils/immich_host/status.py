"""
The status of this host: what its figures are made of
======================================================
"""

import time

from salt.exceptions import CommandExecutionError

from immich_backup import listing
from immich_core import backups, status
from immich_diagnosis import facts
from immich_host import releases
from immich_io import compose_file, records


def gathered(settings, rows):
    """
    Return the answer of ``immich.status``.

    settings
        The formula's settings, empty where the pillar is invalid.
    rows
        Those of ``immich.doctor``.
    """
    found = {name: records.read(name) for name in records.NAMES}
    return status.of(time.time(), rows, _images(settings), _backups(settings), _releases(settings), found)


def _images(settings):
    directory = settings["project_dir"] if settings else facts.DEPLOYED
    try:
        installed = compose_file.image(f"{directory}/docker-compose.yml")
    except compose_file.ComposeFileError:
        installed = None  # which the doctor's row says
    return {"installed": installed, "declared": settings["server"]["image"] if settings else None}


def _backups(settings):
    try:
        found = listing.backups(verify=False)
    except CommandExecutionError:
        return None  # as above
    database = settings["postgres"]["database"] if settings else None
    return [
        {"moment": backups.parsed(each["name"])["moment"], "size": each["size"]}
        for each in found
        if database is None or each["database"] in (None, database)
    ]


def _releases(settings):
    """By the record of a look that the pillar still asks for."""
    if not settings or not settings["update"]["check_releases"]:
        return []
    return releases.recorded(settings["server"]["image"]) or []
