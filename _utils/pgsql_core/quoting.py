"""
SQL statements, quoted by psycopg2
==================================
"""

from pgsql_core.errors import InvalidArgumentError

# NAMEDATALEN - 1, src/include/pg_config_manual.h.
MAX_NAME_BYTES = 63


def check_name(identifier):
    """
    Raise ``InvalidArgumentError`` if PostgreSQL cannot call something so.

    PostgreSQL cuts a longer name off without a word, and would mean another object.
    """
    size = len(str(identifier).encode())
    if not 0 < size <= MAX_NAME_BYTES or "\0" in str(identifier):
        raise InvalidArgumentError(
            f"{identifier!r} is no name for PostgreSQL, which wants 1 to {MAX_NAME_BYTES} bytes other than 0."
        )


def check_limit(connection_limit):
    """Raise ``InvalidArgumentError`` if this is no limit of connections, as roles and databases have one."""
    if connection_limit is None:
        return
    if isinstance(connection_limit, bool) or not isinstance(connection_limit, int) or connection_limit < -1:
        raise InvalidArgumentError(f"connection_limit is a number, -1 for no limit, not {connection_limit!r}.")


def name(identifier):
    """Return an identifier, quoted. Raises ``InvalidArgumentError`` as ``check_name`` does."""
    from psycopg2 import sql

    check_name(identifier)
    return sql.Identifier(str(identifier))


def qualified(*identifiers):
    """Return identifiers with dots between them, each quoted as it is."""
    from psycopg2 import sql

    return sql.Identifier(*identifiers)


def literal(value):
    """Return a value, quoted."""
    from psycopg2 import sql

    return sql.Literal(value)


def text(statement):
    """Return SQL that is written as it is: nothing of anybody else's may be in it."""
    from psycopg2 import sql

    return sql.SQL(statement)


def compose(template, *parts):
    """Return a statement with quoted parts in place of each ``{}``."""
    from psycopg2 import sql

    return sql.SQL(template).format(*parts)


def joined(parts, separator=" "):
    """Return quoted parts, one after the other."""
    from psycopg2 import sql

    return sql.SQL(separator).join(parts)
