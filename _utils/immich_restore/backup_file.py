"""
A backup: which one, whether it is whole, and which version of Immich it says
=============================================================================
"""

import os
import shlex
import time

from salt.exceptions import CommandExecutionError

from immich_core import backups, findings, update_plan, versions
from immich_io import backup_files
from immich_restore import reporting

MIGRATIONS = tuple(f"public.{table}" for table in versions.MIGRATION_TABLES)
VERSIONS = f"public.{versions.VERSION_TABLE}"
# A row of the doctor's table.
PART = "backups"


def refuse(found, why="Nothing was changed."):
    """Raise ``CommandExecutionError`` with some findings, if there are any: nothing was changed yet."""
    if found:
        raise CommandExecutionError("\n".join([why, *map(findings.sentence, found)]))


def path(target, backup):
    """The path of a backup that is there, by its name or its path."""
    found = os.path.join(target.settings["backup"]["directory"], str(backup))
    if not os.path.isfile(found):
        listed = "`salt-call immich.backups` lists the backups"
        refuse([findings.finding("backup-absent", PART, f"There is no backup {found}", listed)])
    return found


def newest(there, database):
    """The path of the newest of some backups that may be a database's."""
    now = backups.iso(time.time())
    own = [each for each in there if each["database"] in (None, database) and each["time"] <= now]
    if not own:
        raise CommandExecutionError("There is no backup yet: make one with `salt-call immich.backup`.")
    return max(own, key=lambda backup: backup["time"])["path"]


def read(target, backup):
    """What ``pgsql_dump.read`` returns of the backup at a path, whole as it is."""
    try:
        _compare_checksum(backup)
        tables, report = [VERSIONS, *MIGRATIONS], reporting.bytes_done("Reading", backup)
        return target.salt["pgsql_dump.read"](backup, tables, report, target.connection)
    except CommandExecutionError as error:
        seen = f"{backup} is not a complete backup made by pg_dump --format=custom: {error}"
        refuse([findings.finding("backup-damaged", PART, seen)])


def _compare_checksum(backup):
    """What pg_restore may take for data: a bit that has flipped. A file from elsewhere may have no checksum."""
    noted = f"{backup}{backups.CHECKSUM}"
    if not os.path.isfile(noted):
        return
    try:
        with open(noted, encoding="ascii") as file:
            expected = file.read(1024).split()[0]
    except (IndexError, UnicodeDecodeError):
        return
    if backup_files.checksum(backup) != expected:
        raise CommandExecutionError(f"its SHA-256 is not that in {noted}.")


def vector_extension(contents, otherwise):
    """The vector extension that a backup needs, by PostgreSQL's name, or another where it needs none."""
    return next((name for name in ("vchord", "vector") if name in contents["extensions"]), otherwise)


# -- its version -------------------------------------------------------------------------------------------


def migrations(contents):
    """Names of the migrations that a backup has noted."""
    return [row.get("name", "") for table in MIGRATIONS for row in contents["rows"][table]]


def _noted(contents, backup):
    """The versions that a backup says, in it and by its name; and the one of its name, unless that cannot be true."""
    found = backups.parsed(os.path.basename(backup))
    named = [found["version"]] if found and versions.parse(found["version"]) else []
    noted = [row.get("version", "") for row in contents["rows"][VERSIONS]] + named
    _, doubt = versions.credible(named, migrations(contents))
    return noted, [] if doubt else named


def _needed_version(contents, backup, version=None):
    """The version of Immich that a backup needs at least, or None: what a person says, or else the backup."""
    if version is not None:
        return _parsed(version)
    noted, named = _noted(contents, backup)
    return versions.of_data(noted, migrations(contents), *named)


def _parsed(version):
    parsed = versions.parse(version)
    if parsed is None:
        seen = f"version={version} is not a full version such as v3.3.1"
        refuse([findings.finding("version-unknown", update_plan.PART, seen)])
    return parsed


def doubts(target, contents, backup, version):
    """What a backup says of its version although all else contradicts it, as findings. A person's word counts more."""
    noted, named = _noted(contents, backup)
    _, doubt = versions.credible(noted, migrations(contents), named)
    if version is not None or not doubt:
        return []
    claimed, contradiction = versions.text(doubt[0]), doubt[1]
    claim = f"Only the backup's own table says that it is of Immich {claimed}: {contradiction}"
    seen = f"{claim}. Immich's role can write anything there"
    override = _override(target, backup, claimed, _needed_version(contents, backup))
    return [findings.finding("version-contradicted", update_plan.PART, seen, override)]


def version_problems(target, contents, backup, version):
    """Why the version of Immich that is set up cannot serve from a backup, as findings."""
    dumped, highest = _needed_version(contents, backup, version), versions.highest(target.settings["server"]["image"])
    path = update_plan.pillar_path(target.settings)
    problem = update_plan.obstacle(dumped, highest, path, "the version of the backup")
    if not problem:
        return []
    problem["remedy"] += ", apply, then restore"
    least = versions.since(migrations(contents))
    if versions.obstacle(dumped, highest) == "older" and not versions.obstacle(least, highest):
        override = _override(target, backup, versions.text(dumped), least)
        problem["remedy"] += f". Its migrations do not need that: {override}"
    return [problem]


def _override(target, backup, claimed, version):
    """What a person types who knows better than the backup."""
    version = versions.text(version) if version else versions.tag(target.settings["server"]["image"])
    command = f"salt-call immich.restore {shlex.quote(backup)} version={version} confirm={target.minion}"
    return f"if {claimed} never served it, type: {command}"
