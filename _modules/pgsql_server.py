"""
A PostgreSQL server, 14 or later, as a whole; and how to connect to one.

It needs psycopg2 (``psycopg2-binary``), as the other modules of PostgreSQL do.

.. _pgsql-connection:

Connection
    The functions and states of ``pgsql_role``, ``pgsql_database``, ``pgsql_extension``, ``pgsql_config``,
    ``pgsql_hba`` and ``pgsql_dump``, and the functions of this module, take ``connection``: a dictionary that is laid
    over the key ``pgsql`` of the pillar, and that over the same key of the minion's configuration. Its default is the
    superuser on this host's server.

    host
        A name or address, or the absolute path of the directory of the server's socket.
        Defaults to ``/var/run/postgresql``.
    port
        Defaults to 5432.
    user
        Role to log in as. Defaults to ``postgres``.
    password, password_file, password_pillar
        Its password: in clear, as the path of a file (one final line feed is dropped), or as a pillar path.
        Not used by default.
    os_user
        User of the operating system to be while connecting, for ``peer`` authentication: what counts there is
        the effective user of the process, so no shell and no ``su`` is needed. Used with sockets only.
        Defaults to ``postgres``.
    sslmode, sslrootcert, sslcert, sslkey
        As in libpq.
    connect_timeout
        Seconds. Defaults to 10.
    maintenance_db
        Database for whatever is not about one database. Defaults to ``postgres``.

    .. code-block:: yaml

        pgsql:
          host: db.example.org
          user: admin
          password_pillar: secrets:postgres
          sslmode: verify-full

One connection per database serves a whole run. A tenant may own the database that a superuser looks into, so
every session has ``search_path`` set to ``pg_catalog`` and takes over no setting that the owner of a database or a
role can make for it (libraries to load, timeouts, quoting rules, read-only transactions, …). Nothing waits longer than
30 seconds for a lock.

Errors are ``CommandExecutionError``. When the reason is that a server on this host does not run, or that the
database does not exist, the exception carries ``absent = "server"`` or ``absent = "database"``, so that a
dry run can tell "not there yet" from "broken".
"""

import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import driver, errors, session
from pgsql_core.session import Server

_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    return driver.required_by("pgsql_server")


@_salt_errors
def version(connection=None):
    """
    Tell the version of the server, as a number such as 170006.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_server.version
    """
    return _server(connection).query("SELECT current_setting('server_version_num')::int AS version")[0]["version"]


@_salt_errors
def wait_until_ready(connection=None, timeout=60):
    """
    Wait until the server answers, for example after a restart.

    timeout
        Seconds. Defaults to 60.

    Raises ``CommandExecutionError`` if it does not in that time.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_server.wait_until_ready timeout=10
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return version(connection) > 0
        except CommandExecutionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


@_salt_errors
def reload(connection=None):
    """
    Have the server read its configuration files again, and wait until it has.

    Raises ``CommandExecutionError`` if it does not within 10 seconds.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_server.reload
    """
    _server(connection).reload()
    return True


@_salt_errors
def disconnect(database=None):
    """
    Close the sessions of this run.

    database
        Only those in this database. Defaults to all.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_server.disconnect
    """
    session.disconnect(__context__, database)


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)
