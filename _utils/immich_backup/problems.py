"""
What a person has to know about the backups
===========================================
"""

import datetime
import os
import re
import time

from immich_backup import status
from immich_core import findings, units

# What systemd touches whenever the timer has elapsed, because it is persistent.
STAMP = f"/var/lib/systemd/timers/stamp-{units.BACKUP_TIMER}"
NAME = re.compile(r"immich_([0-9]{8}T[0-9]{6}Z)_([0-9A-Za-z.-]+)(?:_([a-z0-9_-]+)(\.empty)?)?\.dump")
# A timer that has run without leaving a backup is told from one that has never run by this age, in seconds.
FIRST_BACKUP_AFTER = 2 * 86400


def found(settings):
    """
    The last run failed, or left no backup, as findings (``immich_core.findings``). Starts no process.

    settings
        The formula's settings, as of ``immich_settings.get``.
    """
    last, newest = status.last(), _newest(settings["backup"]["directory"], settings["postgres"]["database"])
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
        database = settings["postgres"]["database"]
        seen = f"The newest backup of {database}, of {_iso(newest)}, has no users. Older ones that have some are kept"
        return [_warning("backup-empty", seen)]
    if newest and newest < elapsed - 60:
        seen = f"The backup timer ran at {_iso(elapsed)}, but the newest backup is of {_iso(newest)}"
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
        names = [NAME.fullmatch(name) for name in os.listdir(directory)]
    except OSError:
        return None, False, False
    own = {_named_time(name[1]): bool(name[4]) for name in names if name and name[3] in (None, database)}
    moments = {moment: empty for moment, empty in own.items() if moment}
    if not moments:
        return None, False, False
    newest = max(moments)
    return newest.timestamp(), moments[newest], not all(moments.values())


def _named_time(stamp):
    """The time that a name says, or None if there is no such day."""
    try:
        return datetime.datetime.strptime(f"{stamp}+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None


def _iso(moment):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
