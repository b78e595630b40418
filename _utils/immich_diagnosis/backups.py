"""
Part: backups of the database
=============================
"""

import json
import os
import time

from host_core import mounts
from immich_core import backups
from immich_diagnosis.check import FAILED, OK, WARNING, Check, NotCheckedError, call, of_finding
from immich_diagnosis.facts import read_text

BACKUP_HOURS = 48


def _backups(here):
    """The formula's dumps; a database that is managed elsewhere wants them too."""
    settings = here["settings"]
    drill = call(here, "systemd_unit.status", "immich-restore-drill.service")
    if drill["loaded"] == "loaded" and drill["active"] == "failed":
        seen = "the last restore drill failed: the backup cannot be restored, or differs from the database"
        yield FAILED, seen, "journalctl -u immich-restore-drill -n 50; salt-call immich.restore_drill"
    working = here["working"].get("what") == "backup"
    if working:
        yield OK, f"one is under way since {here['working']['since']}"
    status = call(here, "systemd_unit.status", "immich-backup.service")
    found = call(here, "immich.backup_warnings", settings) if settings else []
    yield from map(of_finding, found)
    if status["active"] == "failed" and not found:
        seen = f"The last backup of the database failed: {status['text']}"
        yield FAILED, seen, "journalctl -u immich-backup -n 50; salt-call immich.backup"
    elif not found:
        directory = settings["backup"]["directory"] if settings else _deployed_backups()
        point = mounts.missing(directory)
        if point:
            yield WARNING, f"not checked: {directory} is below {point}, which is not mounted", f"mount {point}"
            return
        row = _backups_row(directory, time.time())
        # That there is none, or an old one, is what the one under way remedies.
        if not working or row[0] != WARNING:
            yield row


def _deployed_backups():
    try:
        return json.loads(read_text(backups.CONFIG))["directory"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotCheckedError(f"a pillar or {backups.CONFIG}, to know the directory") from error


def _backups_row(directory, now):
    """
    What there is in the formula's own directory, which Immich cannot write to; that there is none is said only of a
    directory that was read. Immich's own backups lie where its container can put any file: they do not count.
    """
    try:
        with os.scandir(directory) as entries:
            found = [
                entry for entry in entries if entry.name.endswith(".dump") and entry.is_file(follow_symlinks=False)
            ]
            written = {entry.name: entry.stat(follow_symlinks=False).st_mtime for entry in found}
    except FileNotFoundError:
        written = {}
    except OSError as error:
        return WARNING, f"not checked: {directory} cannot be read: {error.strerror}", ""
    # Which one is the newest, for a rehearsal and for what is kept, goes by the time in the name.
    ahead = sorted(name for name, time_ in written.items() if max(time_, _named_moment(name)) > now + 60)
    if ahead:
        return FAILED, f"{ahead[0]} in {directory} has a time in the future: is the clock right?", "timedatectl"
    return _newest_row(list(written.values()), now, directory)


def _named_moment(name):
    return (backups.parsed(name) or {"moment": 0})["moment"]


def _newest_row(times, now, directory):
    command = "salt-call immich.backup"
    if not times:
        return WARNING, f"there is no backup of the database in {directory}", command
    hours = (now - max(times)) / 3600
    seen = f"the newest is {hours:.0f} hours old"
    return (OK, seen) if hours < BACKUP_HOURS else (WARNING, seen, command)


GROUPS = ((Check("backups", _backups, asks=("immich.backup_warnings",)),),)
