"""
What Immich's database has beside a backup of it
================================================
"""

import os
import time

from salt.exceptions import CommandExecutionError

from immich_core import backups, findings
from immich_host import update
from immich_restore import access, deadlines, reporting
from immich_restore.backup_file import PART
from immich_restore.deadlines import seconds_left
from immich_restore.reporting import first_of

# By Immich's column for when a row was made, which is the beginning of its transaction: a backup may lack younger ones.
CREATED, SETTLED_SECONDS = "createdAt", 3600


def live(target, path):
    """
    What Immich's database has: ``tables`` with their rows, ``migrations``, and ``older``, the rows of each table that a
    backup must have; None if that cannot be known, and ``unknown`` says why.
    """
    database, named = target.database, backups.parsed(os.path.basename(path))
    unknown = _incomparable(target, named)
    owner, older, until = target.owner(database), None, deadlines.of_counting()
    with access.hba_record(target, database, target.user):
        if not unknown:
            settled = named["moment"] - SETTLED_SECONDS
            older = target.salt["pgsql_table.rows_before"](database, CREATED, settled, owner, seconds_left(until))
        tables = target.salt["pgsql_table.row_counts"](database, owner, seconds_left(until))
    migrations = update.database(target.settings, target.salt)["migrations"]
    return {"tables": tables, "migrations": migrations, "older": older, "unknown": unknown}


def _incomparable(target, named):
    """Why nothing can be said of rows that a backup should have, by what its name says, or None."""
    if named is None or named["moment"] > time.time():
        return "its name does not say when it was made"
    if named["database"] not in (None, target.database):
        return f"it is of the database {named['database']}"
    try:
        created = target.salt["pgsql_database.created"](target.database, target.connection)
    except CommandExecutionError as error:
        return f"PostgreSQL does not say when the database was created: {error}"
    # Both are known to the second, and the old database's backup is from the one in which the restore began.
    return "the database was restored since" if created >= named["moment"] else None


def differs(target, name, contents):
    """Whether a former database holds anything else than a backup, by its tables and how many rows they have."""
    if not target.salt["pgsql_database.exists"](name, target.connection):
        return False
    try:
        with access.hba_record(target, name, target.user):
            counts = target.salt["pgsql_table.row_counts"](name, target.owner(name), deadlines.COUNT_SECONDS)
            return counts != contents["tables"]
    except CommandExecutionError as error:
        reporting.say(f"What {name} holds could not be counted: {error}")
        return True


def differences(held, migrations, now):
    """
    What of a backup is not as it should be beside Immich's database, and what was not compared, both as findings.

    held, migrations
        Rows by table, and names of migrations, in the backup.
    now
        What :py:func:`live` returns.
    """
    lost, unknown = _lost_rows(held, now)
    if sorted(name[:255] for name in migrations) != sorted(now["migrations"]):
        # Immich's role can note one, which must not hide that rows are missing.
        seen = (
            "The backup and Immich's database have different migrations, as after an update: tables were not compared"
        )
        return lost, [_not_compared(seen), *unknown]
    return [*_other_tables(held, now["tables"]), *lost], unknown


def _other_tables(held, now):
    """Which tables only one of them has, as findings."""
    found = []
    lacking, gone = sorted(now.keys() - held.keys()), sorted(held.keys() - now.keys())
    if lacking:
        seen = f"It lacks tables of Immich's database: {first_of(lacking)}"
        remedy = "if something other than Immich has created them since: salt-call immich.backup"
        found.append(findings.finding("backup-lacks-tables", PART, seen, remedy))
    if gone:
        seen = f"Immich's database lacks tables of it: {first_of(gone)}"
        found.append(findings.finding("tables-dropped", PART, seen, "find out who has dropped them"))
    return found


def _lost_rows(held, now):
    """Rows that tables of a backup should have, and why those could not be compared, as lists of findings."""
    if now["older"] is None:
        return [], [_not_compared(f"Rows from before the backup were not compared: {now['unknown']}")]
    missing = {table: rows - held[table] for table, rows in now["older"].items() if rows > held.get(table, rows)}
    if not missing:
        return [], []
    counted = first_of(f"{rows} of {table}" for table, rows in sorted(missing.items()))
    seen = f"It lacks rows that Immich's database had an hour before it: at least {counted}"
    return [findings.finding("backup-lacks-rows", PART, seen)], []


def _not_compared(seen):
    return findings.finding("not-compared", PART, seen, severity=findings.WARNING)
