"""
Both halves of a backup: the library's files, and the dump that only the repository has
========================================================================================
"""

import contextlib
import os
import shutil
import tempfile

from salt.exceptions import CommandExecutionError

from immich_backup import library, library_plan
from immich_core import findings, library_backups
from immich_restore import backup_file, reporting, restoring


def restore(target, backup, options, both, test):
    """
    Restore a backup, with its half of the library if it has one. What is wrong with the dump for this host is reported
    first; then the files are restored while Immich serves, because they take longest; then the database.

    options
        Further arguments of ``restoring.restore``.
    both
        Whether to restore the library too.
    """
    half = snapshot_of(target, backup) if both or not _is_local(target, backup) else None
    with dump_of(target, backup, half, kept=not test) as path:
        would = restoring.restore(target, path, **options, test=True)
        if not (half and both):
            return would if test else restoring.restore(target, path, **options, test=False)
        if test:
            files = f"restore the library of snapshot {half['id'][:8]} to {target.settings['upload_location']}"
            return {**would, "backup": half["dump"], "would": [files, *would["would"]]}
        restored = library.restore(target.settings, half, reporting.say)
        return {**restoring.restore(target, path, **options, test=False), "library": restored}


def _is_local(target, backup):
    return os.path.isfile(os.path.join(target.settings["backup"]["directory"], str(backup)))


def snapshot_of(target, backup):
    """The snapshot of a backup, by its name, its path or the snapshot's id; ``None`` if the repository has none."""
    if not library_plan.is_here(target.settings):
        return None
    try:
        there = library.snapshots(target.settings)
    except CommandExecutionError as error:
        remedy = "library=False restores the database alone, from a backup on this host"
        seen = f"The repository of the library's backup does not answer: {error}"
        backup_file.refuse([findings.finding("repository-silent", backup_file.PART, seen, remedy)])
    return library_backups.find(there, os.path.basename(str(backup)))


def newest(target):
    """The newest snapshot of Immich's database; a finding if there is none."""
    found = library_backups.of_database(library.snapshots(target.settings), target.database)
    if not found:
        seen = "The repository has no snapshot of Immich yet"
        backup_file.refuse([findings.finding("backup-absent", backup_file.PART, seen, "salt-call immich.backup")])
    return found[0]


@contextlib.contextmanager
def dump_of(target, backup, half, kept):
    """
    The path of a backup's dump: the file on this host, or else that of its snapshot.

    kept
        Whether a fetched one stays on this host, as one of its backups.
    """
    directory = target.settings["backup"]["directory"]
    if half is None or (kept and _is_local(target, half["dump"])):
        yield backup_file.path(target, half["dump"] if half else backup)
        return
    os.makedirs(directory, mode=0o700, exist_ok=True)
    owner = os.stat(directory)
    reporting.say(f"Fetching {half['dump']} from snapshot {half['id'][:8]}")
    if kept:
        yield library.fetch_dump(target.settings, half, directory, (owner.st_uid, owner.st_gid))
        return
    scratch = tempfile.mkdtemp(prefix=".fetched.", dir=directory)
    try:
        yield library.fetch_dump(target.settings, half, scratch, (0, 0))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
