"""
Configure PostgreSQL for Immich.

Requires the execution modules ``pgsql_extension`` and ``immich_postgres``, and the states ``pgsql_config`` and
``pgsql_extension``.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import terminal
from immich_core import postgres_declared, postgres_extensions
from immich_host import postgres_tuning, vectorchord_package
from immich_host import vector_extension as immich_vector
from pgsql_core import list_settings


def __virtual__():
    if "pgsql_extension.list" not in __salt__:
        return False, "immich_postgres needs the execution module pgsql_extension: is psycopg2 in Salt's Python?"
    return True


def server_configured(
    name, listen_addresses, database, vector_extension="auto", service=None, connection=None, tuning="none"
):
    """
    Ensure that the server listens for Immich, preloads what its vector extension needs, and has the settings of a
    profile.

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
    tuning
        ``ssd``, ``hdd``, or ``none``, the default, which gives settings of a former profile their former values back.

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
        settings, record = postgres_tuning.plan(tuning, __grains__["mem_total"], connection, __salt__)
        if settings and not __opts__["test"]:
            # Before, so that a run which ends early does not take its own values for the former ones.
            postgres_tuning.note({**postgres_tuning.recorded(), **record})
    except (CommandExecutionError, SaltInvocationError, OSError) as err:
        return {"name": name, "result": False, "comment": str(err), "changes": {}}
    if libraries:
        include["shared_preload_libraries"] = libraries
    ret = __states__["pgsql_config.present"](
        name, settings=settings, include=include, service=service, connection=connection
    )
    return _tuned(ret, record)


def tuning_absent(name, connection=None):
    """
    Ensure that settings which a profile has set have their former values. The server gets those that need a restart
    when it is restarted.

    name
        What the state is about, for the output only.
    connection
        As in ``pgsql_server``. Defaults to the superuser on this host's server.

    .. code-block:: yaml

        PostgreSQL has its former settings:
          immich_postgres.tuning_absent: []
    """
    try:
        settings, record = postgres_tuning.plan("none", __grains__["mem_total"], connection, __salt__)
    except (CommandExecutionError, SaltInvocationError) as err:
        return {"name": name, "result": False, "comment": str(err), "changes": {}}
    return _tuned(__states__["pgsql_config.present"](name, settings=settings, connection=connection), record)


def _tuned(ret, record):
    """The return of the state that has set a profile's settings, once the record has no more than these."""
    if ret["result"] is True and not __opts__["test"]:
        try:
            postgres_tuning.note(record)
        except OSError as err:
            return {**ret, "result": False, "comment": f"{ret['comment']} It is not on record: {err}"}
    return ret


def vectorchord_installed(name, package, hash, service=None, connection=None):
    """
    Ensure that the package of VectorChord that the pillar names is installed.

    Its hash is compared, and that it has the extension for this server's version, before anything changes. A server
    that has loaded the library of another version is restarted.

    name
        What the state is about, for the output only.
    package
        URL or path of a Debian package.
    hash
        Its SHA-256, in hexadecimal.
    service
        Service to restart. Defaults to none: the server then runs with the former library until it is restarted.
    connection
        As in ``pgsql_server``. Defaults to the superuser on this host's server.

    .. code-block:: yaml

        VectorChord is installed:
          immich_postgres.vectorchord_installed:
            - package: /root/postgresql-17-vchord_0.4.3-1_amd64.deb
            - hash: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        there = vectorchord_package.installed(hash)
        if there:
            return {**ret, "comment": f"{there['name']} {there['version']} is installed"}
        if __opts__["test"]:
            ret["changes"] = {"VectorChord": {"old": None, "new": package}}
            return {**ret, "result": None, "comment": f"{package} would be installed"}
        path = vectorchord_package.file_of(package, hash, __salt__)
        found = vectorchord_package.fitting(path, __salt__["pgsql_server.version"](connection) // 10000)
        former = vectorchord_package.version(found["name"])
        vectorchord_package.install(path, found, hash)
        ret["changes"] = {found["name"]: {"old": former, "new": found["version"]}}
        ret["comment"] = f"{found['name']} {found['version']} was installed"
        if former != found["version"] and service and _is_loaded(connection):
            __salt__["pgsql_server.restart"](service, connection)
            ret["comment"] += f", and {service} was restarted"
    except (CommandExecutionError, SaltInvocationError, OSError) as err:
        return {**ret, "result": False, "comment": str(err)}
    return ret


def _is_loaded(connection):
    name = "shared_preload_libraries"
    held = __salt__["pgsql_config.get"]([name], connection)[name]["running"]
    return bool(set(list_settings.entries_of(held)) & set(postgres_extensions.preload_libraries("vchord")))


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
