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
    complaint = watched(units.BACKUP, backup_files.last_run, began, _sentence)
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


def watched(unit, last_run, began, sentence):
    """
    Start a unit and show a person how far it is until it has ended. What systemctl says if it fails, else ``None``.

    unit
        Its name.
    last_run
        A function that returns what the unit's program reports.
    began
        Seconds since the epoch: what it has reported before is of another run.
    sentence
        A function of that report and of the seconds since then, which says how far it is; empty if it does not run.
    """
    complaints, shown = [], False
    job = threading.Thread(target=_start, args=(unit, complaints), daemon=True)
    job.start()
    while job.is_alive():
        job.join(LOOK_SECONDS)
        shown = _show(last_run(), began, sentence) or shown
    if shown:
        sys.stderr.write("\n")
    return complaints[0] if complaints else None


def _start(unit, complaints):
    try:
        systemctl.run("start", unit)
    except command.CommandError as error:
        complaints.append(error.words)


def _show(last, began, sentence):
    """Show a person how far a unit is. Return whether somebody saw it."""
    far = sentence(last, round(time.time() - began)) if last.get("time", 0) >= began else ""
    if not far or not sys.stderr.isatty():
        return False
    sys.stderr.write(f"\r\x1b[K{far} ")
    sys.stderr.flush()
    return True


def _sentence(last, _seconds):
    far = backup_files.how_far(last)
    return f"Backup, {far}" if far else ""
