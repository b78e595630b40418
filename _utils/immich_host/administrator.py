"""
Whether somebody has signed up as Immich's administrator
=========================================================
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import terminal
from immich_io import compose_file

# Immich's table of users, by server/src/schema/tables/user.table.ts.
ADMINISTRATOR = 'SELECT EXISTS (SELECT FROM public."user" WHERE "isAdmin") AS found'
# Seconds for a connection where a run cannot go on before it knows.
CONNECT_TIMEOUT = 3


def in_database(postgres, salt):
    """
    Return whether the database has an administrator, or ``None``, and why that is not known.

    postgres
        ``user``, ``database`` and ``connection``, as of the settings.
    salt
        Salt's execution functions by name (``__salt__``).
    """
    try:
        (row,) = salt["pgsql_database.query_as"](
            postgres["user"], postgres["database"], ADMINISTRATOR, postgres["connection"]
        )
    except (CommandExecutionError, SaltInvocationError) as error:
        return None, terminal.one_line(str(error), 300)
    return row["found"] is True, ""


def signed_up(postgres, directory, salt):
    """
    Return whether somebody has signed up, as far as this host knows.

    Where the database cannot be asked, the compose file knows: that nobody can sign up stands in it only once somebody
    has been seen in the database, and then the server holds to it whatever the database has become.

    postgres, salt
        As of :py:func:`in_database`.
    directory
        Directory of Immich's compose project.
    """
    found = None
    if "pgsql_database.query_as" in salt:
        connection = {**postgres["connection"], "connect_timeout": CONNECT_TIMEOUT}
        found, _ = in_database({**postgres, "connection": connection}, salt)
    if found is None:
        return compose_file.sign_up_closed(compose_file.read(f"{directory}/docker-compose.yml"))
    return found
