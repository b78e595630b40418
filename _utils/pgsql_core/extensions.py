"""
Extensions: what a database has, what its server offers, and what is in the way
===============================================================================
"""

from pgsql_core.list_settings import entries_of, library

# Extensions that work only when their library is in shared_preload_libraries: the projects' own install notes.
PRELOADED = {
    "citus": "citus",
    "pg_cron": "pg_cron",
    "pg_stat_statements": "pg_stat_statements",
    "pgaudit": "pgaudit",
    "timescaledb": "timescaledb",
    "vchord": "vchord",
    "vectors": "vectors",
}
# Roles of managed PostgreSQL services that may create extensions although no superuser.
ADMINS = ["azure_pg_admin", "cloudsqlsuperuser", "rds_superuser"]


def described(row, offer, may_create):
    """
    Return one entry of ``pgsql_extension.list``.

    row
        The row of the extension in the database.

    offer
        What the server offers of it, or nothing.

    may_create
        Whether the connection may create an extension that needs a superuser.
    """
    name, installed = row["name"], row["installed"]
    needed = PRELOADED.get(name)
    refused, not_yet = [], []
    if offer is None and installed is None:
        not_yet.append(f"The server does not offer the extension {name}: install its package.")
    elif offer and offer["superuser"] and not offer["trusted"] and not may_create:
        refused.append(f"The extension {name} needs a superuser, and the connection is none.")
    # Who may not read the setting gets to hear it from the server.
    if needed and row["preloaded"] is not None and needed not in map(library, entries_of(row["preloaded"])):
        not_yet.append(f"The extension {name} needs {needed} in shared_preload_libraries, and a restart.")
    offer = offer or {"available": None, "fixed_schema": None, "relocatable": None, "requires": []}
    return {
        "installed": installed,
        "available": offer["available"],
        "schema": row["schema"],
        "fixed_schema": offer["fixed_schema"],
        "relocatable": row["relocatable"] if installed else offer["relocatable"],
        "requires": [required for required in offer["requires"] if required not in row["present"]],
        "refused": refused,
        "not_yet": not_yet,
    }
