"""
The rehearsal of a restore
==========================
"""

import os
import time

from salt.exceptions import CommandExecutionError

from immich_core import findings
from immich_restore import access, backup_file, comparison, leftovers, names, obstacles, reporting
from immich_restore.fill import drop, fill


def drill(target, path, version):
    """Restore a backup into a scratch database and drop that. The arguments are those of ``immich.restore_drill``."""
    begin = time.monotonic()
    contents = backup_file.read(target, path)
    backup_file.refuse(obstacles.of_backup(target, contents, path, version))
    leftovers.clear(target)
    _rehearse(target, path, contents)
    held, live = contents["tables"], comparison.live(target, path)
    rows, seconds = sum(held.values()), round(time.monotonic() - begin)
    reporting.say(f"{os.path.basename(path)} can be restored: {len(held)} tables, {rows} rows, in {seconds} s")
    different, unknown = comparison.differences(held, backup_file.migrations(contents), live)
    differences = [findings.sentence(each) for each in different]
    warnings = [findings.sentence(each) for each in (*backup_file.doubts(target, contents, path, version), *unknown)]
    for sentence in (*differences, *warnings):
        reporting.say(sentence)
    if differences:
        raise CommandExecutionError("\n".join([f"{path} can be restored, but is not as expected.", *differences]))
    return {
        "backup": path,
        "tables": len(held),
        "rows": rows,
        "seconds": seconds,
        "changed": _changed(held, live["tables"]),
        "warnings": warnings,
    }


def _rehearse(target, path, contents):
    scratch = names.beside(target.database, "drill")
    with access.temporary_role(target, scratch) as login:
        try:
            fill(target, path, contents, scratch, login)
        finally:
            drop(target, scratch)


def _changed(held, now):
    """Tables that have another number of rows now than in the backup."""
    return {
        table: {"backup": held.get(table), "now": now.get(table)}
        for table in sorted({*held, *now})
        if held.get(table) != now.get(table)
    }
