"""
Manage the extensions of a PostgreSQL database.

Every function takes ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import driver, errors, extensions, quoting
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

__func_alias__ = {"list_": "list"}
_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)

EXTENSION_OFFERS = "pgsql_extension.offers"
# When the folder of the extensions' files was changed, which only a superuser can see. The time counts in seconds: in
# the one in which the folder changes it may change again.
EXTENSIONS_CHANGED = """(
    SELECT CASE WHEN modification < now() - interval '2s' THEN modification::text END
    FROM pg_stat_file((SELECT setting FROM pg_config() WHERE name = 'SHAREDIR') || '/extension', true))"""


def __virtual__():
    return driver.required_by("pgsql_extension")


@_salt_errors
def list_(database, names=None, connection=None):
    """
    Return what a database has and its server offers of extensions, by name.

    Of each: ``installed`` and ``available`` (versions, or nothing), ``schema``, ``fixed_schema`` (the only one it
    can be in, if there is one), ``relocatable``, ``requires`` (required extensions that are not there yet),
    ``refused`` (why this connection cannot create or update it) and ``not_yet`` (what has to happen on the
    server first), as lists of sentences.

    database
        Name of the database.
    names
        List of extensions. Defaults to those that are installed.

    Raises ``CommandExecutionError`` if the server cannot be reached or has no such database.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_extension.list immich
    """
    server = _server(connection)
    mighty = server.is_superuser(database)
    statement = f"""
        SELECT n.name, e.extversion AS installed, s.nspname AS schema, e.extrelocatable AS relocatable,
            CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                THEN current_setting('shared_preload_libraries') END AS preloaded,
            ARRAY(SELECT extname::text FROM pg_catalog.pg_extension) AS present,
            EXISTS (SELECT FROM pg_catalog.pg_roles r
                WHERE r.rolname = ANY (ARRAY{extensions.ADMINS}) AND pg_has_role(current_user, r.oid, 'MEMBER'))
                AS is_admin, {EXTENSIONS_CHANGED if mighty else "NULL"} AS stamp
        FROM unnest(coalesce($1::text[], ARRAY(SELECT extname::text FROM pg_catalog.pg_extension))) n(name)
        LEFT JOIN pg_catalog.pg_extension e ON e.extname = n.name
        LEFT JOIN pg_catalog.pg_namespace s ON s.oid = e.extnamespace
        """
    rows = server.query_often("extensions", statement, names, database)
    offers = _offers(server, database, rows[0]["stamp"] if rows else None)
    return {row["name"]: extensions.described(row, offers.get(row["name"]), mighty or row["is_admin"]) for row in rows}


@_salt_errors
def create(name, database, schema=None, version=None, cascade=False, connection=None):
    """
    Create an extension in a database.

    A role that may create objects in the schema could have created functions or operators there with the names of
    PostgreSQL's own, which the extension's script would call with the rights of a superuser. A schema with such
    objects is refused. See https://www.postgresql.org/docs/current/extend-extensions.html, "Security Considerations
    for Extensions", and the caution on earthdistance in its own chapter.

    name
        Name of the extension.
    database
        Name of the database.
    schema
        Where its objects go. Defaults to the extension's own schema, else ``public``.
    version
        Defaults to the server's default version.
    cascade
        Whether to create the extensions that it requires too. Defaults to ``False``.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_extension.create earthdistance immich schema=public cascade=True
    """
    server = _server(connection)
    # Left to itself, PostgreSQL would take the first schema of search_path, which is pg_catalog here.
    schema = schema or list_(database, [name], connection)[name]["fixed_schema"] or "public"
    _refuse_shadowed(server, database, schema)
    clauses = [
        quoting.compose("SCHEMA {}", quoting.name(schema)),
        quoting.compose("VERSION {}", quoting.literal(str(version))) if version is not None else quoting.text(""),
        quoting.text("CASCADE" if cascade else ""),
    ]
    statement = quoting.compose("CREATE EXTENSION {} {}", quoting.name(name), quoting.joined(clauses))
    server.run_together([statement], database)


@_salt_errors
def update(name, database, version=None, schema=None, reindex=False, connection=None):
    """
    Move an extension to another version or schema, and rebuild the indexes that use it, in one transaction.

    name
        Name of the extension.
    database
        Name of the database.
    version
        Version to move to; ``True`` for the server's default one. Defaults to the one that is installed.
    schema
        Schema to move to. Defaults to where it is.
    reindex
        Whether to rebuild the indexes that use it, see ``indexes``. Defaults to ``False``.

    Raises ``CommandExecutionError`` if the server refuses, or knows no way to that version.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_extension.update vector immich version=True reindex=True
    """
    server = _server(connection)
    state = list_(database, [name], connection)[name]
    _refuse_shadowed(server, database, schema or state["schema"])
    extension = quoting.name(name)
    statements = []
    if version is not None:
        target = state["available"] if version is True else str(version)
        in_the_way = obstacles(name, database, state["installed"], target, connection)
        if in_the_way:
            raise ServerError(" ".join(in_the_way))
        statements.append(quoting.compose("ALTER EXTENSION {} UPDATE TO {}", extension, quoting.literal(target)))
    if schema is not None:
        statements.append(quoting.compose("ALTER EXTENSION {} SET SCHEMA {}", extension, quoting.name(schema)))
    if reindex:
        used = indexes(name, database, connection)
        statements += [quoting.compose("REINDEX INDEX {}", quoting.qualified(*index)) for index in used]
    server.run_together(statements, database)


@_salt_errors
def obstacles(name, database, installed, version, connection=None):
    """
    Return why the server cannot bring an extension to a version, as a list of sentences; none if it can.

    name
        Name of the extension.
    database
        Name of the database.
    installed
        Version that the database has; nothing if it has none.
    version
        Version to come to.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_extension.obstacles vector immich 0.7.4 0.8.0
    """
    if installed is None:
        statement = "SELECT 1 FROM pg_available_extension_versions() WHERE name = %s AND version = %s"
        if not _server(connection).query(statement, (name, version), database):
            return [f"The server does not offer the extension {name} in version {version}."]
        return []
    statement = """
        SELECT 1 FROM pg_extension_update_paths(%s) WHERE source = %s AND target = %s AND path IS NOT NULL
        """
    if installed != version and not _server(connection).query(statement, (name, installed, version), database):
        return [f"The server knows no way to update the extension {name} from {installed} to {version}."]
    return []


@_salt_errors
def drop(name, database, cascade=False, connection=None):
    """
    Drop an extension from a database.

    name
        Name of the extension.
    database
        Name of the database.
    cascade
        Whether to drop what depends on it too, columns with their data included. Defaults to ``False``.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_extension.drop pg_trgm immich
    """
    statement = quoting.compose("DROP EXTENSION {} {}", quoting.name(name), quoting.text("CASCADE" if cascade else ""))
    _server(connection).run_together([statement], database)


@_salt_errors
def indexes(name, database, connection=None):
    """
    Return the indexes that use an extension's access methods, operator classes, types, functions or operators, as
    ``[schema, name]``.

    name
        Name of the extension.
    database
        Name of the database.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_extension.indexes vector immich
    """
    rows = _server(connection).query(
        """
        SELECT n.nspname AS schema, c.relname AS name
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE EXISTS (
            SELECT FROM pg_catalog.pg_opclass o
            JOIN pg_catalog.pg_depend d ON d.deptype = 'e' AND (d.classid, d.objid) IN (
                ('pg_catalog.pg_am'::regclass, c.relam),
                ('pg_catalog.pg_opclass'::regclass, o.oid),
                ('pg_catalog.pg_type'::regclass, o.opcintype))
            JOIN pg_catalog.pg_extension e
                ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
            WHERE o.oid = ANY (i.indclass::oid[]) AND e.extname = %(name)s)
        OR EXISTS (
            SELECT FROM pg_catalog.pg_depend u
            JOIN pg_catalog.pg_depend d ON d.deptype = 'e' AND (d.classid, d.objid) = (u.refclassid, u.refobjid)
            JOIN pg_catalog.pg_extension e
                ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
            WHERE u.classid = 'pg_catalog.pg_class'::regclass AND u.objid = c.oid AND e.extname = %(name)s)
        ORDER BY 1, 2
        """,
        {"name": name},
        database,
    )
    return [[row["schema"], row["name"]] for row in rows]


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _offers(server, database, stamp):
    """
    What the server offers, by extension. Telling it means reading all files of all extensions, so it is kept until
    the folder of these files changes, which a package that adds or replaces one cannot avoid.
    """
    kept = __context__.setdefault(EXTENSION_OFFERS, {})
    if stamp is None or kept.get(server.address, (None, None))[0] != stamp:
        rows = server.query(
            """
            SELECT a.name, a.default_version AS available, v.relocatable, v.schema AS fixed_schema, v.superuser,
                v.trusted, coalesce(v.requires, '{}')::text[] AS requires
            FROM pg_available_extensions() a
            JOIN pg_available_extension_versions() v ON v.name = a.name AND v.version = a.default_version
            """,
            database=database,
        )
        kept[server.address] = stamp, {row["name"]: row for row in rows}
    return kept[server.address][1]


def _refuse_shadowed(server, database, schema):
    rows = server.query(
        """
        SELECT 'function ' || p.oid::regprocedure AS object
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_roles r ON r.oid = p.proowner AND NOT r.rolsuper
        WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
            AND p.proname IN (
                SELECT other.proname FROM pg_catalog.pg_proc other WHERE other.pronamespace = 'pg_catalog'::regnamespace
                    OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = other.oid
                        AND d.classid = 'pg_catalog.pg_proc'::regclass AND other.proowner <> p.proowner))
        UNION ALL
        SELECT 'operator ' || o.oid::regoperator
        FROM pg_catalog.pg_operator o
        JOIN pg_catalog.pg_roles r ON r.oid = o.oprowner AND NOT r.rolsuper
        WHERE o.oprnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
            AND o.oprname IN (
                SELECT other.oprname FROM pg_catalog.pg_operator other
                WHERE other.oprnamespace = 'pg_catalog'::regnamespace
                    OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = other.oid
                        AND d.classid = 'pg_catalog.pg_operator'::regclass AND other.oprowner <> o.oprowner))
        """,
        {"schema": schema},
        database,
    )
    if rows:
        raise ServerError(
            f"The schema {schema} of the database {database} holds objects of a role without superuser that are "
            f"called like PostgreSQL's own or an extension's, and an extension's script could trip over them: "
            f"{', '.join(row['object'] for row in rows)}. Drop them or move them to another schema."
        )
