"""
What restores have left beside Immich's database
================================================
"""

from immich_core import units
from immich_restore import access, names, reporting, swap
from immich_restore.fill import drop


def databases(target, kinds=(*names.INCOMPLETE, "before")):
    """Databases of restores, by default of those that were killed: ``{name: kind}``."""
    return names.of_restores(target.database, target.salt["pgsql_database.list"](target.connection), kinds)


def found(target):
    """
    What restores have left, as names of databases and whether a record is left.

    ``{"drop": [incomplete ones], "keep": [what Immich used before a restore that was killed], "kept": [what a person
    may drop], "record": whether pg_hba.conf still lets Immich's role in for a restore}``. While a restore is at work,
    its databases stand there too.

    Raises ``CommandExecutionError`` if PostgreSQL does not answer.
    """
    left = databases(target, (*names.INCOMPLETE, "before", "kept"))
    return {**_by_fate(left, {**names.LEFT_BY_KILLED, "kept": ("kept",)}), "record": access.hba_record_left(target)}


def _by_fate(left, fates):
    return {fate: [name for name, kind in left.items() if kind in kinds] for fate, kinds in fates.items()}


def clear(target):
    """Clear up after restores and drills that were killed."""
    for name, kind in databases(target).items():
        if kind in names.INCOMPLETE:
            reporting.say(f"Dropping {name}, which a restore that was killed has left")
            drop(target, name)
        else:
            kept = swap.keep_or_drop(target, name, True)
            reporting.say(f"Keeping {name}, which Immich used before a restore that was killed, as {kept}")
    access.drop_role(target)
    if access.hba_record_left(target):
        access.remove_hba_record(target)


def recover(target, test):
    """Clear up and start Immich, or with ``test`` tell what would be done."""
    left = _by_fate(databases(target), names.LEFT_BY_KILLED)
    if test:
        return {"would": {**left, "start": units.IMMICH}}
    clear(target)
    swap.systemctl(target, "start")
    return left
