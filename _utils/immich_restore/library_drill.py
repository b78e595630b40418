"""
The library in a snapshot beside the database in its dump
=========================================================

Immich stores the SHA-1 of each original. Paths and checksums are its role's to write: they are read with a limit and a
deadline, and only what has the right form counts.
"""

import re

from immich_backup import library, library_plan
from immich_core import library_backups
from immich_core.findings import WARNING, finding
from immich_restore import access, deadlines, reporting

PART = "library backup"
# Files that a rehearsal reads, random ones each time.
SAMPLE = 200
# ``assets`` before v1.137.
TABLES = ("asset", "assets")
COLUMNS = ("originalPath", "checksum")
SHA1 = re.compile("[0-9a-f]{40}")
# Bytes of a path or a checksum that are read.
LONGEST = library_backups.LONGEST_PATH + 1


def assets(target, database, login):
    """
    The originals that a database knows, as checksums by paths below the library; those of external libraries in the
    snapshots, of whose content Immich stores no checksum, as ``None`` by their places in a snapshot; and how many rows
    name neither: of other external libraries, or of no possible form.
    """
    folders = library_plan.external(target.settings)
    with access.hba_record(target, database, login["user"]):
        tables = target.salt["pgsql_table.list"](database, connection=login)
        table = next((name for name in TABLES if name in tables), None)
        if table is None:
            return {}, 0
        limit = library_backups.MOST_FILES
        rows = target.salt["pgsql_table.texts"](
            database, table, COLUMNS, LONGEST, limit, login, deadlines.COUNT_SECONDS
        )
    found, elsewhere = {}, 0
    for path, checksum in rows:
        below = library_backups.in_library(path) if path and len(path) < LONGEST else None
        place = library_backups.in_external(path, folders) if path and len(path) < LONGEST else None
        if below and SHA1.fullmatch(checksum or ""):
            found[below] = checksum
        elif place:
            found[place] = None
        else:
            elsewhere += 1
    return found, elsewhere


def comparison(target, snapshot, known, sample):
    """
    How a snapshot's library compares with the originals that the database of its dump knows: the answer, and findings.

    known
        What :py:func:`assets` returns.
    sample
        How many files are read; ``None`` for all.
    """
    originals, elsewhere = known
    reporting.say(f"Comparing snapshot {snapshot['id'][:8]} with {len(originals)} originals")
    seen = library.compare(target.settings, snapshot, originals, sample)
    missing, deleted, moved = seen["missing"], 0, 0
    if missing:
        now, _ = assets(target, target.database, target.owner(target.database))
        missing, deleted, moved = library_backups.explained(missing, originals, now.items(), seen["orphaned"])
    orphans = max(0, seen["orphans"] - moved)
    answer = {
        "snapshot": snapshot["id"][:8],
        "files": seen["files"],
        "compared": seen["compared"],
        "missing": missing[:100],
        "changed": seen["changed"][:100],
        "orphaned": seen["orphaned"][:100] if orphans else [],
        "deleted_since": deleted,
        "moved_since": moved,
        "elsewhere": elsewhere,
    }
    external = seen.get("external_missing", [])
    if "external" in seen:
        answer["external"] = {"files": seen["external"], "missing": external[:100]}
    return answer, [*_findings(missing, seen["changed"], orphans, answer["orphaned"]), *_of_external(external)]


def _of_external(missing):
    """Immich keeps the rows of files that are no longer there: a warning, and no failure."""
    if not missing:
        return []
    seen = (
        f"The snapshot lacks {len(missing)} files of external libraries that Immich has: {reporting.first_of(missing)}"
    )
    return [finding("library-lacks-external", PART, seen, severity=WARNING)]


def _findings(missing, changed, orphans, orphaned):
    found = []
    if missing:
        lost = f"The snapshot lacks {len(missing)} originals that Immich has: {reporting.first_of(missing)}"
        found.append(finding("library-lacks-files", PART, lost, "look for them in older snapshots"))
    if changed:
        differ = f"{len(changed)} originals are not what was uploaded, by their SHA-1: {reporting.first_of(changed)}"
        found.append(
            finding("library-file-changed", PART, differ, "check the disk, and look for them in older snapshots")
        )
    if orphans:
        unknown = f"The database does not know {orphans} files of the library: {reporting.first_of(orphaned)}"
        found.append(finding("library-orphans", PART, unknown, severity=WARNING))
    return found
