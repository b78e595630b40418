"""
What keeps a backup from being restored on this host, before anything changes
=============================================================================

Sentences, each with its remedy.
"""

import shutil

from host_core import pillar
from immich_core import units
from immich_core.pillar_paths import POSTGRES_PASSWORD
from immich_host import images, vector_extension
from immich_restore import access, backup_file, names, reporting

# Measured on embeddings, which are most of it: two thirds of its text is what a vector takes with its index.
SPACE_FACTOR = 1.5


def of_backup(target, contents, path, version):
    """What is wrong with a backup for this host."""
    problems = []
    if not any(table in contents["tables"] for table in backup_file.MIGRATIONS):
        problems.append(f"{path} is a dump of another database than Immich's: it has no table of migrations.")
    if len(target.database.encode()) > names.LONGEST_DATABASE:
        longest = names.LONGEST_DATABASE
        problems.append(f"immich:postgres:database must not be longer than {longest} bytes to be restored.")
    if len(access.role_name(target).encode()) > names.LONGEST_IDENTIFIER:
        problems.append(f"immich:postgres:user must not be longer than {names.LONGEST_USER} bytes to be restored.")
    problems += backup_file.version_problems(target, contents, path, version)
    problems += _vector_problems(target, contents)
    problems += _login_problems(target)
    return problems + _space_problems(target, contents)


def of_application(target):
    """What keeps Immich from being started afterwards."""
    if not target.salt["systemd_unit.status"](units.IMMICH)["enabled"]:
        return [f"There is no {units.IMMICH} yet: apply immich first, then restore."]
    missing = images.missing(target.salt["immich_app.unit"](target.settings)["images"])
    if missing:
        return [f"The image {missing[0]} is not on this host, and Immich could not be started: apply immich first."]
    return []


def _vector_problems(target, contents):
    preference = target.settings["postgres"]["vector_extension"]
    has = vector_extension.of(target.database, preference, target.connection, target.salt)
    wanted = backup_file.vector_extension(contents, has)
    if wanted == has:
        return []
    advice = "drop its database, set immich:postgres:vector_extension, apply, and restore again"
    return [f"The backup was made with the extension {wanted}, and Immich is set up with {has}: {advice}."]


def _login_problems(target):
    """Immich's role has to log in from this host; whether pg_hba.conf lets it is for later where it is managed."""
    user, owner = target.user, target.owner(target.database)
    password = pillar.value(target.pillar, POSTGRES_PASSWORD)
    if target.managed:
        role = target.salt["pgsql_role.get"](user, password, target.connection)
        if not (role and role["password_matches"]):
            return [f"PostgreSQL has no role {user} with the pillar's password: apply immich.postgres."]
        # Raises if PostgreSQL does not listen there.
        target.salt["pgsql_role.login_works"](user, password, owner)
        return []
    if target.salt["pgsql_role.login_works"](user, password, owner, target.database):
        return []
    advice = f"its pg_hba.conf needs a record `host all {user} ADDRESS-OF-THIS-HOST scram-sha-256`"
    return [f"PostgreSQL at {owner['host']} refuses {user} from this host with the pillar's password: {advice}."]


def _space_problems(target, contents):
    if not target.managed:
        return []
    held = target.salt["pgsql_config.get"](["data_directory"], target.connection)
    directory = held["data_directory"]["running"]
    needed, free = int(contents["size"] * SPACE_FACTOR), shutil.disk_usage(directory).free
    if free > needed:
        return []
    left, takes = reporting.megabytes(free), reporting.megabytes(needed)
    return [f"{directory} has {left} left, and the restored database takes about {takes}."]
