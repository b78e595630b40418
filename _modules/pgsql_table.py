"""
Inspect the tables of a PostgreSQL database.

Every function takes ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

import contextlib
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import driver, errors, quoting
from pgsql_core.connection import OWNERS_SEARCH_PATH
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

__func_alias__ = {"list_": "list"}
_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    return driver.required_by("pgsql_table")


@_salt_errors
def list_(database, schema="public", connection=None):
    """
    Return the names of the tables in a schema, without those of extensions.

    database
        Name of the database.
    schema
        Name of the schema, ``public`` by default. One that is not there has no tables.

    Raises ``CommandExecutionError`` if the server cannot be reached or has no such database.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_table.list immich
    """
    statement = """
        SELECT c.relname::text AS name FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY 1
        """
    return [row["name"] for row in _server(connection).query(statement, (schema,), database)]


@_salt_errors
def row_counts(database, connection=None, timeout=None):
    """
    Return the number of rows of each table of a database, as ``{"schema.table": rows}``.

    Only tables are read, no views, and no tables of extensions: nothing of what the database's owner has written is
    run, except policies of row security.

    database
        Name of the database.
    timeout
        Seconds for all of it. Defaults to no limit.

    Raises ``CommandExecutionError`` if the role may not read one of them, or the time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_table.row_counts immich
    """
    with _reading_tables(_server(connection), database, timeout) as ask:
        tables = ask(_tables_query(""))
        return {_table_key(table): ask(_count_statement(table))[0]["rows"] for table in tables}


@_salt_errors
def rows_before(database, column, moment, connection=None, timeout=None):
    """
    Return how many rows of each table are from before a moment, as ``{"schema.table": rows}``.

    Tables without such a column, or with one of another type than ``timestamp with time zone``, are left out.

    database
        Name of the database.
    column
        Name of the column that says when a row was made.
    moment
        Seconds since 1970.
    connection, timeout
        As for :py:func:`row_counts`.

    Raises ``CommandExecutionError`` if the role may not read one of them, or the time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_table.rows_before immich createdAt 1790000000
    """
    has_column = """
        AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %s
            AND a.atttypid = 'pg_catalog.timestamptz'::pg_catalog.regtype AND a.attnum > 0 AND NOT a.attisdropped)
        """
    # Without arguments: a table's name may hold what stands for one.
    then = quoting.literal(float(moment))
    before = quoting.compose("WHERE {} OPERATOR(pg_catalog.<) pg_catalog.to_timestamp({})", quoting.name(column), then)
    with _reading_tables(_server(connection), database, timeout) as ask:
        tables = ask(_tables_query(has_column), (column,))
        return {_table_key(table): ask(_count_statement(table, before))[0]["rows"] for table in tables}


@_salt_errors
def texts(database, table, columns, longest, limit, connection=None, timeout=None):
    """
    Return some columns of all rows of a table in the schema ``public``, as lists of texts; ``None`` for a null.

    Nothing of what the database's owner has written is run, except policies of row security and generated columns.

    database
        Name of the database.
    table
        Name of the table.
    columns
        Names of columns of the types ``text``, ``character varying``, ``uuid`` and ``bytea``. The last comes in
        hexadecimal.
    longest
        Characters or bytes of a value that are returned.
    limit
        How many rows are returned.
    connection, timeout
        As for :py:func:`row_counts`.

    Raises ``CommandExecutionError`` if the table has no such column of these types, the role may not read it, or the
    time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_table.texts immich asset '[originalPath, checksum]' 4096 1000
    """
    kinds = """
        SELECT a.attname::text AS name, a.atttypid = 'pg_catalog.bytea'::pg_catalog.regtype AS binary
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relname = %s AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
            AND a.atttypid IN (17, 25, 1043, 2950)
        """
    with _reading_tables(_server(connection), database, timeout) as ask:
        binary = {row["name"]: row["binary"] for row in ask(kinds, (table,))}
        lacking = [name for name in columns if name not in binary]
        if lacking:
            raise ServerError(f"The table {table} of {database} has no column of text {', '.join(lacking)}.")
        read = [_column_as_text(name, binary[name], int(longest)) for name in columns]
        whole = quoting.qualified("public", table)
        rows = ask(
            quoting.compose(
                "SELECT {} FROM ONLY {} LIMIT {}", quoting.joined(read, ", "), whole, quoting.literal(int(limit))
            )
        )
    return [list(row.values()) for row in rows]


def _column_as_text(name, binary, longest):
    form = (
        "pg_catalog.encode(pg_catalog.substring({}, 1, {}), 'hex') AS {}"
        if binary
        else "pg_catalog.left({}::pg_catalog.text, {}) AS {}"
    )
    return quoting.compose(form, quoting.name(name), quoting.literal(longest), quoting.name(name))


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _tables_query(condition):
    return f"""
        SELECT n.nspname AS schema, c.relname AS name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
            AND n.nspname !~ '^pg_' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
            {condition}
        ORDER BY 1, 2
        """


def _table_key(table):
    return f"{table['schema']}.{table['name']}"


def _count_statement(table, condition=""):
    name = quoting.qualified(table["schema"], table["name"])
    return quoting.compose("SELECT count(*) AS rows FROM ONLY {} {}", name, condition or quoting.text(""))


@contextlib.contextmanager
def _reading_tables(server, database, timeout):
    """
    A function that asks a database whose owner nobody trusts, within a time for all of it.

    Planning looks at a table's indexes, and before PostgreSQL 17 the functions of some extensions name types without
    their schema. A superuser's session stays with pg_catalog.
    """
    deadline = time.monotonic() + timeout if timeout else None
    if not server.is_superuser(database):
        server.run_alone(quoting.text(OWNERS_SEARCH_PATH), database)

    def ask(statement, arguments=None):
        if deadline:
            left = round((deadline - time.monotonic()) * 1000)
            if left <= 0:
                raise ServerError(f"The tables of {database} were not read within {timeout} s.")
            server.run_alone(quoting.text(f"SET statement_timeout = {left}"), database)
        return server.query(statement, arguments, database)

    try:
        yield ask
    finally:
        with contextlib.suppress(ServerError):  # a session that is gone has no settings
            server.run_alone(quoting.text("RESET statement_timeout"), database)
            server.run_alone(quoting.text("RESET search_path"), database)
