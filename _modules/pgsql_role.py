"""
Manage the roles of a PostgreSQL server.

Every function takes ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import driver, errors, features, memberships, quoting, roles, setting_values, verifiers
from pgsql_core.session import Server

__func_alias__ = {"list_": "list", "set_": "set"}
_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    return driver.required_by("pgsql_role")


@_salt_errors
def list_(connection=None):
    """
    Return the names of all roles.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.list
    """
    rows = _server(connection).query("SELECT rolname FROM pg_catalog.pg_roles ORDER BY rolname")
    return [row["rolname"] for row in rows]


@_salt_errors
def get(name, password=None, connection=None):
    """
    Return what PostgreSQL holds about a role, or nothing if there is no such role.

    ``password`` in the answer is the kind of the stored verifier, or ``unreadable`` where the connection may not
    read ``pg_authid``. ``valid_until`` is in UTC, and ``infinity`` where there is no limit.

    name
        Name of the role.
    password
        A password in clear; ``password_matches`` is then whether it is the role's. Where ``pg_authid`` may
        not be read that is found out by logging in. Defaults to not looking.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.get immich
    """
    quoting.check_name(name)
    server = _server(connection)
    readable = _reads_verifiers(server)
    rows = server.query_often("role", roles.query(readable, server.version()), name)
    if not rows:
        return None
    row = rows[0]
    verifier = row["verifier"]
    settings = {key: setting_values.parsed(entries) for key, entries in (row["settings"] or {}).items()}
    role = {
        **{attribute: row[attribute] for attribute in roles.ATTRIBUTES},
        "connection_limit": row["connection_limit"],
        "valid_until": row["valid_until"],
        "password": verifiers.kind(verifier) if readable else "unreadable",
        "member_of": memberships.held(row["member_of"] or []),
        "settings": settings.pop("", {}),
        "database_settings": settings,
    }
    if password is not None and readable:
        role["password_matches"] = verifier is not None and verifiers.matches(password, verifier, name)
    elif password is not None:
        role["password_matches"] = login_works(name, password, connection)
    return role


@_salt_errors
def set_(
    name,
    login=None,
    superuser=None,
    createdb=None,
    createrole=None,
    replication=None,
    bypassrls=None,
    inherit=None,
    connection_limit=None,
    valid_until=None,
    password=None,
    member_of=None,
    settings=None,
    database_settings=None,
    connection=None,
):
    """
    Create a role, or change the one that is there, in one transaction.

    What is not given stays as it is; in a new role it is PostgreSQL's default.

    name
        Name of the role.
    login, superuser, createdb, createrole, replication, bypassrls, inherit
        The role's attributes, as booleans.
    connection_limit
        Number of connections at a time; -1 for no limit.
    valid_until
        A time stamp after which the password is no longer valid; ``infinity`` for no limit.
    password
        In clear. The server is sent a SCRAM-SHA-256 verifier computed here, so that no log of it can hold the
        password. A verifier is taken as it is.
    member_of
        The exact list of roles that it is a member of, by name, or as ``{name: {admin, inherit, set}}`` with
        booleans; ``inherit`` and ``set`` exist since PostgreSQL 16.
    settings
        Settings of its sessions by name; nothing to reset one.
    database_settings
        The same in one database: ``{database: {name: value}}``.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for options that it is
    too old for.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.set reader login=True member_of='[pg_read_all_data]'
    """
    attributes = {
        "login": login,
        "superuser": superuser,
        "createdb": createdb,
        "createrole": createrole,
        "replication": replication,
        "bypassrls": bypassrls,
        "inherit": inherit,
    }
    password = None if password is None else str(password)
    roles.check(name, password, connection_limit, member_of, **attributes)
    server = _server(connection)
    words = [
        quoting.text(roles.ATTRIBUTES[attribute][1 if value else 2])
        for attribute, value in attributes.items()
        if value is not None
    ]
    if connection_limit is not None:
        words.append(quoting.compose("CONNECTION LIMIT {}", quoting.literal(connection_limit)))
    if valid_until is not None:
        words.append(quoting.compose("VALID UNTIL {}", quoting.literal(str(valid_until))))
    if password is not None:
        words.append(quoting.compose("PASSWORD {}", quoting.literal(_new_verifier(password, server))))
    current = get(name, connection=connection)
    role = quoting.name(name)
    statements = []
    if current is None:
        statements.append(quoting.compose("CREATE ROLE {} {}", role, quoting.joined(words)))
    elif words:
        statements.append(quoting.compose("ALTER ROLE {} {}", role, quoting.joined(words)))
    if member_of is not None:
        features.check(features.needed(member_of=member_of), server.version())
        desired = memberships.options(member_of)
        statements += memberships.statements(name, desired, _grants(name, server), server.version() >= 160000)
    statements += setting_values.assignments(quoting.compose("ALTER ROLE {}", role), settings or {})
    for database, values in (database_settings or {}).items():
        target = quoting.compose("ALTER ROLE {} IN DATABASE {}", role, quoting.name(database))
        statements += setting_values.assignments(target, values)
    server.run_together(statements)


@_salt_errors
def dependencies(name, connection=None, besides=None):
    """
    Return what keeps a role from being dropped: what it owns and what it was granted, as a list of sentences.

    name
        Name of the role.
    besides
        Name of a database that does not count, nor what is in it. Defaults to none.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.dependencies immich
    """
    rows = _server(connection).query(
        """
        SELECT d.datname AS database, owned.datname AS owned, s.deptype = 'o' AS owns, count(*) AS number
        FROM pg_catalog.pg_shdepend s
        JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass
        LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
        LEFT JOIN pg_catalog.pg_database owned
            ON s.classid = 'pg_catalog.pg_database'::regclass AND owned.oid = s.objid
        WHERE r.rolname = %s AND s.classid <> 'pg_catalog.pg_auth_members'::regclass
            AND coalesce(d.datname, owned.datname) IS DISTINCT FROM %s::name
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        (name, besides or ""),
    )
    return [roles.dependency(row) for row in rows]


@_salt_errors
def powers(name, connection=None):
    """
    Return the roles that give a role more rights than its own attributes, directly or by way of others.

    These are PostgreSQL's predefined roles, but for ``pg_database_owner``, and roles with SUPERUSER, CREATEDB,
    CREATEROLE, REPLICATION or BYPASSRLS.

    name
        Name of the role.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.powers immich
    """
    rows = _server(connection).query(
        """
        SELECT DISTINCT g.rolname AS role
        FROM pg_catalog.pg_roles r, pg_catalog.pg_roles g
        WHERE r.rolname = %s AND g.oid <> r.oid AND NOT r.rolsuper AND pg_has_role(r.oid, g.oid, 'MEMBER')
            AND (g.rolsuper OR g.rolcreatedb OR g.rolcreaterole OR g.rolreplication OR g.rolbypassrls
                OR (g.rolname LIKE 'pg\\_%%' AND g.rolname <> 'pg_database_owner'))
        ORDER BY 1
        """,
        (name,),
    )
    return [row["role"] for row in rows]


@_salt_errors
def drop(name, reassign_to=None, connection=None):
    """
    Drop a role.

    What it owns can be given to another role first, database by database, in a transaction each: PostgreSQL
    sees the objects of one database at a time. The role itself goes last.

    name
        Name of the role.
    reassign_to
        Role that takes over what it owns; what it was granted is revoked. Not done by default.

    Raises ``CommandExecutionError`` if the role is there and still needed, or the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.drop immich reassign_to=postgres
    """
    role = quoting.name(name)
    server = _server(connection)
    if reassign_to is not None:
        for database in _databases_with(name, server):
            statements = [
                quoting.compose("REASSIGN OWNED BY {} TO {}", role, quoting.name(reassign_to)),
                quoting.compose("DROP OWNED BY {}", role),
            ]
            server.run_together(statements, database)
    server.run_alone(quoting.compose("DROP ROLE {}", role))


@_salt_errors
def timestamp(value, connection=None):
    """
    Return a time stamp in the form in which ``get`` returns it: in UTC, or ``infinity``.

    value
        Whatever PostgreSQL reads as a time stamp with time zone.

    Raises ``CommandExecutionError`` if PostgreSQL cannot read it.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.timestamp '2030-01-01 00:00+01'
    """
    column = roles.timestamp_column("%s::timestamptz")
    return _server(connection).query(f"SELECT {column} AS value", (str(value),) * column.count("%s"))[0]["value"]


@_salt_errors
def login_works(user, password, connection=None, database=None):
    """
    Return whether the server lets a role in with a password, asking it to prove by SCRAM that it checked it.

    user
        Name of the role.
    password
        In clear.
    connection
        Where the server is; its user and password are not used. Defaults to this host's server.
    database
        Defaults to the maintenance database.

    Raises ``CommandExecutionError`` if there is no server.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_role.login_works immich secret
    """
    return _server(connection).lets_in(user, password, database)


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _new_verifier(password, server):
    if verifiers.is_verifier(password):
        return password
    rows = server.query("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'scram_iterations'")
    return verifiers.new(password, int(rows[0]["setting"])) if rows else verifiers.new(password)


def _reads_verifiers(server):
    if server.is_superuser():
        return True
    statement = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS readable"
    return server.query(statement)[0]["readable"]


def _grants(name, server):
    return server.query(
        """
        SELECT g.rolname AS role, by.rolname AS grantor, m.admin_option AS admin
        FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles r ON r.oid = m.member
        JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
        LEFT JOIN pg_catalog.pg_roles by ON by.oid = m.grantor
        WHERE r.rolname = %s
        """,
        (name,),
    )


def _databases_with(name, server):
    """Databases in which a role owns or was granted something; the maintenance database for what is shared."""
    rows = server.query(
        """
        SELECT DISTINCT coalesce(d.datname, current_database()) AS database
        FROM pg_catalog.pg_shdepend s
        JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass
        LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
        WHERE r.rolname = %s
        """,
        (name,),
    )
    return [row["database"] for row in rows]
