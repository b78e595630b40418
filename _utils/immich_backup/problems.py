"""
What a person has to know about the backups
===========================================
"""

import os
import time

from immich_core import backups, findings, units
from immich_io import backup_files

# What systemd touches whenever the timer has elapsed, because it is persistent.
STAMP = f"/var/lib/systemd/timers/stamp-{units.BACKUP_TIMER}"
# A timer that has run without leaving a backup is told from one that has never run by this age, in seconds.
FIRST_BACKUP_AFTER = 2 * 86400


def found(settings):
    """
    The last run failed, or left no backup, as findings (``immich_core.findings``). Starts no process.

    settings
        The formula's settings, as of ``immich_settings.get``.
    """
    last, newest = backup_files.last_run(), _newest(settings["backup"]["directory"], settings["postgres"]["database"])
    if last.get("state") == "failed":
        return [_warning("backup-failed", f"The last backup of the database failed: {last['error']}", findings.ERROR)]
    if last.get("state") == "running" or not settings["backup"]["enabled"]:
        return []
    try:
        elapsed = os.stat(STAMP).st_mtime
    except OSError:
        return []  # a timer that has not been started yet
    newest, empty, used = newest
    if empty and used:
        which = f"{settings['postgres']['database']}, of {backups.iso(newest)}"
        seen = f"The newest backup of {which}, has no users. Older ones that have some are kept"
        return [_warning("backup-empty", seen)]
    if newest and newest < elapsed - 60:
        ran, made = backups.iso(elapsed), backups.iso(newest)
        seen = f"The backup timer ran at {ran}, but the newest backup is of {made}"
        return [_warning("backup-outdated", seen)]
    if not newest and elapsed < time.time() - FIRST_BACKUP_AFTER:
        seen = f"There is no backup of the database in {settings['backup']['directory']}"
        return [_warning("backup-missing", seen)]
    return []


def _warning(code, seen, severity=findings.WARNING):
    remedy = "journalctl -u immich-backup -n 50; salt-call immich.backup"
    return findings.finding(code, "backups", seen, remedy, severity=severity)


def _newest(directory, database):
    """When a database's newest backup was made, in seconds since the epoch, or None; if it is empty, if any is not."""
    try:
        found = list(filter(None, map(backups.parsed, os.listdir(directory))))
    except OSError:
        return None, False, False
    own = {each["moment"]: each["empty"] for each in found if each["database"] in (None, database)}
    if not own:
        return None, False, False
    newest = max(own)
    return newest, own[newest], not all(own.values())
