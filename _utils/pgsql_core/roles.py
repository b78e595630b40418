"""
Roles: their attributes, what can be declared of one, and what keeps one from being dropped
===========================================================================================
"""

from pgsql_core import memberships, quoting
from pgsql_core.errors import InvalidArgumentError

ATTRIBUTES = {
    "login": ("rolcanlogin", "LOGIN", "NOLOGIN"),
    "superuser": ("rolsuper", "SUPERUSER", "NOSUPERUSER"),
    "createdb": ("rolcreatedb", "CREATEDB", "NOCREATEDB"),
    "createrole": ("rolcreaterole", "CREATEROLE", "NOCREATEROLE"),
    "replication": ("rolreplication", "REPLICATION", "NOREPLICATION"),
    "bypassrls": ("rolbypassrls", "BYPASSRLS", "NOBYPASSRLS"),
    "inherit": ("rolinherit", "INHERIT", "NOINHERIT"),
}


def check(name, password=None, connection_limit=None, member_of=None, **declared):
    """
    Raise ``InvalidArgumentError``, with the reason, if a role cannot be as described.

    name, password, connection_limit, member_of
        As for ``pgsql_role.set``.

    declared
        The other arguments of ``pgsql_role.set``.
    """
    quoting.check_name(name)
    for attribute in ATTRIBUTES:
        # A text such as "false" would count as true.
        if not isinstance(declared.get(attribute), (bool, type(None))):
            raise InvalidArgumentError(f"{attribute} is true or false, not {declared[attribute]!r}.")
    quoting.check_limit(connection_limit)
    if password is not None and (not password or "\0" in password):
        raise InvalidArgumentError("A password is a text that is not empty and has no NUL in it.")
    memberships.options(member_of or [])


def dependency(row):
    """Return what a role owns or was granted, as a sentence; ``row`` has the kind, the place and the number."""
    if row["owned"]:
        return f"It {'owns' if row['owns'] else 'has privileges on'} the database {row['owned']}."
    verb = "owns" if row["owns"] else "has privileges on"
    where = f"in the database {row['database']}" if row["database"] else "shared by all databases"
    return f"It {verb} {row['number']} object{'s' if row['number'] > 1 else ''} {where}."


def timestamp_column(expression):
    """Return the SQL for a time stamp in UTC, or ``infinity`` where there is none."""
    return (
        f"CASE WHEN {expression} IS NULL THEN 'infinity' WHEN NOT isfinite({expression}) THEN {expression}::text "
        f"ELSE to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') END"
    )


def query(readable, version):
    """
    Return the query for a role, whose name is its first argument.

    readable
        Whether ``pg_authid`` may be read, which holds the verifiers.

    version
        That of the server, as a number such as 170006.
    """
    attributes = ", ".join(f"r.{column} AS {attribute}" for attribute, (column, _, _) in ATTRIBUTES.items())
    options = "m.inherit_option, m.set_option" if version >= 160000 else "NULL, NULL"
    return f"""
        SELECT {attributes}, r.rolconnlimit AS connection_limit,
            {timestamp_column("r.rolvaliduntil")} AS valid_until,
            {"r.rolpassword" if readable else "NULL"} AS verifier,
            (SELECT json_agg(json_build_array(g.rolname, m.admin_option, {options}))
                FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                WHERE m.member = r.oid) AS member_of,
            (SELECT json_object_agg(coalesce(d.datname, ''), to_json(s.setconfig))
                FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
                WHERE s.setrole = r.oid) AS settings
        FROM pg_catalog.{"pg_authid" if readable else "pg_roles"} r WHERE r.rolname = $1
        """
