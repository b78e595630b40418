"""
What a person should know of a server that runs
===============================================
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import terminal
from immich_core import compose
from immich_io import overview, server

# Immich's table of users, by server/src/schema/tables/user.table.ts.
ADMINISTRATOR = 'SELECT EXISTS (SELECT FROM public."user" WHERE "isAdmin") AS found'


def found(settings, salt, timeout=10):
    """
    Return what a person should know of a server that runs, as findings (``immich_core.findings``): that it is in
    maintenance mode, or that nobody has signed up as administrator.

    settings
        The formula's settings.
    salt
        Salt's execution functions by name (``__salt__``).
    timeout
        Seconds for the server's answer, 10 by default.
    """
    known = server.state(compose.server_url(settings), lambda: _signed_up(settings["postgres"], salt), timeout)
    return server.warnings(known, settings["port"], overview.urls(settings, salt["grains.items"]())[0])


def _signed_up(postgres, salt):
    """Whether the database has an administrator, by Immich's table of users, or why that is not known."""
    try:
        (row,) = salt["pgsql_database.query_as"](
            postgres["user"], postgres["database"], ADMINISTRATOR, postgres["connection"]
        )
    except (CommandExecutionError, SaltInvocationError) as error:
        return None, terminal.one_line(str(error), 300)
    return row["found"], ""
