"""
Manage the settings of a PostgreSQL server.

Every function takes ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

import os
from pathlib import Path

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import durable
from pgsql_core import auto_conf, driver, errors, list_settings, quoting, setting_values
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

__func_alias__ = {"set_": "set"}
_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)

SETTING_KINDS = "pgsql_config.setting_kinds"


def __virtual__():
    return driver.required_by("pgsql_config")


@_salt_errors
def get(names, connection=None):
    """
    Return server settings, as they are in force and as the configuration files have them.

    Of each: ``running``; ``persisted`` (from the configuration files, else the built-in default); ``below`` (the same
    without what ALTER SYSTEM wrote); ``restart`` (whether a change needs one); ``comparable`` (whether ``running``
    is the server's value, not one of this session's own).

    names
        List of settings.

    Raises ``CommandExecutionError`` if the server has no such setting or does not let this role read its files.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_config.get '[listen_addresses]'
    """
    rows = _server(connection).query(
        """
        SELECT lower(s.name) AS name, s.setting AS running, s.boot_val, s.context, s.source,
            coalesce(f.persisted, s.boot_val) AS persisted, coalesce(f.below, s.boot_val) AS below
        FROM pg_catalog.pg_settings s
        LEFT JOIN (
            SELECT lower(name) AS name, (array_agg(setting ORDER BY seqno DESC))[1] AS persisted,
                (array_agg(setting ORDER BY seqno DESC)
                    FILTER (WHERE sourcefile NOT LIKE '%%/postgresql.auto.conf'))[1] AS below
            FROM pg_catalog.pg_file_settings WHERE name IS NOT NULL GROUP BY 1
        ) f ON f.name = lower(s.name)
        WHERE lower(s.name) = ANY (%s)
        """,
        ([name.lower() for name in names],),
    )
    found = {row["name"]: _config(row) for row in rows}
    missing = [name for name in names if name.lower() not in found]
    if missing:
        raise ServerError(f"PostgreSQL has no setting {', '.join(missing)}, or not for this role to see.")
    return {name: found[name.lower()] for name in names}


@_salt_errors
def set_(settings, connection=None):
    """
    Persist server settings with ALTER SYSTEM and reload. PostgreSQL forbids ALTER SYSTEM in a transaction.

    A library to preload must exist: without it the server would not start again.

    settings
        ``{name: value}``; a list for those that are lists; nothing to take back what ALTER SYSTEM wrote.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_config.set '{work_mem: 16MB}'
    """
    server = _server(connection)
    names = list_settings.LIBRARY_SETTINGS & set(settings)
    libraries = [entry for name in names for entry in list_settings.entries_of(settings[name])]
    _refuse_missing_libraries(libraries, server)
    for statement in setting_values.assignments(quoting.text("ALTER SYSTEM"), settings):
        server.run_alone(statement)
    server.reload()


@_salt_errors
def changes(current, desired, connection=None):
    """
    Return what differs in meaning between two sets of server settings, as ``{name: {old, new}}``.

    ``16MB`` is ``16384kB``, ``yes`` is ``on``, ``a,b`` is ``a, b``.

    current
        Settings as PostgreSQL stores them.
    desired
        Settings as a person writes them; a list for those that are lists, nothing to reset one.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_config.changes '{work_mem: 16384kB}' '{work_mem: 16MB}'
    """
    server = _server(connection)
    return setting_values.changes(current, desired, lambda: _setting_kinds(server))


@_salt_errors
def auto_file(connection=None):
    """
    Return the path of the file that ALTER SYSTEM writes, on the server's host.

    Raises ``CommandExecutionError`` if the server cannot be reached, or does not tell this role its directory.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_config.auto_file
    """
    shown = "SELECT current_setting('data_directory') || '/postgresql.auto.conf' AS path"
    return _server(connection).query(shown)[0]["path"]


@_salt_errors
def restore(path, settings):
    """
    Give settings other values in the file of ALTER SYSTEM, for a server on this host that does not start.

    path
        The file, as :py:func:`auto_file` returned it while the server ran.
    settings
        ``{name: value}``; nothing to take out what ALTER SYSTEM wrote.

    Raises ``CommandExecutionError`` if the file cannot be read or written.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_config.restore /var/lib/postgresql/17/main/postgresql.auto.conf '{shared_buffers: null}'
    """
    try:
        # The folder is its user's, who could have put a link there.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf8", errors="surrogateescape") as file:
            held, text = os.fstat(file.fileno()), file.read()
        owner = (held.st_uid, held.st_gid)
        durable.write(Path(path), auto_conf.with_values(text, settings), held.st_mode & 0o7777, owner)
    except OSError as error:
        raise ServerError(f"The former settings cannot be put back into {path}: {error}") from error
    return True


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _setting_kinds(server):
    kinds = __context__.setdefault(SETTING_KINDS, {})
    # Types and units are the server's build: they differ between servers only.
    if server.address not in kinds:
        rows = server.query("SELECT lower(name) AS name, vartype, unit FROM pg_catalog.pg_settings")
        kinds[server.address] = {row["name"]: (row["vartype"], row["unit"]) for row in rows}
    return kinds[server.address]


def _config(row):
    running_sources = ("default", "configuration file", "command line", "environment variable", "override")
    return {
        "running": row["running"],
        "persisted": row["persisted"],
        "below": row["below"],
        "restart": row["context"] == "postmaster",
        # A session keeps what it began with in settings of the `backend` kinds.
        "comparable": row["source"] in running_sources and not row["context"].endswith("backend"),
    }


def _refuse_missing_libraries(libraries, server):
    for entry in libraries:
        statement = """
            SELECT EXISTS (
                SELECT FROM pg_config() c,
                    string_to_array(replace(current_setting('dynamic_library_path'), '$libdir', c.setting), ':') path,
                    unnest(CASE WHEN %(name)s LIKE '/%%' THEN ARRAY[''] ELSE path END) folder,
                    unnest(ARRAY['', '.so']) suffix
                WHERE c.name = 'PKGLIBDIR'
                    AND (pg_stat_file(concat_ws('/', nullif(folder, ''), %(name)s) || suffix, true)).size
                        IS NOT NULL) AS there
            """
        if not server.query(statement, {"name": entry.removeprefix("$libdir/")})[0]["there"]:
            raise ServerError(
                f"The server has no library {entry}, and would not start with it preloaded: install its package."
            )
