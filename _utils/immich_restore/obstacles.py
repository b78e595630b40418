"""
What keeps a backup from being restored on this host, before anything changes
=============================================================================

Findings (``immich_core.findings``).
"""

import os
import shutil

from host_core import pillar
from immich_core import findings, units
from immich_core.findings import finding
from immich_core.pillar_paths import POSTGRES_PASSWORD
from immich_host import images, vector_extension
from immich_restore import access, backup_file, names, reporting

# Measured on embeddings, which are most of it: two thirds of its text is what a vector takes with its index.
SPACE_FACTOR = 1.5


def of_backup(target, contents, path, version):
    """What is wrong with a backup for this host."""
    problems = []
    if not any(table in contents["tables"] for table in backup_file.MIGRATIONS):
        seen = f"{path} is a dump of another database than Immich's: it has no table of migrations"
        problems.append(finding("backup-foreign", backup_file.PART, seen))
    if len(target.database.encode()) > names.LONGEST_DATABASE:
        problems.append(_too_long("immich:postgres:database", names.LONGEST_DATABASE))
    if len(access.role_name(target).encode()) > names.LONGEST_IDENTIFIER:
        problems.append(_too_long("immich:postgres:user", names.LONGEST_USER))
    problems += backup_file.version_problems(target, contents, path, version)
    problems += _vector_problems(target, contents)
    problems += _login_problems(target)
    return problems + _space_problems(target, contents, path)


def _too_long(path, longest):
    return finding("name-too-long", "database", f"must not be longer than {longest} bytes to be restored", path=path)


def of_application(target):
    """What keeps Immich from being started afterwards."""
    remedy = f"{findings.apply()}, then restore"
    if not target.salt["systemd_unit.status"](units.IMMICH)["enabled"]:
        return [finding("unit-absent", units.IMMICH, f"There is no {units.IMMICH} yet", remedy)]
    missing = images.missing(target.salt["immich_app.unit"](target.settings)["images"])
    if missing:
        seen = f"The image {missing[0]} is not on this host, and Immich could not be started"
        return [finding("image-absent", "images", seen, remedy)]
    return []


def _vector_problems(target, contents):
    preference = target.settings["postgres"]["vector_extension"]
    has = vector_extension.of(target.database, preference, target.connection, target.salt)
    desired = backup_file.vector_extension(contents, has)
    if desired == has:
        return []
    seen = f"The backup was made with the extension {desired}, and Immich is set up with {has}"
    remedy = "drop its database, set immich:postgres:vector_extension, apply, and restore again"
    return [finding("vector-extension-differs", "database", seen, remedy)]


def _login_problems(target):
    """Immich's role has to log in from this host; whether pg_hba.conf lets it is for later where it is managed."""
    user, owner = target.user, target.owner(target.database)
    password = pillar.value(target.pillar, POSTGRES_PASSWORD)
    if target.managed:
        role = target.salt["pgsql_role.get"](user, password, target.connection)
        if not (role and role["password_matches"]):
            seen = f"PostgreSQL has no role {user} with the pillar's password"
            return [finding("role-refused", "database", seen, findings.apply("immich.postgres"))]
        # Raises if PostgreSQL does not listen there.
        target.salt["pgsql_role.login_works"](user, password, owner)
        return []
    if target.salt["pgsql_role.login_works"](user, password, owner, target.database):
        return []
    return [access.login_refused(owner, f"{user} from this host with the pillar's password", user)]


def _space_problems(target, contents, path):
    """There has to be room for a second database beside the one that serves meanwhile, and for a copy of the backup."""
    if not target.managed:
        return []
    held = target.salt["pgsql_config.get"](["data_directory"], target.connection)
    directory = held["data_directory"]["running"]
    needed, free = int(contents["size"] * SPACE_FACTOR), shutil.disk_usage(directory).free
    if os.stat(path).st_dev == os.stat(directory).st_dev:
        needed += os.path.getsize(path)
    if free > needed:
        return []
    left, takes = reporting.megabytes(free), reporting.megabytes(needed)
    seen = f"{directory} has {left} left, and the restored database takes about {takes}"
    return [finding("no-space", "database storage", seen)]
