"""
A PostgreSQL server, 14 or later, as a whole; and how to connect to one.

It needs psycopg2 (``psycopg2-binary``), as the other modules of PostgreSQL do.

.. _pgsql-connection:

Connection
    The functions and states of ``pgsql_role``, ``pgsql_database``, ``pgsql_table``, ``pgsql_extension``,
    ``pgsql_config``, ``pgsql_hba`` and ``pgsql_dump``, and the functions of this module, take ``connection``: a
    dictionary that is merged over the key ``pgsql`` of the pillar, and that over the same key of the minion's
    configuration. Its default is the superuser on this host's server.

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
dry run can distinguish "not there yet" from "broken".
"""

import contextlib
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import command
from pgsql_core import driver, errors, messages, session
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    return driver.required_by("pgsql_server")


@_salt_errors
def version(connection=None):
    """
    Return the version of the server, as a number such as 170006.

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
def restart(service, connection=None, timeout=60):
    """
    Restart the server by its unit, and wait until it answers again.

    It does not wait for systemd: Debian's ``pg_ctlcluster`` watches a server that answers for two more seconds, in
    which the unit is still ``activating``.

    service
        Unit of the server, such as ``postgresql@17-main``.
    timeout
        Seconds that the server has to answer once systemd has called the unit active, for example for its recovery.
        Defaults to 60.

    Raises ``CommandExecutionError`` with the last lines of the unit's log if the unit fails, and if the server does
    not answer in that time.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_server.restart postgresql@17-main
    """
    before, since = _started(connection), int(time.time())
    session.disconnect(__context__)
    # systemd refuses more than five starts of a unit within ten seconds, and the server would stay stopped.
    with contextlib.suppress(CommandExecutionError):  # of a unit that is not loaded
        __salt__["systemd_unit.call"]("reset-failed", service)
    __salt__["systemd_unit.call"]("restart", "--no-block", service)
    deadline = None
    while True:
        # Before the server is asked: one that does not answer after its unit has failed is not about to start.
        unit, restarting = _unit(service)
        now = _started(connection)
        if now and (now != before or not restarting):
            return True
        if unit in ("failed", "inactive") and not restarting:
            raise ServerError(f"{service} is {unit}. Its log ends with: {_last_words(service, since)}")
        if not restarting:
            deadline = deadline or time.monotonic() + timeout
            if time.monotonic() > deadline:
                raise ServerError(f"PostgreSQL does not answer. Its log ends with: {_last_words(service, since)}")
        time.sleep(0.05)


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


def _started(connection):
    """When the server that answers was started, or None if none does."""
    try:
        return _server(connection).query("SELECT pg_postmaster_start_time() AS at")[0]["at"]
    except ServerError:
        return None


def _unit(service):
    """What systemd calls the unit, and whether its restart is still under way."""
    shown = __salt__["systemd_unit.call"]("show", "--property=ActiveState,Job", service)
    values = dict(line.split("=", 1) for line in shown.splitlines())
    return values["ActiveState"], values.get("Job", "0") not in ("", "0")


def _last_words(service, since):
    log = ["journalctl", "--no-pager", "--output=cat", f"--unit={service}", f"--since=@{since}", "--lines=20"]
    return messages.shown(command.read(log, 10, 1024**2, merged=True).stdout.strip()[-command.LAST_WORDS :])


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)
