"""
The restore of a backup, from one look to the other
===================================================
"""

import os
import time

from host_core import unit_states
from immich_core import units
from immich_restore import access, backup_file, comparison, leftovers, names, obstacles, reporting, swap
from immich_restore.fill import fill


def restore(target, path, version, keep_old, dump_first, test):
    """Restore a backup, or with ``test`` tell what would be done. The arguments are those of ``immich.restore``."""
    keep_old = keep_old if dump_first else True
    contents = backup_file.read(target, path)
    problems = obstacles.of_backup(target, contents, path, version)
    problems += backup_file.doubts(target, contents, path, version)
    backup_file.refuse([*problems, *obstacles.of_application(target)])
    if test:
        return {"backup": path, "would": _steps(target, contents, keep_old, dump_first)}
    return _restored(target, path, contents, keep_old, dump_first)


def _steps(target, contents, keep_old, dump_first):
    what = f"{len(contents['tables'])} tables with {sum(contents['tables'].values())} rows"
    left = [name for name, kind in leftovers.databases(target).items() if kind in names.INCOMPLETE]
    role = access.role_name(target)
    return [
        *(f"drop {name}, which a restore that was killed has left" for name in left),
        f"stop {units.IMMICH}",
        *(["back up the current database"] if dump_first else []),
        f"restore {what} into an empty database, as the role {role}, count them, give them to {target.user}",
        f"swap its name with that of the database {target.database}",
        f"start {units.IMMICH} and verify it, or put the old database back if that fails",
        _last_step(keep_old),
    ]


def _last_step(keep_old):
    if keep_old is None:
        return "keep the old database if its tables or rows differ from those of the backup, else drop it"
    return f"{'keep' if keep_old else 'drop'} the old database"


def _restored(target, path, contents, keep_old, dump_first):
    begin = time.monotonic()
    leftovers.clear(target)
    known = swap.broken(target, patience=0)
    served = target.salt["systemd_unit.status"](units.IMMICH)["active"] in unit_states.STARTED
    fresh, before = names.beside(target.database, "restore"), names.beside(target.database, "before")
    reporting.say(f"Stopping {units.IMMICH}")
    swap.systemctl(target, "stop")
    with swap.unchanged_if_it_fails(target, fresh, served):
        kept = _backed_up(target) if dump_first else None
        with access.temporary_role(target, fresh) as login:
            fill(target, path, contents, fresh, login)
        swap.take_over(target, fresh, before)
    trouble = swap.start_and_verify(target, known)
    if trouble:
        swap.revert(target, before, served, trouble)
    if keep_old is None:
        keep_old = comparison.differs(target, before, contents)
    old = swap.keep_or_drop(target, before, keep_old)
    seconds = round(time.monotonic() - begin)
    reporting.say(f"{os.path.basename(path)} is restored, in {seconds} s")
    return {
        "backup": path,
        "tables": len(contents["tables"]),
        "rows": sum(contents["tables"].values()),
        "seconds": seconds,
        "kept": {"backup": kept, "database": old},
    }


def _backed_up(target):
    if not target.salt["pgsql_database.exists"](target.database, target.connection):
        return None
    reporting.say("Backing up the current database")
    return target.salt["immich.backup"]()["path"]
