"""
Part: backups of the library
============================
"""

import time

from immich_core import backups
from immich_diagnosis.check import FAILED, OK, WARNING, Check, call, of_finding
from immich_io import library_backup_files


def _library_backup(here):
    """Its runs and what they have noted; the repository itself is not asked."""
    settings = here["settings"]
    if not settings:
        return
    found = call(here, "immich.library_backup_warnings", settings)
    if settings["backup"]["library"]["repository"] is None:
        yield OK, "the formula does not back up the photos: set immich:backup:library, if nothing else does"
        return
    status = call(here, "systemd_unit.status", "immich-library-backup.service")
    yield from map(of_finding, found)
    if status["active"] == "failed" and not found:
        seen = f"the last backup of the library failed: {status['text']}"
        yield FAILED, seen, "journalctl -u immich-library-backup -n 50; salt-call immich.backup"
    elif not found:
        yield _newest_row(library_backup_files.last_run(), library_backup_files.record(), time.time())


def _newest_row(last, record, now):
    if last.get("state") == "running":
        done, expected = last.get("done", 0), last.get("expected", 0)
        far = f": {done * 100 // expected:.0f} % of {expected / 1e9:.1f} GB" if expected else ""
        return OK, f"one is under way, {last.get('phase')}{far}"
    made = record.get("last") or {}
    if "made" not in made:
        return WARNING, "there is no snapshot of the library yet", "salt-call immich.backup"
    size = f"{made.get('files')} files, {made.get('bytes', 0) / 1e9:.1f} GB"
    checked = record.get("checked")
    checked = f", repository checked {backups.iso(checked)[:10]}" if checked else ""
    return OK, f"the newest snapshot is {(now - made['made']) / 3600:.0f} hours old: {size}{checked}"


GROUPS = ((Check("library backup", _library_backup, asks=("immich.library_backup_warnings",)),),)
