"""
What Immich's role and database in PostgreSQL have to be
========================================================

Stated once, for the states that make them so, for verification and for a restore. As arguments of ``pgsql_role``,
``pgsql_database``, ``pgsql_hba`` and ``pgsql_extension``, without name and connection.
"""

from immich_core.pillar_paths import POSTGRES_PASSWORD
from immich_core.postgres_extensions import SCHEMA, VECTOR_VERSIONS

# A role that logs in and has no power over the server: Immich's, and that of a restore.
ATTRIBUTES = {
    "login": True,
    "superuser": False,
    "createdb": False,
    "createrole": False,
    "replication": False,
    "bypassrls": False,
}
# Immich sets it for its database by itself.
SEARCH_PATH = "search_path"
# Its owner can set one that lets nobody in.
CONNECTION_LIMIT = -1
# Immich's role alone has any right to the database.
PRIVILEGES = {"PUBLIC": []}


def role():
    """Arguments of ``pgsql_role.present`` for Immich's role."""
    return {
        **ATTRIBUTES,
        "member_of": [],
        "password_pillar": POSTGRES_PASSWORD,
        "password_encryption": "scram-sha-256",
        # It can set for its sessions what keeps Immich, backups and restores from working.
        "reset_other_settings": True,
    }


def database(settings):
    """
    Arguments of ``pgsql_database.present`` for Immich's database.

    settings
        The formula's settings.
    """
    return {
        "owner": settings["postgres"]["user"],
        "encoding": "UTF8",
        "settings": settings["postgres"]["settings"],
        "reset_other_settings": [SEARCH_PATH],
        "connection_limit": CONNECTION_LIMIT,
        "privileges": PRIVILEGES,
    }


def hba_record(settings):
    """
    Immich's record for pg_hba.conf, as ``pgsql_hba.get`` takes it: from its network alone.

    settings
        The formula's settings.
    """
    return {
        "type": "host",
        "database": settings["postgres"]["database"],
        "user": settings["postgres"]["user"],
        "address": settings["network"]["subnet"],
        "method": "scram-sha-256",
    }


def extension(name):
    """
    Arguments of ``pgsql_extension.create`` for one of Immich's extensions.

    name
        Its name in PostgreSQL.
    """
    return {"schema": SCHEMA, "cascade": name == "vchord"}


def has_indexes(name):
    """Whether indexes depend on an extension's version: they are rebuilt when it moves."""
    return name in VECTOR_VERSIONS
