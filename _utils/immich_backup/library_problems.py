"""
What a person has to know about the library's backups
=====================================================
"""

import os
import time

from immich_backup import library_plan
from immich_core import backups
from immich_core.findings import ERROR, WARNING, finding
from immich_io import library_backup_files

PART = "library backup"
REMEDY = "journalctl -u immich-library-backup -n 50; salt-call immich.backup"
# Each dump is followed by a snapshot, and dumps are made every night.
OLD = 2 * 86400


def found(settings):
    """
    The last run failed, or the newest snapshot is old, as findings (``immich_core.findings``). Starts no process.

    settings
        The formula's settings, as of ``immich_settings.get``.
    """
    if not library_plan.is_here(settings):
        return []
    last, record = library_backup_files.last_run(), library_backup_files.record()
    if last.get("state") == "failed":
        seen = f"The last backup of the library failed: {last.get('error')}"
        return [finding("library-backup-failed", PART, seen, REMEDY, severity=ERROR)]
    if last.get("state") == "running" or not settings["backup"]["enabled"]:
        return []
    made = (record.get("last") or {}).get("made")
    if made and not time.time() - OLD < made <= time.time() + 60:
        seen = f"The newest snapshot of the library is of {backups.iso(made)}"
        return [finding("library-backup-outdated", PART, seen, REMEDY, severity=WARNING)]
    if not made and _deployed() < time.time() - OLD:
        return [
            finding("library-backup-missing", PART, "There is no snapshot of the library", REMEDY, severity=WARNING)
        ]
    return []


def _deployed():
    """When the library's backup was set up, in seconds since the epoch."""
    try:
        return os.stat(library_plan.FILES["config"]).st_mtime
    except OSError:
        return time.time()
