"""
One run of the unit that makes a backup
=======================================
"""

import os
import sys
import threading
import time

from salt.exceptions import CommandExecutionError

from host_core import command, systemctl
from immich_backup.plan import FILES
from immich_core import units
from immich_io import backup_files

LOOK_SECONDS = 0.2


def run():
    """Start the unit, show a person how far it is, and return what it made; ``CommandExecutionError`` with why not."""
    began = time.time()
    complaint = _started_and_watched(began)
    last = backup_files.last_run()
    fresh = last.get("time", 0) >= began
    if complaint is None and fresh and last["state"] == "done":
        return last["result"]
    if fresh and last["state"] == "failed":
        raise CommandExecutionError(f"There is no new backup: {last['error']}. See `journalctl -u immich-backup`")
    if not os.path.exists(FILES["service"]):
        raise CommandExecutionError("This host has no immich-backup.service: apply immich.backup")
    reason = " ".join((complaint or "").split()) or "the program was killed"
    raise CommandExecutionError(f"There is no new backup: {reason} See `journalctl -u immich-backup`")


def _started_and_watched(began):
    """Start the unit and show how far it is until it has ended. What systemctl says if it fails, else None."""
    complaints, shown = [], False
    job = threading.Thread(target=_start, args=(complaints,), daemon=True)
    job.start()
    while job.is_alive():
        job.join(LOOK_SECONDS)
        shown = _show(backup_files.last_run(), began) or shown
    if shown:
        sys.stderr.write("\n")
    return complaints[0] if complaints else None


def _start(complaints):
    try:
        systemctl.run("start", units.BACKUP)
    except command.CommandError as error:
        complaints.append(error.words)


def _show(last, began):
    """Show a person how far the backup is. Return whether somebody saw it."""
    far = backup_files.how_far(last) if last.get("time", 0) >= began else ""
    if not far or not sys.stderr.isatty():
        return False
    sys.stderr.write(f"\r\x1b[KBackup, {far} ")
    sys.stderr.flush()
    return True
