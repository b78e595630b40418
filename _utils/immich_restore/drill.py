"""
The rehearsal of a restore
==========================
"""

import os
import time

from salt.exceptions import CommandExecutionError

from immich_core import findings
from immich_restore import access, backup_file, comparison, leftovers, library_drill, names, obstacles, reporting
from immich_restore.fill import drop, fill


def drill(target, path, version, snapshot=None, sample=None):
    """
    Restore a backup into a scratch database and drop that. The arguments are those of ``immich.restore_drill``.

    snapshot
        The one that holds the backup: its files are compared with that database.
    sample
        How many of them are read; ``None`` for all.
    """
    begin = time.monotonic()
    named = snapshot["dump"] if snapshot else path  # its own path is that of a scratch file
    contents = backup_file.read(target, path)
    backup_file.refuse(obstacles.of_backup(target, contents, path, version))
    leftovers.clear(target)
    known = _rehearse(target, path, contents, wanted=snapshot is not None)
    held, live = contents["tables"], comparison.live(target, path)
    rows, seconds = sum(held.values()), round(time.monotonic() - begin)
    reporting.say(f"{os.path.basename(path)} can be restored: {len(held)} tables, {rows} rows, in {seconds} s")
    different, unknown = comparison.differences(held, backup_file.migrations(contents), live)
    compared, found = library_drill.comparison(target, snapshot, known, sample) if snapshot else (None, [])
    different = [*different, *(each for each in found if each["severity"] == findings.ERROR)]
    unknown = [*unknown, *(each for each in found if each["severity"] != findings.ERROR)]
    differences = [findings.sentence(each) for each in different]
    warnings = [findings.sentence(each) for each in (*backup_file.doubts(target, contents, path, version), *unknown)]
    for sentence in (*differences, *warnings):
        reporting.say(sentence)
    if differences:
        raise CommandExecutionError("\n".join([f"{named} can be restored, but is not as expected.", *differences]))
    return {
        "backup": named,
        "tables": len(held),
        "rows": rows,
        "seconds": seconds,
        "changed": _changed(held, live["tables"]),
        "warnings": warnings,
        **({"library": compared} if compared else {}),
    }


def _rehearse(target, path, contents, wanted):
    """Fill a scratch database and drop it. With ``wanted``, return the originals that it knows."""
    scratch = names.beside(target.database, "drill")
    with access.temporary_role(target, scratch) as login:
        try:
            fill(target, path, contents, scratch, login)
            return library_drill.assets(target, scratch, {**login, "maintenance_db": scratch}) if wanted else None
        finally:
            drop(target, scratch)


def _changed(held, now):
    """Tables that have another number of rows now than in the backup."""
    return {
        table: {"backup": held.get(table), "now": now.get(table)}
        for table in sorted({*held, *now})
        if held.get(table) != now.get(table)
    }
