"""
What the files and states of ``immich.backup`` need, decided once
=================================================================
"""

import json

from host_core import unit_file
from immich_core import backups, postgres_extensions, units

FILES = {
    "program": "/usr/local/lib/immich-formula/immich-backup",
    "config": backups.CONFIG,
    "passfile": "/etc/immich-formula/backup.pgpass",
    "hook": backups.HOOK,
    "tmpfiles": "/etc/tmpfiles.d/immich-formula.conf",
    "service": units.file(units.BACKUP),
    "failed_service": units.file(units.BACKUP_FAILED),
    "timer": units.file(units.BACKUP_TIMER),
}
DRILL_FILES = {
    "service": units.file(units.RESTORE_DRILL),
    "timer": units.file(units.RESTORE_DRILL_TIMER),
    "failed_service": units.file(units.RESTORE_DRILL_FAILED),
}
# How connection arguments of ``pgsql_server`` are called in libpq's environment.
LIBPQ = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


def plan(settings):
    """The answer of ``immich.backup_plan``."""
    postgres, backup = settings["postgres"], settings["backup"]
    connection = postgres["connection"]
    local = connection["host"].startswith("/")
    # Over a socket the server knows the operating system's user; over TCP it asks for a password, which root keeps.
    user = connection.get("os_user", "postgres") if local else "root"
    environment = {LIBPQ[key]: str(value) for key, value in connection.items() if key in LIBPQ}
    environment["PGDATABASE"] = postgres["database"]
    if "password_pillar" in connection:
        environment["PGPASSFILE"] = FILES["passfile"]
    config = {
        "directory": backup["directory"],
        "user": user,
        "keep": backup["keep"],
        "keep_days": backup["keep_days"],
        "environment": environment,
        "compose_file": f"{settings['project_dir']}/docker-compose.yml",
        "extensions": postgres_extensions.known(),
    }
    return {
        "user": user,
        "network": not local,
        "directory": unit_file.quoted(backup["directory"]),
        "after": units.of_server(settings, "postgres"),
        "on_failure": bool(backup["on_failure"]),
        "password_pillar": connection.get("password_pillar"),
        "config": json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False),
        "files": FILES,
    }


def drill(settings, words):
    """
    The answer of ``immich.restore_drill_plan``.

    words
        The command that rehearses a restore.
    """
    return {
        "command": " ".join(map(unit_file.command_word, words)),
        "after": units.of_server(settings, "postgres"),
        "on_failure": bool(settings["backup"]["on_failure"]),
        "files": DRILL_FILES,
    }
