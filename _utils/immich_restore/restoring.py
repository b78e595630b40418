"""
The restore of a backup, from one look to the other
===================================================
"""

import os
import time

from salt.exceptions import CommandExecutionError

from host_core import unit_states
from immich_core import backups, units
from immich_restore import access, backup_file, comparison, leftovers, names, obstacles, reporting, swap
from immich_restore.fill import fill


def restore(target, path, version, keep_old, dump_old, test):
    """Restore a backup, or with ``test`` tell what would be done. The arguments are those of ``immich.restore``."""
    keep_old = keep_old if dump_old else True
    contents = backup_file.read(target, path)
    problems = obstacles.of_backup(target, contents, path, version)
    problems += backup_file.doubts(target, contents, path, version)
    backup_file.refuse([*problems, *obstacles.of_application(target)])
    if test:
        return {"backup": path, "would": _steps(target, contents, keep_old, dump_old)}
    return _restored(target, path, contents, keep_old, dump_old)


def _steps(target, contents, keep_old, dump_old):
    what = f"{len(contents['tables'])} tables with {sum(contents['tables'].values())} rows"
    left = [name for name, kind in leftovers.databases(target).items() if kind in names.INCOMPLETE]
    role = access.role_name(target)
    return [
        *(f"drop {name}, which a restore that was killed has left" for name in left),
        f"restore {what} into an empty database, as the role {role}, count them, give them to {target.user}",
        f"stop {units.IMMICH}",
        f"swap its name with that of the database {target.database}",
        f"start {units.IMMICH} and verify it, or put the old database back if that fails",
        *(["back up the old database"] if dump_old else []),
        _last_step(keep_old),
    ]


def _last_step(keep_old):
    if keep_old is None:
        return "keep the old database if its tables or rows differ from those of the backup, else drop it"
    return f"{'keep' if keep_old else 'drop'} the old database"


def _restored(target, path, contents, keep_old, dump_old):
    begin = time.monotonic()
    leftovers.clear(target)
    known = swap.broken(target, patience=0)
    served = target.salt["systemd_unit.status"](units.IMMICH)["active"] in unit_states.STARTED
    fresh, before = names.beside(target.database, "restore"), names.beside(target.database, "before")
    with swap.unchanged_if_it_fails(target, fresh) as stopped:
        with access.temporary_role(target, fresh) as login:
            fill(target, path, contents, fresh, login)
        # Only from here on Immich is down, and none of it takes longer for a larger database.
        stopped_at = time.monotonic()
        reporting.say(f"Stopping {units.IMMICH}")
        stopped.append(served)
        swap.systemctl(target, "stop")
        swap.take_over(target, fresh, before)
    trouble = swap.start_and_verify(target, known)
    if trouble:
        swap.revert(target, before, served, trouble)
    down = round(time.monotonic() - stopped_at, 1)
    reporting.say(f"Immich serves from the restored database. It was down for {down} s")
    kept, unsaved = _backed_up(target, before) if dump_old else (None, None)
    if keep_old is None:
        keep_old = comparison.differs(target, before, contents)
    old = swap.keep_or_drop(target, before, keep_old or bool(unsaved))
    seconds = round(time.monotonic() - begin)
    reporting.say(f"{os.path.basename(path)} is restored, in {seconds} s")
    return {
        "backup": path,
        "tables": len(contents["tables"]),
        "rows": sum(contents["tables"].values()),
        "seconds": seconds,
        "down": down,
        "kept": {"backup": kept, "database": old},
        "warnings": [f"The old database could not be backed up, and is kept as {old}: {unsaved}"] if unsaved else [],
    }


def _backed_up(target, before):
    """The path of a backup of the database that Immich used before, if there is one; or why there is none."""
    if not target.salt["pgsql_database.exists"](before, target.connection):
        return None, None
    reporting.say("Backing up the old database")
    try:
        made = target.salt["immich.backup"]()
    except CommandExecutionError as error:
        reporting.say(f"It could not be backed up: {error}")
        return None, str(error)
    # One that the timer has begun before the swap would be of what was there a moment earlier.
    if backups.parsed(made["name"])["stamp"] > names.stamp(before):
        return None, f"another backup was under way, {made['name']}"
    return made["path"], None
