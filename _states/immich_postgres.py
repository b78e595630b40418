"""
Configure PostgreSQL for Immich.

Requires the execution modules ``pgsql_extension`` and ``immich_postgres``, and the states ``pgsql_config`` and
``pgsql_extension``.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import terminal
from immich_core import postgres_declared, postgres_extensions
from immich_host import vector_extension as immich_vector


def __virtual__():
    if "pgsql_extension.list" not in __salt__:
        return False, "immich_postgres needs the execution module pgsql_extension: is psycopg2 in Salt's Python?"
    return True


def server_configured(name, listen_addresses, database, vector_extension="auto", service=None, connection=None):
    """
    Ensure that the server listens for Immich, and preloads what its vector extension needs.

    name
        What the state is about, for the output only.
    listen_addresses
        List of addresses to listen on, in addition to the server's other addresses. May be empty.
    database
        Name of Immich's database, which need not exist yet.
    vector_extension
        ``vectorchord``, ``pgvector`` or ``auto``. Defaults to ``auto``.
    service
        Service to restart, at most once, where that is needed. Defaults to none.
    connection
        As in ``pgsql_server``. Defaults to the superuser on this host's server.

    .. code-block:: yaml

        PostgreSQL listens for Immich:
          immich_postgres.server_configured:
            - listen_addresses: [10.88.0.1]
            - database: immich
            - service: postgresql@17-main
    """
    include = {"listen_addresses": listen_addresses} if listen_addresses else {}
    try:
        libraries = _libraries(database, vector_extension, connection)
    except (CommandExecutionError, SaltInvocationError) as err:
        return {"name": name, "result": False, "comment": str(err), "changes": {}}
    if libraries:
        include["shared_preload_libraries"] = libraries
    return __states__["pgsql_config.present"](name, include=include, service=service, connection=connection)


def extensions_present(name, database, vector_extension="auto", connection=None):
    """
    Ensure that Immich's database has the extensions that Immich needs, in the server's versions.

    When the vector extension's version changes, the indexes on it are rebuilt in the same transaction. An existing
    database keeps the vector extension that it has.

    The database belongs to the role that Immich logs in with, while a superuser creates the extensions: objects of
    that role in the schema ``public`` are checked first, see ``pgsql_extension.create``.

    name
        What the state is about, for the output only.
    database
        Name of Immich's database.
    vector_extension
        ``vectorchord``, ``pgvector`` or ``auto``. Defaults to ``auto``.
    connection
        As in ``pgsql_server``. Defaults to the superuser on this host's server.

    .. code-block:: yaml

        Immich's database has its extensions:
          immich_postgres.extensions_present:
            - database: immich
    """
    ret = {"name": name, "result": True, "comment": "", "changes": {}}
    try:
        vector = immich_vector.of(database, vector_extension, connection, __salt__)
        current = __salt__["pgsql_extension.list"](database, [vector], connection)[vector]
    except (CommandExecutionError, SaltInvocationError) as err:
        if __opts__["test"] and getattr(err, "absent", None):
            ret["result"] = None
            ret["changes"] = {"extensions": {"old": None, "new": "present"}}
            ret["comment"] = (
                f"The extensions would be created in database {database}. Which are missing is not known yet: {err}"
            )
            return ret
        return {**ret, "result": False, "comment": str(err)}
    comments = [f"Database {database} has what Immich needs, with the vector extension {vector}."]
    if vector_extension not in ("auto", postgres_extensions.immich_name(vector)):
        comments.append(f"It keeps that although {vector_extension} is asked for.")
    for extension in postgres_extensions.needed(vector, present=bool(current["installed"])):
        single = __states__["pgsql_extension.present"](
            extension,
            database,
            update=True,
            reindex=postgres_declared.has_indexes(extension),
            connection=connection,
            **postgres_declared.extension(extension),
        )
        ret["changes"].update(_named(extension, single["changes"]))
        if single["result"] is False:
            # It may name what the database's owner has named.
            return {**ret, "result": False, "comment": terminal.plain(single["comment"])}
        if single["changes"]:
            comments.append(single["comment"])
        if single["result"] is None:
            ret["result"] = None
    ret["comment"] = " ".join(comments[1:] if ret["changes"] else comments)
    return ret


def _libraries(database, vector_extension, connection):
    try:
        vector = immich_vector.of(database, vector_extension, connection, __salt__)
    except CommandExecutionError as err:
        # No server is for pgsql_config to tell, and a missing extension for the state that creates it.
        if getattr(err, "absent", None) in ("server", "extension"):
            return []
        raise
    return postgres_extensions.preload_libraries(vector)


def _named(extension, changes):
    named = {}
    if "extension" in changes or "version" in changes:
        named[extension] = changes.get("version", changes.get("extension"))
    elif "schema" in changes:
        named[f"{extension} schema"] = changes["schema"]
    return named
