"""
Sessions on a PostgreSQL server, kept open for a whole run, and the statements in them
======================================================================================

A tenant may own the database that a superuser looks into, so every session has ``search_path`` set to ``pg_catalog``
and takes over no setting that the owner of a database or a role can make for it.
"""

import contextlib
import os
import pwd
import select
import socket
import time

from pgsql_core import connection as arguments
from pgsql_core import passwords, quoting
from pgsql_core.errors import InvalidArgumentError, ServerError
from pgsql_core.messages import shown

SESSIONS = "pgsql_core.sessions"
OLDER_SERVERS = "pgsql_core.older_servers"
# More open sessions than these are closed, oldest first: a server has 100 by default for everybody.
MAX_SESSIONS = 8


class Session:
    """An open connection to a database, with which statements it has prepared, its options, and what it took back."""

    def __init__(self, raw, options):
        self.raw = raw
        self.options = options
        self.prepared = set()
        self.taken_back = {}

    @property
    def is_dead(self):
        # On an idle session there is nothing to read, unless the server ends it.
        return self.raw.closed or bool(select.select([self.raw.fileno()], [], [], 0)[0])

    def take_back_owners_settings(self):
        with sql_errors(), self.raw.cursor() as cursor:
            cursor.execute(arguments.OWNERS_SETTINGS)
            self.taken_back = dict(cursor.fetchall())


class Server:
    """
    A server, and a role on it, as one run of Salt speaks to them.

    connection
        Arguments of the connection, laid over those of the pillar, and these over the configuration's.

    opts
        The minion's configuration, of which the key ``pgsql`` counts.

    pillar
        The whole pillar: the same key of it, and where ``password_pillar`` is.

    context
        A dictionary that lasts as long as the run, for its open sessions.
    """

    def __init__(self, connection, opts, pillar, context):
        # Not config.get: it costs a multiple of the query that follows.
        self.settings = arguments.merged(opts.get("pgsql"), pillar.get("pgsql"), connection)
        self._pillar = pillar
        self._context = context

    @property
    def address(self):
        return self.settings["host"], self.settings["port"]

    def version(self, database=None):
        """Return the server's version as a number, such as 170006."""
        return self._session(database).raw.server_version

    def is_superuser(self, database=None):
        """Return whether the role of the connection is a superuser."""
        return self._session(database).raw.info.parameter_status("is_superuser") == "on"

    def query(self, statement, values=None, database=None):
        """Return the rows of a query, each a dictionary."""
        with sql_errors(), self._session(database).raw.cursor() as cursor:
            cursor.execute(statement, values)
            return _rows(cursor)

    def query_often(self, name, statement, value, database=None):
        """Return the rows of a query with one argument, ``$1``, whose planning would take longer than the rest."""
        session = self._session(database)
        with sql_errors(), session.raw.cursor() as cursor:
            if name not in session.prepared:
                cursor.execute(quoting.compose("PREPARE {} AS {}", quoting.name(name), quoting.text(statement)))
                session.prepared.add(name)
            cursor.execute(quoting.compose("EXECUTE {} (%s)", quoting.name(name)), (value,))
            return _rows(cursor)

    def run_alone(self, statement, database=None):
        """Run a statement that PostgreSQL forbids in a transaction block."""
        with sql_errors(), self._session(database).raw.cursor() as cursor:
            cursor.execute(statement)

    def run_together(self, statements, database=None):
        """Run statements in one transaction: all of them happen, or none."""
        if not statements:
            return
        raw = self._session(database).raw
        raw.autocommit = False
        try:
            with sql_errors(), raw.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                raw.commit()
        finally:
            if not raw.closed:
                raw.rollback()
                raw.autocommit = True

    def has_database(self, name):
        """Return whether there is a database."""
        return bool(self.query("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (name,)))

    def reload(self):
        """Have the server read its configuration files again, and wait until it has."""
        before = self.query("SELECT pg_conf_load_time() AS at, pg_reload_conf()")[0]["at"]
        for _ in range(200):
            if self.query("SELECT pg_conf_load_time() AS at")[0]["at"] > before:
                return
            time.sleep(0.05)
        raise ServerError("PostgreSQL has not read its configuration files again: see its log.")

    @contextlib.contextmanager
    def rolled_back(self, database):
        """A cursor in a session of its own, whose transaction is rolled back."""
        import psycopg2

        raw = self._connect(database).raw
        raw.autocommit = False
        try:
            with sql_errors(), raw.cursor() as cursor:
                yield cursor
        finally:
            with contextlib.suppress(psycopg2.Error):
                raw.rollback()
            raw.close()

    def lets_in(self, user, password, database=None):
        """Return whether the server lets a role in with a password, which it has to check by SCRAM."""
        import psycopg2

        settings = {**self.settings, "user": user}
        try:
            self._dial(
                dbname=database or settings["maintenance_db"],
                password=password,
                # Without it a `trust` line would let any password pass.
                require_auth="scram-sha-256",
                **arguments.for_libpq(settings),
            ).raw.close()
        except psycopg2.Error as err:
            if _listens(settings):
                return False
            raise self._cannot_connect(settings["maintenance_db"], str(err).strip()) from None
        return True

    def password(self):
        """Return the password of the connection, or nothing."""
        return passwords.given(self._pillar, **arguments.password_sources(self.settings))

    def client_options(self, database):
        """Return what PGOPTIONS must hold for a client program to be as free of an owner's settings as our sessions."""
        session = self._session(database)
        return arguments.client_options(session.taken_back, session.options)

    def dsn(self, database):
        """Return how a client program finds the database, without the password."""
        import psycopg2

        return psycopg2.extensions.make_dsn(dbname=database, **arguments.for_libpq(self.settings))

    def _session(self, database):
        database = database or self.settings["maintenance_db"]
        identity = tuple(hash((key, str(value))) for key, value in sorted(self.settings.items()))
        key = (identity, database)
        sessions = _sessions(self._context)
        session = sessions.pop(key, None)
        if session is None or session.is_dead:
            session = self._connect(database)
        sessions[key] = session
        while len(sessions) > MAX_SESSIONS:
            sessions.pop(next(iter(sessions))).raw.close()
        return session

    def _connect(self, database):
        import psycopg2

        given = arguments.for_libpq(self.settings)
        password = self.password()
        if password is not None:
            given["password"] = password
        try:
            with _effective_user(self.settings["os_user"]):
                session = self._dial(dbname=database, client_encoding="UTF8", application_name="salt", **given)
        except psycopg2.Error as err:
            raise self._cannot_connect(database, str(err).strip()) from None
        session.raw.autocommit = True
        session.take_back_owners_settings()
        return session

    def _dial(self, **given):
        """A session with the options of ours that the server knows."""
        import psycopg2

        environment = os.environ.get("PGOPTIONS", "")
        older = self._context.setdefault(OLDER_SERVERS, set())
        if self.address not in older:
            try:
                return _dial_with(f"{environment} {arguments.SESSION_OPTIONS} {arguments.NEWER_SESSION_OPTIONS}", given)
            except psycopg2.OperationalError as err:
                if arguments.UNKNOWN_TO_OLDER_SERVERS not in str(err):
                    raise
                older.add(self.address)
        return _dial_with(f"{environment} {arguments.SESSION_OPTIONS}", given)

    def _cannot_connect(self, database, reason):
        host, port = self.address
        absent = None
        if not _listens(self.settings):
            absent = "server" if arguments.is_this_host(self.settings) else None
        elif database != self.settings["maintenance_db"] and not self.has_database(database):
            absent = "database"
        return ServerError(f"Cannot connect to PostgreSQL at {host} port {port}, database {database}: {reason}", absent)


def disconnect(context, database=None):
    """
    Close the sessions of a run.

    context
        As for ``Server``.

    database
        Only those in this database. Defaults to all.
    """
    sessions = _sessions(context)
    for key in [key for key in sessions if database in (None, key[1])]:
        sessions.pop(key).raw.close()


@contextlib.contextmanager
def sql_errors():
    """Raise psycopg2's errors as ours."""
    import psycopg2

    try:
        yield
    except psycopg2.Error as err:
        # Not str(err): it may quote the statement, and with it a password verifier.
        parts = [err.diag.message_primary, err.diag.message_detail, err.diag.message_hint]
        message = ". ".join(part.rstrip(".") for part in parts if part) or str(err).strip()
        raise ServerError(f"PostgreSQL: {shown(message)}.", sqlstate=err.pgcode) from None
    except ValueError as err:  # psycopg2's, of a text with a NUL
        raise InvalidArgumentError(f"PostgreSQL: {err}") from None


def _rows(cursor):
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def _sessions(context):
    # A forked process (`parallel: True`) must neither use nor close its parent's sessions: closing sends a farewell to
    # the server on a socket that both have.
    return context.setdefault(SESSIONS, {}).setdefault(os.getpid(), {})


def _dial_with(options, given):
    import psycopg2

    return Session(psycopg2.connect(options=options, **given), options)


def _listens(settings):
    """Distinguish a server that does not run from one that refuses the login; libpq has no code for it."""
    port = int(settings["port"])
    try:
        if arguments.is_socket(settings):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{settings['host']}/.s.PGSQL.{port}")
        else:
            socket.create_connection((settings["host"], port), settings["connect_timeout"]).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _effective_user(name):
    if name is None:
        yield
        return
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        message = f"There is no user {name} on this host to connect to PostgreSQL as: is the server installed?"
        raise ServerError(message, "server") from None
    uid, gid = os.geteuid(), os.getegid()
    if uid == user.pw_uid:
        yield
        return
    try:
        os.setegid(user.pw_gid)
        os.seteuid(user.pw_uid)
    except PermissionError:
        raise ServerError(f"Salt must run as root to connect to PostgreSQL as the user {name}.") from None
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
