"""
A fresh database beside Immich's, with a backup in it
=====================================================
"""

import contextlib

from salt.exceptions import CommandExecutionError

from immich_core import postgres_declared, postgres_extensions
from immich_restore import access, backup_file, deadlines, reporting
from immich_restore.deadlines import seconds_left


def fill(target, path, contents, name, login):
    """Make a database, restore a backup into it, and see that all of it is there, by a deadline; or drop it again."""
    try:
        _fill_until(deadlines.of_restore(contents), target, path, contents, name, login)
    except BaseException:
        # What the server still does in it may never end, and would keep the role of the restore from being dropped.
        with contextlib.suppress(CommandExecutionError):  # the next run drops it
            drop(target, name)
        raise


def _fill_until(until, target, path, contents, name, login):
    reporting.say(f"Creating the database {name}")
    salt = target.salt
    _create(target, name, backup_file.vector_extension(contents, "vector"))
    salt["pgsql_database.set"](name, owner=login["user"], connection=target.connection)
    with access.hba_record(target, name, login["user"]):
        told, size = reporting.Restoring(contents), contents["size"]
        salt["pgsql_dump.restore"](path, name, login, size, told.doing, told.watch, seconds_left(until))
        reporting.say("Counting rows, collecting statistics")
        counts = salt["pgsql_table.row_counts"](name, login, seconds_left(until))
        salt["pgsql_database.analyze"](name, login, seconds_left(until))
    wrong = [
        f"{table}: {counts.get(table)} rows instead of {rows}"
        for table, rows in contents["tables"].items()
        if counts.get(table) != rows
    ]
    if wrong:
        raise CommandExecutionError(f"The restored data differ from the backup: {reporting.first_of(wrong)}")


def _create(target, name, vector):
    """
    Create an empty database that has all that Immich's own has: owner, locale, settings, privileges, extensions.

    Where Immich has no database yet, it is what the formula makes.
    """
    salt, connection, user = target.salt, target.connection, target.user
    model = salt["pgsql_database.get"](target.database, connection) or {"settings": {}, "privileges": {}}
    # Not the limit of connections: the owner can set one that lets nobody in.
    copied = ["encoding", "lc_collate", "lc_ctype", "tablespace"]
    if model.get("provider") not in (None, "libc"):
        copied += ["provider", "locale"]
    options = {"encoding": "UTF8", **{key: model[key] for key in copied if key in model}}
    salt["pgsql_database.create"](name, owner=user, connection=connection, **options)
    privileges = {**model["privileges"], **postgres_declared.PRIVILEGES}
    salt["pgsql_database.set"](name, settings=model["settings"], privileges=privileges, connection=connection)
    own = salt["pgsql_role.get"](user, connection=connection)["database_settings"].get(target.database)
    if own:
        salt["pgsql_role.set"](user, database_settings={name: own}, connection=connection)
    for extension in postgres_extensions.needed(vector, present=False):
        declared = postgres_declared.extension(extension)
        salt["pgsql_extension.create"](extension, name, **declared, connection=connection)


def drop(target, name):
    """Drop a database that may be there, whoever is connected to it."""
    try:
        target.salt["pgsql_database.drop"](name, force=True, connection=target.connection)
    except CommandExecutionError:
        if target.salt["pgsql_database.exists"](name, target.connection):
            raise
