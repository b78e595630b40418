"""
Manage the databases of a PostgreSQL server.

Every function takes ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import databases, driver, errors, features, quoting, session, setting_values
from pgsql_core import privileges as on_objects
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

__func_alias__ = {"list_": "list", "set_": "set"}
_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)

OBJECT_IN_USE = "55006"
# A client may connect between the end of the connections and the renaming, which waits 5 seconds for them.
RENAME_ATTEMPTS = 5


def __virtual__():
    return driver.required_by("pgsql_database")


@_salt_errors
def list_(connection=None):
    """
    Return the names of all databases.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.list
    """
    rows = _server(connection).query("SELECT datname FROM pg_catalog.pg_database ORDER BY datname")
    return [row["datname"] for row in rows]


@_salt_errors
def exists(name, connection=None):
    """
    Return whether there is a database.

    name
        Name of the database.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.exists immich
    """
    return _server(connection).has_database(name)


@_salt_errors
def get(name, connection=None):
    """
    Return what PostgreSQL holds about a database, or nothing if there is no such database.

    ``privileges`` maps each grantee to its privileges on the database; ``PUBLIC`` is everybody.

    name
        Name of the database.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.get immich
    """
    quoting.check_name(name)
    server = _server(connection)
    version = server.version()
    provider = "d.datlocprovider" if version >= 150000 else "'c'"
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale" if version >= 150000 else "NULL"
    statement = f"""
        SELECT pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding,
            d.datcollate AS lc_collate, d.datctype AS lc_ctype, {provider} AS provider, {locale} AS locale,
            t.spcname AS tablespace, d.datconnlimit AS connection_limit, s.setconfig AS settings,
            (SELECT json_agg(json_build_array(coalesce(g.rolname, 'PUBLIC'), a.privilege_type))
                FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee) AS privileges
        FROM pg_catalog.pg_database d
        JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
        LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
        WHERE d.datname = $1
        """
    rows = server.query_often("database", statement, name)
    if not rows:
        return None
    database = rows[0]
    database["provider"] = databases.PROVIDERS[database["provider"]]
    database["settings"] = setting_values.parsed(database["settings"])
    database["privileges"] = on_objects.by_grantee(database["privileges"])
    return database


@_salt_errors
def create(
    name,
    owner=None,
    encoding=None,
    locale=None,
    lc_collate=None,
    lc_ctype=None,
    provider=None,
    template=None,
    tablespace=None,
    connection_limit=None,
    connection=None,
):
    """
    Create a database. PostgreSQL forbids that in a transaction.

    name
        Name of the database.
    owner
        Role that owns it. Defaults to the role of the connection.
    encoding
        Defaults to that of the template.
    locale
        With ``libc`` for both ``lc_collate`` and ``lc_ctype``, otherwise the locale of the provider.
        Defaults to that of the template.
    lc_collate, lc_ctype
        Default to ``locale``, or to those of the template.
    provider
        ``libc``, ``icu`` (15 and later) or ``builtin`` (17 and later). Defaults to that of the template.
    template
        Defaults to ``template0`` if encoding, locale or provider is given, as ``template1`` may hold data that
        is at odds with them; otherwise to ``template1``.
    tablespace
        Defaults to that of the template.
    connection_limit
        Number of connections at a time. Defaults to no limit.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for a provider that it is
    too old for.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.create immich owner=immich
    """
    databases.check(name, connection_limit, provider)
    if template is None and {encoding, locale, lc_collate, lc_ctype, provider} != {None}:
        template = "template0"
    clauses = [
        ("OWNER", owner, quoting.name),
        ("TEMPLATE", template, quoting.name),
        ("ENCODING", encoding, quoting.literal),
        ("LOCALE_PROVIDER", provider, quoting.literal),
        ("LC_COLLATE", lc_collate, quoting.literal),
        ("LC_CTYPE", lc_ctype, quoting.literal),
        (databases.locale_clause(provider), locale, quoting.literal),
        ("TABLESPACE", tablespace, quoting.name),
        ("CONNECTION LIMIT", connection_limit, quoting.literal),
    ]
    words = [
        quoting.compose("{} {}", quoting.text(keyword), kind(value))
        for keyword, value, kind in clauses
        if value is not None
    ]
    server = _server(connection)
    features.check(features.needed(provider=provider), server.version())
    server.run_alone(quoting.compose("CREATE DATABASE {} {}", quoting.name(name), quoting.joined(words)))


@_salt_errors
def set_(
    name,
    owner=None,
    tablespace=None,
    connection_limit=None,
    settings=None,
    privileges=None,
    connection=None,
):
    """
    Change a database, in one transaction but for the tablespace, which PostgreSQL forbids there.

    What is not given stays as it is.

    name
        Name of the database.
    owner
        Role that shall own it. What is inside keeps its owners.
    tablespace
        Where its files shall be; they are copied, and there may be no connections.
    connection_limit
        Number of connections at a time; -1 for no limit.
    settings
        Settings of its sessions by name; nothing to reset one.
    privileges
        ``{grantee: [privilege, …]}``, the exact list for each grantee named, of ``CONNECT``, ``CREATE``,
        ``TEMPORARY`` and ``ALL``. ``PUBLIC`` is everybody.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for unknown privileges.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.set immich privileges='{PUBLIC: []}'
    """
    databases.check(name, connection_limit, privileges=privileges)
    database = quoting.name(name)
    target = quoting.compose("ALTER DATABASE {}", database)
    statements = []
    if owner is not None:
        statements.append(quoting.compose("{} OWNER TO {}", target, quoting.name(owner)))
    if connection_limit is not None:
        statements.append(quoting.compose("{} CONNECTION LIMIT {}", target, quoting.literal(connection_limit)))
    statements += setting_values.assignments(target, settings or {})
    if privileges:
        desired = on_objects.normal(privileges, on_objects.ON_DATABASES)
        held = get(name, connection)["privileges"]
        statements += on_objects.statements(quoting.compose("DATABASE {}", database), desired, held)
    server = _server(connection)
    server.run_together(statements)
    if tablespace is not None:
        session.disconnect(__context__, name)
        server.run_alone(quoting.compose("{} SET TABLESPACE {}", target, quoting.name(tablespace)))


@_salt_errors
def drop(name, force=False, connection=None):
    """
    Drop a database and everything in it. PostgreSQL forbids that in a transaction.

    name
        Name of the database.
    force
        Whether to end the connections of others to it, and to drop it although its owner has declared it a template;
        PostgreSQL's own templates stay. Defaults to ``False``: PostgreSQL then refuses.

    Raises ``CommandExecutionError`` if there is no database of this name, or the server refuses. If another session
    drops or renames it meanwhile, this waits for that, and succeeds.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.drop immich force=True
    """
    session.disconnect(__context__, name)
    server = _server(connection)
    if not server.has_database(name):
        raise ServerError(f"There is no database {name}.", absent="database")
    if force and name not in databases.TEMPLATES:
        # Its owner can declare it a template, so that it cannot be dropped.
        declared = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s AND datistemplate"
        if server.query(declared, (name,)):
            server.run_alone(quoting.compose("ALTER DATABASE {} IS_TEMPLATE false", quoting.name(name)))
    words = quoting.text("WITH (FORCE)" if force else "")
    # The server may still be dropping it for a client that was killed. The statement waits for that, and must not fail.
    server.run_alone(quoting.compose("DROP DATABASE IF EXISTS {} {}", quoting.name(name), words))


@_salt_errors
def rename(names, connection=None):
    """
    Rename databases, all of them at the same moment or none, ending the connections to them first.

    names
        ``{name: new name}``, in their order.

    Raises ``CommandExecutionError`` if the server refuses, or clients connect again and again.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.rename '{shop: shop_old, shop_new: shop}'
    """
    rename_to = "ALTER DATABASE {} RENAME TO {}"
    statements = [quoting.compose(rename_to, quoting.name(old), quoting.name(new)) for old, new in names.items()]
    server = _server(connection)
    for name in names:
        session.disconnect(__context__, name)
    for left in reversed(range(RENAME_ATTEMPTS)):
        server.query(
            """
            SELECT pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity
            WHERE datname = ANY (%s) AND pid <> pg_backend_pid()
            """,
            (list(names),),
        )
        try:
            server.run_together(statements)
            return
        except ServerError as err:
            if err.sqlstate != OBJECT_IN_USE or not left:
                raise


@_salt_errors
def reassign(name, old, new, connection=None):
    """
    Give a database, and all that a role owns in it, to another role, in one transaction.

    What the former owner has elsewhere stays its own: REASSIGN OWNED hands over every database and tablespace, wherever
    it is run. A role that does not exist owns nothing.

    name
        Name of the database.
    old, new
        Names of the roles.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.reassign shop shop_old shop
    """
    server = _server(connection)
    given = [
        quoting.compose("REASSIGN OWNED BY {} TO {}", quoting.name(old), quoting.name(new)),
        quoting.compose("ALTER DATABASE {} OWNER TO {}", quoting.name(name), quoting.name(new)),
    ]
    if not server.query("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", (old,)):
        return
    shared = server.query(
        """
        SELECT 'DATABASE' AS kind, datname::text AS name FROM pg_catalog.pg_database d
        JOIN pg_catalog.pg_roles r ON r.oid = d.datdba WHERE r.rolname = %(role)s AND datname <> %(database)s
        UNION ALL
        SELECT 'TABLESPACE', spcname::text FROM pg_catalog.pg_tablespace t
        JOIN pg_catalog.pg_roles r ON r.oid = t.spcowner WHERE r.rolname = %(role)s
        ORDER BY 1, 2
        """,
        {"role": old, "database": name},
    )
    kept = [
        quoting.compose(
            "ALTER {} {} OWNER TO {}", quoting.text(each["kind"]), quoting.name(each["name"]), quoting.name(old)
        )
        for each in shared
    ]
    server.run_together([*given, *kept], name)


@_salt_errors
def usage(name, connection=None):
    """
    Return what would be lost with a database: its size, readable, and the number of connections to it.

    name
        Name of the database.

    Raises ``CommandExecutionError`` if there is no such database.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.usage immich
    """
    statement = """
        SELECT pg_size_pretty(pg_database_size(%s)) AS size,
            (SELECT count(*) FROM pg_catalog.pg_stat_activity
                WHERE datname = %s AND application_name <> 'salt') AS connections
        """
    return _server(connection).query(statement, (name, name))[0]


@_salt_errors
def created(name, connection=None):
    """
    Return when a database was created, or moved to another tablespace, in seconds since 1970.

    It is the time of a file that PostgreSQL writes then and never again; a copy of the cluster may have recreated it.

    name
        Name of the database.
    connection
        That of a superuser. Defaults to the one on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached, or the role is no superuser.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.created immich
    """
    statement = """
        SELECT extract(epoch FROM (pg_stat_file(regexp_replace(
            pg_relation_filepath('pg_catalog.pg_class'), '[^/]+$', 'PG_VERSION'))).modification)::float8 AS made
        """
    return _server(connection).query(statement, database=name)[0]["made"]


@_salt_errors
def schema_privileges(database, schema="public", connection=None):
    """
    Return who may do what in a schema, as ``{grantee: [privilege, …]}``; ``PUBLIC`` is everybody.

    database
        Name of the database.
    schema
        Defaults to ``public``.

    Raises ``CommandExecutionError`` if there is no such schema.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.schema_privileges immich
    """
    rows = _server(connection).query(
        """
        SELECT (SELECT json_agg(json_build_array(coalesce(g.rolname, 'PUBLIC'), a.privilege_type))
                FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee) AS privileges
        FROM pg_catalog.pg_namespace n WHERE n.nspname = %s
        """,
        (schema,),
        database,
    )
    if not rows:
        raise ServerError(f"The database {database} has no schema {schema}.")
    return on_objects.by_grantee(rows[0]["privileges"])


@_salt_errors
def schema_privileges_set(database, privileges, schema="public", connection=None):
    """
    Change who may do what in a schema, in one transaction.

    database
        Name of the database.
    privileges
        ``{grantee: [privilege, …]}``, the exact list for each grantee named, of ``CREATE``, ``USAGE`` and
        ``ALL``. ``PUBLIC`` is everybody.
    schema
        Defaults to ``public``.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for unknown privileges.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.schema_privileges_set immich '{PUBLIC: [USAGE]}'
    """
    desired = on_objects.normal(privileges, on_objects.ON_SCHEMAS)
    held = schema_privileges(database, schema, connection)
    statements = on_objects.statements(quoting.compose("SCHEMA {}", quoting.name(schema)), desired, held)
    _server(connection).run_together(statements, database)


@_salt_errors
def analyze(database, connection=None, timeout=None):
    """
    Collect the statistics that the planner needs, which a dump does not hold.

    database
        Name of the database.
    timeout
        Seconds: the expression of an index may never end. Defaults to no limit.

    Raises ``CommandExecutionError`` if the server refuses, or the time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.analyze immich
    """
    server = _server(connection)
    limit = quoting.compose("SET statement_timeout = {}", quoting.literal(f"{timeout or 0}s"))
    server.run_alone(limit, database)
    server.run_alone(quoting.text("ANALYZE"), database)
    server.run_alone(quoting.text("RESET statement_timeout"), database)


@_salt_errors
def query_as(role, database, statement, connection=None, timeout=60):
    """
    Return the rows of a query, run with the rights of a role and with no way to more.

    For a superuser who has to look into the data of a tenant: views, rules and the expressions of indexes can hold
    functions of the tenant, which a plain query would run as the superuser, and after ``SET ROLE`` they could set it
    back. Here the query is the body of a temporary function that belongs to the role and is ``SECURITY DEFINER``, in
    which PostgreSQL lets nobody change the role. It has a session of its own, and all it did is rolled back.

    role
        Name of the role.
    database
        Name of the database.
    statement
        One query without arguments. Its ``search_path`` is ``pg_catalog``.
    connection
        That of a superuser. Defaults to the one on this host's server.
    timeout
        Seconds after which the server ends the query: what the tenant has written may never end. Defaults to 60.

    Each row is a dictionary, of values as JSON has them. Raises ``CommandExecutionError`` if the server cannot be
    reached or refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_database.query_as immich immich 'SELECT count(*) FROM public.asset'
    """
    body = f"SELECT pg_catalog.to_jsonb(asked) FROM ({statement}) asked"
    function = quoting.text("pg_temp.salt_asked()")
    create = "CREATE FUNCTION {} RETURNS SETOF jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS {}"
    with _server(connection).rolled_back(database) as cursor:
        cursor.execute(quoting.compose(create, function, quoting.literal(body)))
        cursor.execute(quoting.compose("ALTER FUNCTION {} OWNER TO {}", function, quoting.name(role)))
        # Once a statement has begun, nothing that it runs moves its end.
        cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (f"{timeout}s",))
        cursor.execute(quoting.compose("SELECT found FROM {} found", function))
        return [row[0] for row in cursor.fetchall()]


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)
