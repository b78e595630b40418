"""
Manage PostgreSQL 14 and later: roles, databases, extensions, server settings and dumps.

This module is the only place that speaks to PostgreSQL. It needs psycopg2 (``psycopg2-binary``).

.. _pgsql-connection:

Connection
    Every function takes ``connection``, a dictionary that is laid over the key ``pgsql`` of the pillar, and
    that over the same key of the minion's configuration. What neither says is the superuser on the server of this host.

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

import base64
import collections
import contextlib
import hashlib
import hmac
import ipaddress
import itertools
import os
import pwd
import re
import secrets
import select
import shutil
import socket
import stringprep
import subprocess
import tempfile
import threading
import time
import unicodedata

import salt.utils.data
from salt.exceptions import CommandExecutionError, SaltInvocationError

try:
    import psycopg2
    import psycopg2.extensions
    from psycopg2 import sql

    class _Session(psycopg2.extensions.connection):
        """A connection that knows which statements it has prepared, its options, and which settings it took back."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.prepared = set()
            self.options = ""
            self.taken_back = {}

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

SESSIONS = "pgsql.sessions"
OLDER_SERVERS = "pgsql.older_servers"
SETTING_KINDS = "pgsql.setting_kinds"
EXTENSION_OFFERS = "pgsql.extension_offers"

OBJECT_IN_USE = "55006"
# Somebody may connect between the end of the connections and the renaming, which waits 5 seconds for them.
RENAME_ATTEMPTS = 5

# More open sessions than these are closed, oldest first: a server has 100 by default for everybody.
MAX_SESSIONS = 8

# NAMEDATALEN - 1, src/include/pg_config_manual.h.
MAX_NAME_BYTES = 63

DEFAULTS = {
    "host": "/var/run/postgresql",
    "port": 5432,
    "user": "postgres",
    "os_user": "postgres",
    "connect_timeout": 10,
    "maintenance_db": "postgres",
}
LIBPQ_ARGUMENTS = ("host", "port", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout")
PASSWORD_SOURCES = ("password", "password_pillar", "password_file")
CONNECTION_ARGUMENTS = {*DEFAULTS, *LIBPQ_ARGUMENTS, *PASSWORD_SOURCES}

# What an owner can set for a database or a role (ALTER … SET) and must not decide in our sessions. Options given at
# connect time win over those: here stand the ones that would end or bend a session before its first statement, or that
# need another value than the server's default. OWNERS_SETTINGS takes back all others, in the session alone.
SESSION_OPTIONS = (
    "-c search_path=pg_catalog -c role=none -c standard_conforming_strings=on -c quote_all_identifiers=off "
    "-c transform_null_equals=off -c statement_timeout=0 -c lock_timeout=30s -c idle_session_timeout=0 "
    "-c idle_in_transaction_session_timeout=0 -c local_preload_libraries="
)
# PostgreSQL 17 and later.
NEWER_SESSION_OPTIONS = "-c transaction_timeout=0"
# Only what everybody may set (context `user`) can be an owner's; what a superuser has set for them is reset with it.
OWNERS_SETTINGS = """
    SELECT name, pg_catalog.set_config(name, coalesce(boot_val, ''), false) FROM pg_catalog.pg_settings
    WHERE source IN ('database', 'user', 'database user') AND context = 'user'
    """

ROLE_ATTRIBUTES = {
    "login": ("rolcanlogin", "LOGIN", "NOLOGIN"),
    "superuser": ("rolsuper", "SUPERUSER", "NOSUPERUSER"),
    "createdb": ("rolcreatedb", "CREATEDB", "NOCREATEDB"),
    "createrole": ("rolcreaterole", "CREATEROLE", "NOCREATEROLE"),
    "replication": ("rolreplication", "REPLICATION", "NOREPLICATION"),
    "bypassrls": ("rolbypassrls", "BYPASSRLS", "NOBYPASSRLS"),
    "inherit": ("rolinherit", "INHERIT", "NOINHERIT"),
}
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
# The major version that each came with.
NEW_PROVIDERS = {"icu": 15, "builtin": 17}
TEMPLATES = ("template0", "template1")
DATABASE_PRIVILEGES = ("CONNECT", "CREATE", "TEMPORARY")
SCHEMA_PRIVILEGES = ("CREATE", "USAGE")
PRIVILEGE_ALIASES = {"TEMP": "TEMPORARY"}

# Settings whose value is a list (GUC_LIST_INPUT in guc_tables.c of PostgreSQL 17).
LIST_SETTINGS = {
    "createrole_self_grant",
    "datestyle",
    "listen_addresses",
    "local_preload_libraries",
    "log_destination",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
    "wal_consistency_checking",
}
# Of these, the ones stored with their elements quoted (GUC_LIST_QUOTE); they cannot hold an empty list.
LIBRARY_SETTINGS = {"local_preload_libraries", "session_preload_libraries", "shared_preload_libraries"}

# https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES
MEMORY_UNITS = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
TIME_UNITS = {
    "us": 1,
    "ms": 1000,
    "s": 1000**2,
    "min": 60 * 1000**2,
    "h": 3600 * 1000**2,
    "d": 86400 * 1000**2,
}

# Extensions that work only when their library is in shared_preload_libraries: the projects' own install notes.
PRELOADED_EXTENSIONS = {
    "citus": "citus",
    "pg_cron": "pg_cron",
    "pg_stat_statements": "pg_stat_statements",
    "pgaudit": "pgaudit",
    "timescaledb": "timescaledb",
    "vchord": "vchord",
    "vectors": "vectors",
}
# When the folder of the extensions' files was changed, which only a superuser can see. The time counts in seconds: in
# the one in which the folder changes it may change again.
EXTENSIONS_CHANGED = """(
    SELECT CASE WHEN modification < now() - interval '2s' THEN modification::text END
    FROM pg_stat_file((SELECT setting FROM pg_config() WHERE name = 'SHAREDIR') || '/extension', true))"""
# Roles of managed PostgreSQL services that may create extensions although no superuser.
EXTENSION_ADMINS = ["azure_pg_admin", "cloudsqlsuperuser", "rds_superuser"]

SCRAM_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]{44}):([A-Za-z0-9+/=]{44})")
MD5_VERIFIER = re.compile(r"md5[0-9a-f]{32}")
SCRAM_ITERATIONS = 4096

# Where packages put a server's own client programs: Debian, PostgreSQL's own RPMs.
CLIENT_FOLDERS = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
# A user that no process has and no file belongs to: https://systemd.io/UIDS-GIDS keeps 65520 to 65533 unused.
NOBODY = 65533
UNPRIVILEGED = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    *("--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"),
)
# Bytes of one line that a client program prints: names in it are those of whoever made the dump. The longest that
# counts has the names of 1,600 columns, each of 63 bytes that are doubled, and quotes.
LONGEST_LINE = 256 * 1024
# Characters of what a server or a client program says that are shown.
LONGEST_MESSAGE = 4000
# Tables of a dump that are counted: by their names alone a small file could fill the memory.
MOST_TABLES = 100000
# What is kept of the rows of a dump, and of each of them in bytes.
ROWS_KEPT, LONGEST_ROW = 10000, 4096
# Entries of `pg_restore --list` that only a superuser can restore.
NOT_RESTORED = re.compile(r"\d+; \d+ \d+ (EXTENSION - |SCHEMA - public |COMMENT - (EXTENSION |SCHEMA public ))")
# dumpSearchPath() in src/bin/pg_dump/pg_dump.c, the same since PostgreSQL 10.3.
DUMP_SEARCH_PATH = b"SELECT pg_catalog.set_config('search_path', '', false);\n"
OUR_SEARCH_PATH = b"SET search_path = public, pg_catalog;"
IDENTIFIER = re.compile(r'"(?:[^"]|"")+"|[^\s".,()]+')
_NAME = f"(?:{IDENTIFIER.pattern})"
COPY_STATEMENT = re.compile(rf"COPY ({_NAME}(?:\.{_NAME})?) (?:\(({_NAME}(?:, {_NAME})*)\) )?FROM stdin;\n")


def __virtual__():
    if not HAS_PSYCOPG2:
        return False, "pgsql needs psycopg2 in Salt's Python: install psycopg2-binary there with pip."
    return True


# -- connection --------------------------------------------------------------------------------------------


def version(connection=None):
    """
    Tell the version of the server, as a number such as 170006.

    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.version
    """
    return _query(connection, "SELECT current_setting('server_version_num')::int AS version")[0]["version"]


def check_version(member_of=None, provider=None, connection=None):
    """
    Raise if the server is too old for something that is asked of it, and return True otherwise.

    member_of
        Memberships of a role, as in ``role_set``. Defaults to none.
    provider
        Provider of a database's locale, as in ``database_create``. Defaults to none.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``SaltInvocationError`` if it is too old, ``CommandExecutionError`` if it cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.check_version provider=icu
    """
    options = {option for given in membership_options(member_of or []).values() for option in given}
    asked = {f"The option {option} of a membership": 16 for option in sorted(options - {"admin"})}
    asked |= {f"The locale provider {name}": least for name, least in NEW_PROVIDERS.items() if name == provider}
    major = _server_version(connection) // 10000 if asked else 0
    for what, least in asked.items():
        if major < least:
            raise SaltInvocationError(f"{what} needs PostgreSQL {least}, and the server has {major}.")
    return True


def disconnect(database=None):
    """
    Close the sessions of this run.

    database
        Only those in this database. Defaults to all.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.disconnect
    """
    sessions = _sessions()
    for key in [key for key in sessions if database in (None, key[1])]:
        sessions.pop(key).close()


def wait_until_ready(connection=None, timeout=60):
    """
    Wait until the server answers, for example after a restart.

    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.
    timeout
        Seconds. Defaults to 60.

    Raises ``CommandExecutionError`` if it does not in that time.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.wait_until_ready timeout=10
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return version(connection) > 0
        except CommandExecutionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _settings(connection):
    # Not config.get: it costs a multiple of the query that follows.
    given = {}
    for layer in (__opts__.get("pgsql"), __pillar__.get("pgsql"), connection):
        if any((layer or {}).get(source) is not None for source in PASSWORD_SOURCES):
            given = {key: value for key, value in given.items() if key not in PASSWORD_SOURCES}
        given.update(layer or {})
    unknown = sorted(set(given) - CONNECTION_ARGUMENTS)
    if unknown:
        raise SaltInvocationError(f"Unknown in a PostgreSQL connection: {', '.join(unknown)}.")
    settings = {**DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    if not _is_socket(settings):
        settings["os_user"] = None
    return settings


def _is_socket(settings):
    return str(settings["host"]).startswith("/")


def _is_this_host(settings):
    return _is_socket(settings) or settings["host"] in ("localhost", "127.0.0.1", "::1")


def _session(connection, database=None):
    settings = _settings(connection)
    database = database or settings["maintenance_db"]
    identity = tuple(hash((key, str(value))) for key, value in sorted(settings.items()))
    key = (identity, database)
    sessions = _sessions()
    session = sessions.pop(key, None)
    if session is None or _is_dead(session):
        session = _connect(settings, database)
    sessions[key] = session
    while len(sessions) > MAX_SESSIONS:
        sessions.pop(next(iter(sessions))).close()
    return session


def _sessions():
    # A forked process (`parallel: True`) must neither use nor close its parent's sessions: closing says good-bye to
    # the server on a socket that both have.
    return __context__.setdefault(SESSIONS, {}).setdefault(os.getpid(), {})


def _is_dead(session):
    # An idle session has nothing to say: if there is something to read, the server is saying good-bye.
    return session.closed or bool(select.select([session.fileno()], [], [], 0)[0])


def _connect(settings, database):
    arguments = {key: settings[key] for key in LIBPQ_ARGUMENTS if key in settings}
    password = _secret(**{key: settings.get(key) for key in PASSWORD_SOURCES})
    if password is not None:
        arguments["password"] = password
    try:
        with _effective_user(settings["os_user"]):
            session = _dial(dbname=database, client_encoding="UTF8", application_name="salt", **arguments)
    except psycopg2.Error as err:
        raise _cannot_connect(settings, database, str(err).strip()) from None
    session.autocommit = True
    with _sql_errors(), session.cursor() as cursor:
        cursor.execute(OWNERS_SETTINGS)
        session.taken_back = dict(cursor.fetchall())
    return session


def _dial(**arguments):
    """A session with the options of ours that the server knows."""
    server = (arguments["host"], arguments["port"])
    given = os.environ.get("PGOPTIONS", "")
    older = __context__.setdefault(OLDER_SERVERS, set())
    if server not in older:
        try:
            return _dial_with(f"{given} {SESSION_OPTIONS} {NEWER_SESSION_OPTIONS}", arguments)
        except psycopg2.OperationalError as err:
            # The one word that tells an older server before there is a session.
            if "transaction_timeout" not in str(err):
                raise
            older.add(server)
    return _dial_with(f"{given} {SESSION_OPTIONS}", arguments)


def _dial_with(options, arguments):
    session = psycopg2.connect(options=options, connection_factory=_Session, **arguments)
    session.options = options
    return session


def _client_options(connection, database):
    """What a client program needs in PGOPTIONS to be as free of an owner's settings as our own sessions are."""
    session = _session(connection, database)
    escaped = {name: re.sub(r"([\\\s])", r"\\\1", value) for name, value in session.taken_back.items()}
    return " ".join([*(f"-c {name}={value}" for name, value in sorted(escaped.items())), session.options]).strip()


def _cannot_connect(settings, database, reason):
    where = f"{settings['host']} port {settings['port']}"
    error = CommandExecutionError(f"Cannot connect to PostgreSQL at {where}, database {database}: {reason}")
    if not _listens(settings):
        if _is_this_host(settings):
            error.absent = "server"
    elif database != settings["maintenance_db"] and not database_exists(database, settings):
        error.absent = "database"
    return error


def _listens(settings):
    """Tell a server that is not there from one that does not let us in; libpq has no code for it."""
    port = int(settings["port"])
    try:
        if _is_socket(settings):
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
        error = CommandExecutionError(
            f"There is no user {name} on this host to connect to PostgreSQL as: is the server installed?"
        )
        error.absent = "server"
        raise error from None
    uid, gid = os.geteuid(), os.getegid()
    if uid == user.pw_uid:
        yield
        return
    try:
        os.setegid(user.pw_gid)
        os.seteuid(user.pw_uid)
    except PermissionError:
        raise CommandExecutionError(f"Salt must run as root to connect to PostgreSQL as the user {name}.") from None
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)


def _secret(password=None, password_pillar=None, password_file=None):
    if sum(source is not None for source in (password, password_pillar, password_file)) > 1:
        raise SaltInvocationError("Give one of password, password_pillar and password_file.")
    if password_pillar is not None:
        # `pillar.get` returns asterisks to modules since Salt 3008.
        password = salt.utils.data.traverse_dict_and_list(__pillar__, password_pillar, None, delimiter=":")
        if password is None:
            raise SaltInvocationError(f"The pillar has no {password_pillar}.")
    if password_file is not None:
        password = _read(password_file).removesuffix("\n")
    return None if password is None else str(password)


def _read(path):
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as err:
        raise CommandExecutionError(f"Cannot read {path}: {err}") from None


@contextlib.contextmanager
def _sql_errors():
    try:
        yield
    except psycopg2.Error as err:
        # Not str(err): it may quote the statement, and with it a password verifier.
        parts = [err.diag.message_primary, err.diag.message_detail, err.diag.message_hint]
        message = ". ".join(part.rstrip(".") for part in parts if part) or str(err).strip()
        error = CommandExecutionError(f"PostgreSQL: {_shown(message)}.")
        error.sqlstate = err.pgcode
        raise error from None
    except ValueError as err:  # psycopg2's, of a text with a NUL
        raise SaltInvocationError(f"PostgreSQL: {err}") from None


def _query(connection, statement, arguments=None, database=None):
    session = _session(connection, database)
    with _sql_errors(), session.cursor() as cursor:
        cursor.execute(statement, arguments)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def _query_often(connection, name, statement, argument, database=None):
    """Run a query with one argument, ``$1`` in it, whose planning would take longer than the rest."""
    session = _session(connection, database)
    with _sql_errors(), session.cursor() as cursor:
        if name not in session.prepared:
            cursor.execute(_compose("PREPARE {} AS {}", _name(name), sql.SQL(statement)))
            session.prepared.add(name)
        cursor.execute(_compose("EXECUTE {} (%s)", _name(name)), (argument,))
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def _run_alone(connection, statement, database=None):
    """Run a statement that PostgreSQL forbids in a transaction block."""
    session = _session(connection, database)
    with _sql_errors(), session.cursor() as cursor:
        cursor.execute(statement)


def _run_together(connection, statements, database=None):
    """Run statements in one transaction: all of them happen, or none."""
    if not statements:
        return
    session = _session(connection, database)
    session.autocommit = False
    try:
        with _sql_errors(), session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            session.commit()
    finally:
        if not session.closed:
            session.rollback()
            session.autocommit = True


def _name(identifier):
    """An identifier, quoted. PostgreSQL cuts a longer one off without a word, and would mean another object."""
    size = len(str(identifier).encode())
    if not 0 < size <= MAX_NAME_BYTES or "\0" in str(identifier):
        raise SaltInvocationError(
            f"{identifier!r} is no name for PostgreSQL, which wants 1 to {MAX_NAME_BYTES} bytes other than 0."
        )
    return sql.Identifier(str(identifier))


def _compose(template, *parts):
    return sql.SQL(template).format(*parts)


def _check_limit(connection_limit):
    if connection_limit is None:
        return
    if isinstance(connection_limit, bool) or not isinstance(connection_limit, int) or connection_limit < -1:
        raise SaltInvocationError(f"connection_limit is a number, -1 for no limit, not {connection_limit!r}.")


def _server_version(connection, database=None):
    return _session(connection, database).server_version


def _is_superuser(connection, database=None):
    return _session(connection, database).info.parameter_status("is_superuser") == "on"


# -- values of settings ------------------------------------------------------------------------------------


def settings_changes(current, wanted, connection=None):
    """
    Return what differs in meaning between two sets of server settings, as ``{name: {old, new}}``.

    ``16MB`` is ``16384kB``, ``yes`` is ``on``, ``a,b`` is ``a, b``.

    current
        Settings as PostgreSQL stores them.
    wanted
        Settings as a person writes them; a list for those that are lists, nothing to reset one.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.settings_changes '{work_mem: 16384kB}' '{work_mem: 16MB}'
    """
    current = {name.lower(): value for name, value in current.items()}
    changes = {}
    for name, value in wanted.items():
        old = current.get(name.lower())
        if not _same_setting(name, old, value, connection):
            changes[name] = {"old": old, "new": value}
    return changes


def settings_to_reset(current, reset):
    """
    Return the settings that a state resets because it does not declare them, as ``{name: None}``.

    current
        Settings as PostgreSQL stores them.
    reset
        ``True`` for all, or a list of the names that are left alone.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.settings_to_reset '{work_mem: 16384kB, search_path: public}' '[search_path]'
    """
    kept = set() if reset is True else {name.lower() for name in reset}
    return {name: None for name in current if name.lower() not in kept}


def _same_setting(name, left, right, connection):
    if left == right or None in (left, right):
        return left == right
    kind = _setting_kinds(connection).get(name.lower())
    return _canonical(name, left, kind) == _canonical(name, right, kind)


def _setting_kinds(connection):
    kinds = __context__.setdefault(SETTING_KINDS, {})
    # Types and units are the server's build: they differ between servers only.
    server = _session(connection).info.host, _session(connection).info.port
    if server not in kinds:
        rows = _query(connection, "SELECT lower(name) AS name, vartype, unit FROM pg_catalog.pg_settings")
        kinds[server] = {row["name"]: (row["vartype"], row["unit"]) for row in rows}
    return kinds[server]


def _canonical(name, value, kind):
    if name.lower() in LIBRARY_SETTINGS:
        return [_library(entry) for entry in _as_list(value)]
    if name.lower() in LIST_SETTINGS:
        return _as_list(value)
    text = _text(value)
    vartype, unit = kind or ("string", None)
    if vartype == "bool":
        return _boolean(text)
    if vartype in ("integer", "real"):
        return _number(text, unit, vartype)
    return text.lower() if vartype == "enum" else text


def _text(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _boolean(text):
    # https://www.postgresql.org/docs/current/config-setting.html: "on, off, true, false, yes, no, 1, 0 (all
    # case-insensitive) or any unambiguous prefix of one of these".
    word = text.strip().lower()
    truths = [("on", "true", "yes", "1"), ("off", "false", "no", "0")]
    matching = [truth for truth in truths if word and any(full.startswith(word) for full in truth)]
    return matching[0][0] if len(matching) == 1 else text


def _number(text, unit, vartype):
    match = re.fullmatch(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match:
        return text
    amount, given = float(match[1]), match[2]
    if given and unit:
        base = re.fullmatch(r"(\d*)([a-zA-Z]+)", unit)
        units = MEMORY_UNITS if base[2] in MEMORY_UNITS else TIME_UNITS
        if given not in units:
            return text
        amount *= units[given] / (units[base[2]] * int(base[1] or 1))
    return round(amount) if vartype == "integer" else amount


def _as_list(value):
    """Split as PostgreSQL does: commas, and double quotes around what holds one."""
    if isinstance(value, (list, tuple)):
        return [str(entry) for entry in value]
    entries = re.findall(r'\s*("(?:[^"]|"")*"|[^,"]*)\s*(?:,|$)', value or "")
    entries = [entry.strip() for entry in entries]
    return [entry[1:-1].replace('""', '"') if entry.startswith('"') else entry for entry in entries if entry]


def _library(entry):
    return entry.removeprefix("$libdir/").removesuffix(".so")


def _setting_value(name, value):
    entries = _as_list(value) if name.lower() in LIST_SETTINGS else [_text(value)]
    if not entries and name.lower() in LIBRARY_SETTINGS:
        # PostgreSQL would store a list of one library with an empty name, and not start again with it.
        raise SaltInvocationError(f"{name} cannot be set to an empty list: reset it.")
    return sql.SQL(", ").join(sql.Literal(entry) for entry in entries or [""])


def _set_statements(target, settings):
    """``target``: ALTER ROLE x, ALTER DATABASE y, …"""
    statements = []
    for name, value in settings.items():
        identifier = sql.Identifier(*name.split("."))
        if value is None:
            statements.append(_compose("{} RESET {}", target, identifier))
        else:
            statements.append(_compose("{} SET {} = {}", target, identifier, _setting_value(name, value)))
    return statements


def _parse_settings(entries):
    return dict(entry.split("=", 1) for entry in entries or [])


# -- passwords ---------------------------------------------------------------------------------------------


def password_matches(password, verifier, role):
    """
    Tell whether a stored verifier is that of a password.

    password
        In clear. One that has the form of a verifier is taken as one, as PostgreSQL itself does.
    verifier
        What PostgreSQL stores: SCRAM-SHA-256 with any number of iterations, or md5.
    role
        Name of the role, which an md5 verifier is salted with.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.password_matches secret md58a8be2e9d4e4ddb9ed4e3cf42a5cbd64 immich
    """
    if _is_verifier(password):
        return hmac.compare_digest(password.encode(), verifier.encode())
    if MD5_VERIFIER.fullmatch(verifier):
        # What PostgreSQL defined long ago, not a choice made here.
        md5 = hashlib.md5((password + role).encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(f"md5{md5}", verifier)
    match = SCRAM_VERIFIER.fullmatch(verifier)
    if not match:
        return False
    try:
        salt_bytes = base64.b64decode(match[2], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(_scram_verifier(password, salt_bytes, int(match[1])), verifier)


def _is_verifier(password):
    return bool(SCRAM_VERIFIER.fullmatch(password) or MD5_VERIFIER.fullmatch(password))


def _verifier_kind(verifier):
    if verifier is None:
        return None
    return "md5" if MD5_VERIFIER.fullmatch(verifier) else "scram-sha-256"


def _scram_verifier(password, salt_bytes, iterations):
    """RFC 5803 as PostgreSQL stores it: src/common/scram-common.c, scram_build_secret()."""
    salted = hashlib.pbkdf2_hmac("sha256", _saslprep(password).encode(), salt_bytes, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt_bytes, stored_key, server_key)]
    return "SCRAM-SHA-256${}:{}${}:{}".format(iterations, *parts)


def _saslprep(password):
    """
    Prepare a password as PostgreSQL does, src/common/saslprep.c: ASCII stays, and so does what SASLprep forbids.
    """
    if password.isascii():
        return password
    mapped = [" " if stringprep.in_table_c12(char) else char for char in password]
    mapped = [char for char in mapped if not stringprep.in_table_b1(char)]
    if not mapped or any(_is_prohibited(char) for char in mapped) or not _has_valid_direction(mapped):
        return password
    return unicodedata.normalize("NFKC", "".join(mapped))


def _is_prohibited(char):
    tables = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    return any(table(char) for table in tables)


def _has_valid_direction(chars):
    if not any(stringprep.in_table_d1(char) for char in chars):
        return True
    if any(stringprep.in_table_d2(char) for char in chars):
        return False
    return stringprep.in_table_d1(chars[0]) and stringprep.in_table_d1(chars[-1])


def _new_verifier(password, connection):
    if _is_verifier(password):
        return password
    rows = _query(connection, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'scram_iterations'")
    iterations = int(rows[0]["setting"]) if rows else SCRAM_ITERATIONS
    return _scram_verifier(password, secrets.token_bytes(16), iterations)


def login_works(user, password, connection=None, database=None):
    """
    Tell whether the server lets a role in with a password, asking it to prove by SCRAM that it checked it.

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

        salt '*' pgsql.login_works immich secret
    """
    settings = {**_settings(connection), "user": user}
    arguments = {key: settings[key] for key in LIBPQ_ARGUMENTS if key in settings}
    try:
        _dial(
            dbname=database or settings["maintenance_db"],
            password=password,
            # Without it a `trust` line would let any password pass.
            require_auth="scram-sha-256",
            **arguments,
        ).close()
    except psycopg2.Error as err:
        if _listens(settings):
            return False
        raise _cannot_connect(settings, settings["maintenance_db"], str(err).strip()) from None
    return True


# -- roles -------------------------------------------------------------------------------------------------


def role_list(connection=None):
    """
    Return the names of all roles.

    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_list
    """
    rows = _query(connection, "SELECT rolname FROM pg_catalog.pg_roles ORDER BY rolname")
    return [row["rolname"] for row in rows]


def role_get(name, password=None, connection=None):
    """
    Return what PostgreSQL holds about a role, or nothing if there is no such role.

    ``password`` in the answer is the kind of the stored verifier, or ``unreadable`` where the connection may not
    read ``pg_authid``. ``valid_until`` is in UTC, and ``infinity`` where there is no limit.

    name
        Name of the role.
    password
        A password in clear; ``password_matches`` then tells whether it is the role's. Where ``pg_authid`` may
        not be read that is found out by logging in. Defaults to not looking.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_get immich
    """
    readable = _reads_verifiers(connection)
    _name(name)
    rows = _query_often(connection, "role", _role_query(readable, _server_version(connection)), name)
    if not rows:
        return None
    row = rows[0]
    verifier = row["verifier"]
    settings = {key: _parse_settings(entries) for key, entries in (row["settings"] or {}).items()}
    role = {
        **{attribute: row[attribute] for attribute in ROLE_ATTRIBUTES},
        "connection_limit": row["connection_limit"],
        "valid_until": row["valid_until"],
        "password": _verifier_kind(verifier) if readable else "unreadable",
        "member_of": _memberships(row["member_of"] or []),
        "settings": settings.pop("", {}),
        "database_settings": settings,
    }
    if password is not None and readable:
        role["password_matches"] = verifier is not None and password_matches(password, verifier, name)
    elif password is not None:
        role["password_matches"] = login_works(name, password, connection)
    return role


def role_set(
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

    What is not given is left alone, or is PostgreSQL's default in a new role.

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
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for options that it is
    too old for.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_set reader login=True member_of='[pg_read_all_data]'
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
    role_check(name, password, connection_limit, member_of, **attributes)
    words = [
        sql.SQL(ROLE_ATTRIBUTES[attribute][1 if value else 2])
        for attribute, value in attributes.items()
        if value is not None
    ]
    if connection_limit is not None:
        words.append(_compose("CONNECTION LIMIT {}", sql.Literal(connection_limit)))
    if valid_until is not None:
        words.append(_compose("VALID UNTIL {}", sql.Literal(str(valid_until))))
    if password is not None:
        words.append(_compose("PASSWORD {}", sql.Literal(_new_verifier(password, connection))))
    current = role_get(name, connection=connection)
    role = _name(name)
    statements = []
    if current is None:
        statements.append(_compose("CREATE ROLE {} {}", role, sql.SQL(" ").join(words)))
    elif words:
        statements.append(_compose("ALTER ROLE {} {}", role, sql.SQL(" ").join(words)))
    if member_of is not None:
        check_version(member_of=member_of, connection=connection)
        statements += _membership_statements(name, membership_options(member_of), connection)
    statements += _set_statements(_compose("ALTER ROLE {}", role), settings or {})
    for database, values in (database_settings or {}).items():
        target = _compose("ALTER ROLE {} IN DATABASE {}", role, _name(database))
        statements += _set_statements(target, values)
    _run_together(connection, statements)


def role_check(name, password=None, connection_limit=None, member_of=None, **declared):
    """
    Raise ``SaltInvocationError``, with the reason, if a role cannot be as described; ask no server.

    name, password, connection_limit, member_of
        As for ``role_set``.
    declared
        The other arguments of ``role_set``.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_check reader login=True
    """
    _name(name)
    for attribute in ROLE_ATTRIBUTES:
        # A text such as "false" would count as true.
        if not isinstance(declared.get(attribute), (bool, type(None))):
            raise SaltInvocationError(f"{attribute} is true or false, not {declared[attribute]!r}.")
    _check_limit(connection_limit)
    if password is not None and (not password or "\0" in password):
        raise SaltInvocationError("A password is a text that is not empty and has no NUL in it.")
    membership_options(member_of or [])


def role_dependencies(name, connection=None, besides=None):
    """
    Return what keeps a role from being dropped: what it owns and what it was granted, as a list of sentences.

    name
        Name of the role.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.
    besides
        Name of a database that does not count, nor what is in it. Defaults to none.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_dependencies immich
    """
    rows = _query(
        connection,
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
    return [_dependency_sentence(row) for row in rows]


def role_powers(name, connection=None):
    """
    Return the roles through which a role can do more than its own attributes say, directly or by way of others.

    These are PostgreSQL's predefined roles, but for ``pg_database_owner``, and roles with SUPERUSER, CREATEDB,
    CREATEROLE, REPLICATION or BYPASSRLS.

    name
        Name of the role.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_powers immich
    """
    rows = _query(
        connection,
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


def role_drop(name, reassign_to=None, connection=None):
    """
    Drop a role.

    What it owns can be given to another role first, database by database, in a transaction each: PostgreSQL
    sees the objects of one database at a time. The role itself goes last.

    name
        Name of the role.
    reassign_to
        Role that takes over what it owns; what it was granted is revoked. Not done by default.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the role is there and still needed, or the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.role_drop immich reassign_to=postgres
    """
    role = _name(name)
    if reassign_to is not None:
        for database in _databases_with(name, connection):
            statements = [
                _compose("REASSIGN OWNED BY {} TO {}", role, _name(reassign_to)),
                _compose("DROP OWNED BY {}", role),
            ]
            _run_together(connection, statements, database)
    _run_alone(connection, _compose("DROP ROLE {}", role))


def timestamp(value, connection=None):
    """
    Return a time stamp in the form in which ``role_get`` returns it: in UTC, or ``infinity``.

    value
        Whatever PostgreSQL reads as a time stamp with time zone.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if PostgreSQL cannot read it.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.timestamp '2030-01-01 00:00+01'
    """
    column = _timestamp_column("%s::timestamptz")
    return _query(connection, f"SELECT {column} AS value", (str(value),) * column.count("%s"))[0]["value"]


def membership_options(member_of):
    """
    Return memberships as ``{role: {option: bool}}``, whichever way they were written.

    member_of
        A list of names and ``{name: {option: bool}}``, or one dictionary of the latter form.

    Raises ``SaltInvocationError`` for options that do not exist.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.membership_options '[readers, {writers: {admin: True}}]'
    """
    if isinstance(member_of, str):
        raise SaltInvocationError(f"member_of is a list of roles, not the text {member_of!r}.")
    memberships = {}
    for entry in [member_of] if isinstance(member_of, dict) else member_of:
        pairs = entry.items() if isinstance(entry, dict) else [(entry, None)]
        memberships.update({role: dict(options or {}) for role, options in pairs})
    unknown = {option for options in memberships.values() for option in options} - {"admin", "inherit", "set"}
    if unknown:
        raise SaltInvocationError(f"A membership has no option {', '.join(sorted(unknown))}.")
    return memberships


def _reads_verifiers(connection):
    if _is_superuser(connection):
        return True
    statement = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS readable"
    return _query(connection, statement)[0]["readable"]


def _timestamp_column(expression):
    return (
        f"CASE WHEN {expression} IS NULL THEN 'infinity' WHEN NOT isfinite({expression}) THEN {expression}::text "
        f"ELSE to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') END"
    )


def _role_query(readable, version):
    attributes = ", ".join(f"r.{column} AS {attribute}" for attribute, (column, _, _) in ROLE_ATTRIBUTES.items())
    options = "m.inherit_option, m.set_option" if version >= 160000 else "NULL, NULL"
    return f"""
        SELECT {attributes}, r.rolconnlimit AS connection_limit,
            {_timestamp_column("r.rolvaliduntil")} AS valid_until,
            {"r.rolpassword" if readable else "NULL"} AS verifier,
            (SELECT json_agg(json_build_array(g.rolname, m.admin_option, {options}))
                FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                WHERE m.member = r.oid) AS member_of,
            (SELECT json_object_agg(coalesce(d.datname, ''), to_json(s.setconfig))
                FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
                WHERE s.setrole = r.oid) AS settings
        FROM pg_catalog.{"pg_authid" if readable else "pg_roles"} r WHERE r.rolname = $1
        """


def _memberships(rows):
    """Several grantors may have granted the same role: an option given by one of them counts."""
    memberships = {}
    for role, *values in rows:
        options = {option: value for option, value in zip(("admin", "inherit", "set"), values) if value is not None}
        known = memberships.setdefault(role, options)
        known.update({option: known[option] or value for option, value in options.items()})
    return memberships


def _membership_statements(name, wanted, connection):
    modern = _server_version(connection) >= 160000
    rows = _query(
        connection,
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
    member = _name(name)
    statements = []
    for row in rows:
        # Only since 16 does a grant belong to its grantor; before, the column may even name a dropped role.
        by = _compose(" GRANTED BY {}", _name(row["grantor"])) if modern else sql.SQL("")
        if row["role"] not in wanted:
            statements.append(_compose("REVOKE {} FROM {}{}", _name(row["role"]), member, by))
        elif modern and wanted[row["role"]]:
            statements.append(_grant(row["role"], member, wanted[row["role"]], by))
        elif row["admin"] and wanted[row["role"]].get("admin") is False:
            statements.append(_compose("REVOKE ADMIN OPTION FOR {} FROM {}", _name(row["role"]), member))
    held = {row["role"]: row["admin"] for row in rows}
    for role, options in wanted.items():
        if role not in held or (not modern and options.get("admin") and not held[role]):
            statements.append(_grant(role, member, options if modern else _only_admin(options), sql.SQL("")))
    return statements


def _only_admin(options):
    return {"admin": True} if options.get("admin") else {}


def _grant(role, member, options, by):
    # Up to 15 there is only WITH ADMIN OPTION, which later versions take for WITH ADMIN TRUE.
    if options == {"admin": True}:
        return _compose("GRANT {} TO {} WITH ADMIN OPTION{}", _name(role), member, by)
    words = [f"{option.upper()} {'TRUE' if value else 'FALSE'}" for option, value in options.items()]
    clause = sql.SQL(f" WITH {', '.join(words)}" if words else "")
    return _compose("GRANT {} TO {}{}{}", _name(role), member, clause, by)


def _dependency_sentence(row):
    if row["owned"]:
        return f"It {'owns' if row['owns'] else 'has privileges on'} the database {row['owned']}."
    verb = "owns" if row["owns"] else "has privileges on"
    where = f"in the database {row['database']}" if row["database"] else "shared by all databases"
    return f"It {verb} {row['number']} object{'s' if row['number'] > 1 else ''} {where}."


def _databases_with(name, connection):
    """Databases in which a role owns or was granted something; the maintenance database for what is shared."""
    rows = _query(
        connection,
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


# -- databases ---------------------------------------------------------------------------------------------


def database_list(connection=None):
    """
    Return the names of all databases.

    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_list
    """
    rows = _query(connection, "SELECT datname FROM pg_catalog.pg_database ORDER BY datname")
    return [row["datname"] for row in rows]


def database_exists(name, connection=None):
    """
    Tell whether there is a database.

    name
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_exists immich
    """
    return bool(_query(connection, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (name,)))


def database_get(name, connection=None):
    """
    Return what PostgreSQL holds about a database, or nothing if there is no such database.

    ``privileges`` maps each grantee to its privileges on the database; ``PUBLIC`` is everybody.

    name
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_get immich
    """
    _name(name)
    version = _server_version(connection)
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
    rows = _query_often(connection, "database", statement, name)
    if not rows:
        return None
    database = rows[0]
    database["provider"] = PROVIDERS[database["provider"]]
    database["settings"] = _parse_settings(database["settings"])
    database["privileges"] = _privileges(database["privileges"])
    return database


def database_create(
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
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for a provider that it is
    too old for.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_create immich owner=immich
    """
    database_check(name, connection_limit, provider)
    if template is None and {encoding, locale, lc_collate, lc_ctype, provider} != {None}:
        template = "template0"
    clauses = [
        ("OWNER", owner, _name),
        ("TEMPLATE", template, _name),
        ("ENCODING", encoding, sql.Literal),
        ("LOCALE_PROVIDER", provider, sql.Literal),
        ("LC_COLLATE", lc_collate, sql.Literal),
        ("LC_CTYPE", lc_ctype, sql.Literal),
        (_locale_clause(provider), locale, sql.Literal),
        ("TABLESPACE", tablespace, _name),
        ("CONNECTION LIMIT", connection_limit, sql.Literal),
    ]
    words = [_compose("{} {}", sql.SQL(keyword), kind(value)) for keyword, value, kind in clauses if value is not None]
    check_version(provider=provider, connection=connection)
    _run_alone(connection, _compose("CREATE DATABASE {} {}", _name(name), sql.SQL(" ").join(words)))


def database_set(
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

    What is not given is left alone.

    name
        Name of the database.
    owner
        Role that shall own it. What is inside keeps its owners.
    tablespace
        Where its files shall be; they are copied, and nobody may be connected.
    connection_limit
        Number of connections at a time; -1 for no limit.
    settings
        Settings of its sessions by name; nothing to reset one.
    privileges
        ``{grantee: [privilege, …]}``, the exact list for each grantee named, of ``CONNECT``, ``CREATE``,
        ``TEMPORARY`` and ``ALL``. ``PUBLIC`` is everybody.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for unknown privileges.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_set immich privileges='{PUBLIC: []}'
    """
    database_check(name, connection_limit, privileges=privileges)
    database = _name(name)
    target = _compose("ALTER DATABASE {}", database)
    statements = []
    if owner is not None:
        statements.append(_compose("{} OWNER TO {}", target, _name(owner)))
    if connection_limit is not None:
        statements.append(_compose("{} CONNECTION LIMIT {}", target, sql.Literal(connection_limit)))
    statements += _set_statements(target, settings or {})
    if privileges:
        wanted = normal_privileges(privileges, DATABASE_PRIVILEGES)
        held = database_get(name, connection)["privileges"]
        statements += _privilege_statements(_compose("DATABASE {}", database), wanted, held)
    _run_together(connection, statements)
    if tablespace is not None:
        disconnect(name)
        _run_alone(connection, _compose("{} SET TABLESPACE {}", target, _name(tablespace)))


def database_check(name, connection_limit=None, provider=None, privileges=None, schema_privileges=None, **_declared):
    """
    Raise ``SaltInvocationError``, with the reason, if a database cannot be as described; ask no server.

    name, connection_limit, provider, privileges
        As for ``database_create`` and ``database_set``.
    schema_privileges
        As ``privileges`` for ``schema_privileges_set``.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_check immich privileges='{PUBLIC: []}'
    """
    _name(name)
    _check_limit(connection_limit)
    if provider not in (None, *PROVIDERS.values()):
        raise SaltInvocationError(f"provider is one of {', '.join(PROVIDERS.values())}, not {provider!r}.")
    normal_privileges(privileges or {}, DATABASE_PRIVILEGES)
    normal_privileges(schema_privileges or {}, SCHEMA_PRIVILEGES)


def database_drop(name, force=False, connection=None):
    """
    Drop a database and everything in it. PostgreSQL forbids that in a transaction.

    name
        Name of the database.
    force
        Whether to end the connections of others to it, and to drop it although its owner has declared it a template;
        PostgreSQL's own templates stay. Defaults to ``False``: PostgreSQL then refuses.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_drop immich force=True
    """
    disconnect(name)
    if force and name not in TEMPLATES:
        # Its owner can say that it is one, so that nobody can drop it.
        declared = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s AND datistemplate"
        if _query(connection, declared, (name,)):
            _run_alone(connection, _compose("ALTER DATABASE {} IS_TEMPLATE false", _name(name)))
    _run_alone(connection, _compose("DROP DATABASE {} {}", _name(name), sql.SQL("WITH (FORCE)" if force else "")))


def database_rename(names, connection=None):
    """
    Rename databases, all of them at the same moment or none, ending the connections to them first.

    names
        ``{name: new name}``, in their order.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses, or somebody connects again and again.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_rename '{shop: shop_old, shop_new: shop}'
    """
    statements = [_compose("ALTER DATABASE {} RENAME TO {}", _name(old), _name(new)) for old, new in names.items()]
    for name in names:
        disconnect(name)
    for left in reversed(range(RENAME_ATTEMPTS)):
        _query(
            connection,
            """
            SELECT pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity
            WHERE datname = ANY (%s) AND pid <> pg_backend_pid()
            """,
            (list(names),),
        )
        try:
            _run_together(connection, statements)
            return
        except CommandExecutionError as err:
            if getattr(err, "sqlstate", None) != OBJECT_IN_USE or not left:
                raise


def database_reassign(name, old, new, connection=None):
    """
    Give a database, and all that a role owns in it, to another role, in one transaction.

    What the former owner has elsewhere stays its own: REASSIGN OWNED hands over every database and tablespace, wherever
    it is run. A role that does not exist owns nothing.

    name
        Name of the database.
    old, new
        Names of the roles.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_reassign shop shop_old shop
    """
    shared = _query(
        connection,
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
    if role_get(old, connection=connection) is None:
        return
    kept = [
        _compose("ALTER {} {} OWNER TO {}", sql.SQL(each["kind"]), _name(each["name"]), _name(old)) for each in shared
    ]
    given = [
        _compose("REASSIGN OWNED BY {} TO {}", _name(old), _name(new)),
        _compose("ALTER DATABASE {} OWNER TO {}", _name(name), _name(new)),
    ]
    _run_together(connection, [*given, *kept], name)


def database_usage(name, connection=None):
    """
    Return what would be lost with a database: its size, readable, and the number of connections to it.

    name
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if there is no such database.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_usage immich
    """
    statement = """
        SELECT pg_size_pretty(pg_database_size(%s)) AS size,
            (SELECT count(*) FROM pg_catalog.pg_stat_activity
                WHERE datname = %s AND application_name <> 'salt') AS connections
        """
    return _query(connection, statement, (name, name))[0]


def schema_privileges(database, schema="public", connection=None):
    """
    Return who may do what in a schema, as ``{grantee: [privilege, …]}``; ``PUBLIC`` is everybody.

    database
        Name of the database.
    schema
        Defaults to ``public``.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if there is no such schema.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.schema_privileges immich
    """
    rows = _query(
        connection,
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
        raise CommandExecutionError(f"The database {database} has no schema {schema}.")
    return _privileges(rows[0]["privileges"])


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
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses, and ``SaltInvocationError`` for unknown privileges.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.schema_privileges_set immich '{PUBLIC: [USAGE]}'
    """
    wanted = normal_privileges(privileges, SCHEMA_PRIVILEGES)
    held = schema_privileges(database, schema, connection)
    statements = _privilege_statements(_compose("SCHEMA {}", _name(schema)), wanted, held)
    _run_together(connection, statements, database)


def normal_privileges(privileges, known=DATABASE_PRIVILEGES):
    """
    Return privileges as PostgreSQL calls them, sorted.

    privileges
        ``{grantee: [privilege, …]}``, in any case, with ``TEMP`` and ``ALL``.
    known
        All the privileges there are on such an object. Defaults to those on a database.

    Raises ``SaltInvocationError`` for others.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.normal_privileges '{PUBLIC: [temp]}'
    """
    normal = {}
    for grantee, names in privileges.items():
        words = {PRIVILEGE_ALIASES.get(str(word).upper(), str(word).upper()) for word in names or []}
        if "ALL" in words:
            words = set(known)
        if words - set(known):
            listed = ", ".join(sorted(words - set(known)))
            raise SaltInvocationError(f"No such privilege: {listed}. There are {', '.join(known)} and ALL.")
        normal["PUBLIC" if grantee.upper() == "PUBLIC" else grantee] = sorted(words)
    return normal


def _privileges(rows):
    privileges = {}
    for grantee, privilege in rows or []:
        privileges.setdefault(grantee, set()).add(privilege)
    return {grantee: sorted(names) for grantee, names in privileges.items()}


def _privilege_statements(target, wanted, held):
    statements = []
    for grantee, names in wanted.items():
        who = sql.SQL("PUBLIC") if grantee == "PUBLIC" else _name(grantee)
        has = set(held.get(grantee, []))
        for word in sorted(set(names) - has):
            statements.append(_compose("GRANT {} ON {} TO {}", sql.SQL(word), target, who))
        for word in sorted(has - set(names)):
            statements.append(_compose("REVOKE {} ON {} FROM {}", sql.SQL(word), target, who))
    return statements


def _locale_clause(provider):
    return {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(provider, "LOCALE")


# -- tenants' data ------------------------------------------------------------------------------------------


def table_list(database, schema="public", connection=None):
    """
    Return the names of the tables in a schema, without those of extensions.

    database
        Name of the database.
    schema
        Name of the schema, ``public`` by default. One that is not there has no tables.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached or has no such database.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.table_list immich
    """
    statement = """
        SELECT c.relname::text AS name FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY 1
        """
    return [row["name"] for row in _query(connection, statement, (schema,), database)]


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
        See :ref:`Connection <pgsql-connection>`; a superuser. Defaults to the one on this host's server.
    timeout
        Seconds after which the server ends the query: what the tenant has written may never end. Defaults to 60.

    Each row is a dictionary, of values as JSON has them. Raises ``CommandExecutionError`` if the server cannot be
    reached or refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.query_as immich immich 'SELECT count(*) FROM public.asset'
    """
    settings = _settings(connection)
    session = _connect(settings, database)
    session.autocommit = False
    body = f"SELECT pg_catalog.to_jsonb(asked) FROM ({statement}) asked"
    function = sql.SQL("pg_temp.salt_asked()")
    create = "CREATE FUNCTION {} RETURNS SETOF jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS {}"
    try:
        with _sql_errors(), session.cursor() as cursor:
            cursor.execute(_compose(create, function, sql.Literal(body)))
            cursor.execute(_compose("ALTER FUNCTION {} OWNER TO {}", function, _name(role)))
            # Once a statement has begun, nothing that it runs moves its end.
            cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (f"{timeout}s",))
            cursor.execute(_compose("SELECT found FROM {} found", function))
            return [row[0] for row in cursor.fetchall()]
    finally:
        with contextlib.suppress(psycopg2.Error):
            session.rollback()
        session.close()


# -- extensions --------------------------------------------------------------------------------------------


def extension_list(database, names=None, connection=None):
    """
    Return what a database has and its server offers of extensions, by name.

    Of each: ``installed`` and ``available`` (versions, or nothing), ``schema``, ``fixed_schema`` (the only one it
    can be in, if there is one), ``relocatable``, ``requires`` (required extensions that are not there yet),
    ``refused`` (why this connection cannot create or update it) and ``not_yet`` (what has to happen on the
    server first), as lists of sentences.

    database
        Name of the database.
    names
        List of extensions. Defaults to those that are installed.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached or has no such database.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.extension_list immich
    """
    mighty = _is_superuser(connection, database)
    statement = f"""
        SELECT n.name, e.extversion AS installed, s.nspname AS schema, e.extrelocatable AS relocatable,
            CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                THEN current_setting('shared_preload_libraries') END AS preloaded,
            ARRAY(SELECT extname::text FROM pg_catalog.pg_extension) AS present,
            EXISTS (SELECT FROM pg_catalog.pg_roles r
                WHERE r.rolname = ANY (ARRAY{EXTENSION_ADMINS}) AND pg_has_role(current_user, r.oid, 'MEMBER'))
                AS is_admin, {EXTENSIONS_CHANGED if mighty else "NULL"} AS stamp
        FROM unnest(coalesce($1::text[], ARRAY(SELECT extname::text FROM pg_catalog.pg_extension))) n(name)
        LEFT JOIN pg_catalog.pg_extension e ON e.extname = n.name
        LEFT JOIN pg_catalog.pg_namespace s ON s.oid = e.extnamespace
        """
    rows = _query_often(connection, "extensions", statement, names, database)
    offers = _extension_offers(connection, database, rows[0]["stamp"] if rows else None)
    return {row["name"]: _extension(row, offers.get(row["name"]), mighty or row["is_admin"]) for row in rows}


def extension_create(name, database, schema=None, version=None, cascade=False, connection=None):
    """
    Create an extension in a database.

    Whoever may create objects in the schema could have put functions or operators there that are called like
    PostgreSQL's own, for the extension's script to trip over with the rights of a superuser. A schema that
    holds such objects is refused. See https://www.postgresql.org/docs/current/extend-extensions.html, "Security
    Considerations for Extensions", and the caution on earthdistance in its own chapter.

    name
        Name of the extension.
    database
        Name of the database.
    schema
        Where its objects go. Defaults to what the extension says, else ``public``.
    version
        Defaults to the server's default version.
    cascade
        Whether to create the extensions that it requires too. Defaults to ``False``.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.extension_create earthdistance immich schema=public cascade=True
    """
    # Left to itself, PostgreSQL would take the first schema of search_path, which is pg_catalog here.
    schema = schema or extension_list(database, [name], connection)[name]["fixed_schema"] or "public"
    _refuse_shadowed(database, schema, connection)
    clauses = [
        _compose("SCHEMA {}", _name(schema)),
        _compose("VERSION {}", sql.Literal(str(version))) if version is not None else sql.SQL(""),
        sql.SQL("CASCADE" if cascade else ""),
    ]
    statement = _compose("CREATE EXTENSION {} {}", _name(name), sql.SQL(" ").join(clauses))
    _run_together(connection, [statement], database)


def extension_update(name, database, version=None, schema=None, reindex=False, connection=None):
    """
    Move an extension to another version or schema, and rebuild the indexes that use it, in one transaction.

    name
        Name of the extension.
    database
        Name of the database.
    version
        Version to move to; ``True`` for the server's default one. Defaults to the one that is installed.
    schema
        Schema to move to. Defaults to where it is.
    reindex
        Whether to rebuild the indexes that use it, see ``extension_indexes``. Defaults to ``False``.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses, or knows no way to that version.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.extension_update vector immich version=True reindex=True
    """
    state = extension_list(database, [name], connection)[name]
    _refuse_shadowed(database, schema or state["schema"], connection)
    extension = _name(name)
    statements = []
    if version is not None:
        target = state["available"] if version is True else str(version)
        obstacles = extension_obstacles(name, database, state["installed"], target, connection)
        if obstacles:
            raise CommandExecutionError(" ".join(obstacles))
        statements.append(_compose("ALTER EXTENSION {} UPDATE TO {}", extension, sql.Literal(target)))
    if schema is not None:
        statements.append(_compose("ALTER EXTENSION {} SET SCHEMA {}", extension, _name(schema)))
    if reindex:
        indexes = extension_indexes(name, database, connection)
        statements += [_compose("REINDEX INDEX {}", sql.Identifier(*index)) for index in indexes]
    _run_together(connection, statements, database)


def extension_obstacles(name, database, installed, version, connection=None):
    """
    Return why the server cannot bring an extension to a version, as a list of sentences; none if it can.

    name
        Name of the extension.
    database
        Name of the database.
    installed
        Version that the database has; nothing if it has none.
    version
        Version to come to.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.extension_obstacles vector immich 0.7.4 0.8.0
    """
    if installed is None:
        statement = "SELECT 1 FROM pg_available_extension_versions() WHERE name = %s AND version = %s"
        if not _query(connection, statement, (name, version), database):
            return [f"The server does not offer the extension {name} in version {version}."]
        return []
    statement = """
        SELECT 1 FROM pg_extension_update_paths(%s) WHERE source = %s AND target = %s AND path IS NOT NULL
        """
    if installed != version and not _query(connection, statement, (name, installed, version), database):
        return [f"The server knows no way to update the extension {name} from {installed} to {version}."]
    return []


def extension_drop(name, database, cascade=False, connection=None):
    """
    Drop an extension from a database.

    name
        Name of the extension.
    database
        Name of the database.
    cascade
        Whether to drop what depends on it too, columns with their data included. Defaults to ``False``.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.extension_drop pg_trgm immich
    """
    statement = _compose("DROP EXTENSION {} {}", _name(name), sql.SQL("CASCADE" if cascade else ""))
    _run_together(connection, [statement], database)


def extension_indexes(name, database, connection=None):
    """
    Return the indexes that use an extension's access methods, operator classes, types, functions or operators, as
    ``[schema, name]``.

    name
        Name of the extension.
    database
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.extension_indexes vector immich
    """
    rows = _query(
        connection,
        """
        SELECT n.nspname AS schema, c.relname AS name
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE EXISTS (
            SELECT FROM pg_catalog.pg_opclass o
            JOIN pg_catalog.pg_depend d ON d.deptype = 'e' AND (d.classid, d.objid) IN (
                ('pg_catalog.pg_am'::regclass, c.relam),
                ('pg_catalog.pg_opclass'::regclass, o.oid),
                ('pg_catalog.pg_type'::regclass, o.opcintype))
            JOIN pg_catalog.pg_extension e
                ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
            WHERE o.oid = ANY (i.indclass::oid[]) AND e.extname = %(name)s)
        OR EXISTS (
            SELECT FROM pg_catalog.pg_depend u
            JOIN pg_catalog.pg_depend d ON d.deptype = 'e' AND (d.classid, d.objid) = (u.refclassid, u.refobjid)
            JOIN pg_catalog.pg_extension e
                ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
            WHERE u.classid = 'pg_catalog.pg_class'::regclass AND u.objid = c.oid AND e.extname = %(name)s)
        ORDER BY 1, 2
        """,
        {"name": name},
        database,
    )
    return [[row["schema"], row["name"]] for row in rows]


def _extension_offers(connection, database, stamp):
    """
    What the server offers, by extension. Telling it means reading all files of all extensions, so it is kept until
    the folder of these files changes, which a package that adds or replaces one cannot avoid.
    """
    session = _session(connection, database)
    server = session.info.host, session.info.port
    kept = __context__.setdefault(EXTENSION_OFFERS, {})
    if stamp is None or kept.get(server, (None, None))[0] != stamp:
        rows = _query(
            connection,
            """
            SELECT a.name, a.default_version AS available, v.relocatable, v.schema AS fixed_schema, v.superuser,
                v.trusted, coalesce(v.requires, '{}')::text[] AS requires
            FROM pg_available_extensions() a
            JOIN pg_available_extension_versions() v ON v.name = a.name AND v.version = a.default_version
            """,
            database=database,
        )
        kept[server] = stamp, {row["name"]: row for row in rows}
    return kept[server][1]


def _extension(row, offer, may_create):
    name, installed = row["name"], row["installed"]
    library = PRELOADED_EXTENSIONS.get(name)
    refused, not_yet = [], []
    if offer is None and installed is None:
        not_yet.append(f"The server does not offer the extension {name}: install its package.")
    elif offer and offer["superuser"] and not offer["trusted"] and not may_create:
        refused.append(f"The extension {name} needs a superuser, and the connection is none.")
    # Who may not read the setting gets to hear it from the server.
    if library and row["preloaded"] is not None and library not in map(_library, _as_list(row["preloaded"])):
        not_yet.append(f"The extension {name} needs {library} in shared_preload_libraries, and a restart.")
    offer = offer or {"available": None, "fixed_schema": None, "relocatable": None, "requires": []}
    return {
        "installed": installed,
        "available": offer["available"],
        "schema": row["schema"],
        "fixed_schema": offer["fixed_schema"],
        "relocatable": row["relocatable"] if installed else offer["relocatable"],
        "requires": [required for required in offer["requires"] if required not in row["present"]],
        "refused": refused,
        "not_yet": not_yet,
    }


def _refuse_shadowed(database, schema, connection):
    rows = _query(
        connection,
        """
        SELECT 'function ' || p.oid::regprocedure AS object
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_roles r ON r.oid = p.proowner AND NOT r.rolsuper
        WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
            AND p.proname IN (
                SELECT other.proname FROM pg_catalog.pg_proc other WHERE other.pronamespace = 'pg_catalog'::regnamespace
                    OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = other.oid
                        AND d.classid = 'pg_catalog.pg_proc'::regclass AND other.proowner <> p.proowner))
        UNION ALL
        SELECT 'operator ' || o.oid::regoperator
        FROM pg_catalog.pg_operator o
        JOIN pg_catalog.pg_roles r ON r.oid = o.oprowner AND NOT r.rolsuper
        WHERE o.oprnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
            AND o.oprname IN (
                SELECT other.oprname FROM pg_catalog.pg_operator other
                WHERE other.oprnamespace = 'pg_catalog'::regnamespace
                    OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = other.oid
                        AND d.classid = 'pg_catalog.pg_operator'::regclass AND other.oprowner <> o.oprowner))
        """,
        {"schema": schema},
        database,
    )
    if rows:
        raise CommandExecutionError(
            f"The schema {schema} of the database {database} holds objects of a role without superuser that are "
            f"called like PostgreSQL's own or an extension's, and an extension's script could trip over them: "
            f"{', '.join(row['object'] for row in rows)}. Drop them or move them to another schema."
        )


# -- server settings ---------------------------------------------------------------------------------------


def config_get(names, connection=None):
    """
    Return server settings, as they are in force and as the configuration files have them.

    Of each: ``running``; ``persisted`` (what the files say, else the built-in default); ``below`` (the same
    without what ALTER SYSTEM wrote); ``restart`` (whether a change needs one); ``comparable`` (whether ``running``
    is the server's value, not one of this session's own).

    names
        List of settings.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server has no such setting or does not let this role read its files.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.config_get '[listen_addresses]'
    """
    rows = _query(
        connection,
        """
        SELECT lower(s.name) AS name, s.setting AS running, s.boot_val, s.context, s.source,
            coalesce(f.persisted, s.boot_val) AS persisted, coalesce(f.below, s.boot_val) AS below
        FROM pg_catalog.pg_settings s
        LEFT JOIN (
            SELECT lower(name) AS name, (array_agg(setting ORDER BY seqno DESC))[1] AS persisted,
                (array_agg(setting ORDER BY seqno DESC)
                    FILTER (WHERE sourcefile NOT LIKE '%%/postgresql.auto.conf'))[1] AS below
            FROM pg_catalog.pg_file_settings WHERE name IS NOT NULL GROUP BY 1
        ) f ON f.name = lower(s.name)
        WHERE lower(s.name) = ANY (%s)
        """,
        ([name.lower() for name in names],),
    )
    found = {row["name"]: _config(row) for row in rows}
    missing = [name for name in names if name.lower() not in found]
    if missing:
        raise CommandExecutionError(f"PostgreSQL has no setting {', '.join(missing)}, or not for this role to see.")
    return {name: found[name.lower()] for name in names}


def config_set(settings, connection=None):
    """
    Persist server settings with ALTER SYSTEM and reload. PostgreSQL forbids ALTER SYSTEM in a transaction.

    A library to preload must be there: without it the server would not start again.

    settings
        ``{name: value}``; a list for those that are lists; nothing to take back what ALTER SYSTEM wrote.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.config_set '{work_mem: 16MB}'
    """
    libraries = [entry for name in LIBRARY_SETTINGS & set(settings) for entry in _as_list(settings[name])]
    _refuse_missing_libraries(libraries, connection)
    for statement in _set_statements(sql.SQL("ALTER SYSTEM"), settings):
        _run_alone(connection, statement)
    reload(connection)


def config_list_with(name, current, entries):
    """
    Return a list setting that has what it had and all entries asked for.

    In ``listen_addresses``, ``*`` contains every address, ``0.0.0.0`` every one of IPv4 and ``::`` of IPv6.
    Libraries are the same with and without ``.so``.

    name
        Name of the setting.
    current
        What it holds, as PostgreSQL stores it.
    entries
        List of what it shall contain.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.config_list_with listen_addresses localhost '[10.88.0.1]'
    """
    held = _as_list(current)
    return held + [entry for entry in entries if not _list_contains(name, held, entry)]


def config_list_without(name, current, entries):
    """
    Return a list setting without some entries.

    name
        Name of the setting.
    current
        What it holds, as PostgreSQL stores it.
    entries
        List of what it shall not contain.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.config_list_without listen_addresses 'localhost, 10.88.0.1' '[10.88.0.1]'
    """
    same = _library if name.lower() in LIBRARY_SETTINGS else str
    unwanted = {same(entry) for entry in entries}
    return [entry for entry in _as_list(current) if same(entry) not in unwanted]


def reload(connection=None):
    """
    Have the server read its configuration files again, and wait until it has.

    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if it does not within 10 seconds.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.reload
    """
    before = _query(connection, "SELECT pg_conf_load_time() AS at, pg_reload_conf()")[0]["at"]
    for _ in range(200):
        if _query(connection, "SELECT pg_conf_load_time() AS at")[0]["at"] > before:
            return True
        time.sleep(0.05)
    raise CommandExecutionError("PostgreSQL has not read its configuration files again: see its log.")


def hba_file(connection=None):
    """
    Return where the server's pg_hba.conf is, when the server last read it, and its records as they stand there now.

    ``{"path": …, "loaded_at": seconds since 1970, "rules": [records, in their order]}``. ``pgsql_hba`` manages them.

    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server does not let this role read them.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.hba_file
    """
    # The number of a rule, and files that include others, came with PostgreSQL 16.
    has_numbers = _server_version(connection) >= 160000
    file_name = "file_name" if has_numbers else "current_setting('hba_file')"
    order = "rule_number, line_number" if has_numbers else "line_number"
    rules = _query(
        connection,
        f"""
        SELECT {file_name} AS file, line_number AS line, type, database, user_name AS user, address, netmask,
            auth_method AS method, options, error
        FROM pg_catalog.pg_hba_file_rules ORDER BY {order}
        """,
    )
    known = "SELECT current_setting('hba_file') AS path, extract(epoch FROM pg_conf_load_time())::float AS loaded_at"
    return {**_query(connection, known)[0], "rules": rules}


def _config(row):
    running_sources = ("default", "configuration file", "command line", "environment variable", "override")
    return {
        "running": row["running"],
        "persisted": row["persisted"],
        "below": row["below"],
        "restart": row["context"] == "postmaster",
        # A session keeps what it began with in settings of the `backend` kinds.
        "comparable": row["source"] in running_sources and not row["context"].endswith("backend"),
    }


def _list_contains(name, held, entry):
    if name.lower() in LIBRARY_SETTINGS:
        return _library(entry) in map(_library, held)
    if name.lower() != "listen_addresses":
        return entry in held
    version = _ip_version(entry)
    wildcards = {4: ("*", "0.0.0.0"), 6: ("*", "::")}.get(version, ("*",))
    return entry in held or any(wildcard in held for wildcard in wildcards)


def _ip_version(text):
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None


def _refuse_missing_libraries(libraries, connection):
    for entry in libraries:
        statement = """
            SELECT EXISTS (
                SELECT FROM pg_config() c,
                    string_to_array(replace(current_setting('dynamic_library_path'), '$libdir', c.setting), ':') path,
                    unnest(CASE WHEN %(name)s LIKE '/%%' THEN ARRAY[''] ELSE path END) folder,
                    unnest(ARRAY['', '.so']) suffix
                WHERE c.name = 'PKGLIBDIR'
                    AND (pg_stat_file(concat_ws('/', nullif(folder, ''), %(name)s) || suffix, true)).size
                        IS NOT NULL) AS there
            """
        if not _query(connection, statement, {"name": entry.removeprefix("$libdir/")})[0]["there"]:
            raise CommandExecutionError(
                f"The server has no library {entry}, and would not start with it preloaded: install its package."
            )


# -- dumps -------------------------------------------------------------------------------------------------


def dump_read(path, rows_of=(), progress=None, connection=None):
    """
    Read a dump that ``pg_dump --format=custom`` wrote, from its first byte to its last, and tell what is in it.

    ``tables`` maps each table to the number of its rows, ``extensions`` lists the extensions that the dump wants,
    ``size`` is what the rows take as text and large objects as they are, in bytes, ``rows`` maps the tables of
    ``rows_of`` to their last 10,000 rows, each a dictionary of texts as COPY writes them, of its first 4,096 bytes.
    Tables are called ``schema.table``.

    Nothing in the dump is run, and the program that reads it has no privileges on this host.

    path
        Path of the file.
    rows_of
        Tables whose rows are returned: small ones. Defaults to none.
    progress
        A function that is called with the number of bytes read so far. Defaults to none.
    connection
        Whose server's version of ``pg_restore`` is used. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the file cannot be read, is truncated or is not such a dump.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.dump_read /var/backups/shop.dump
    """
    program = _client_program("pg_restore", connection)
    extensions = re.findall(r"^\d+; \d+ \d+ EXTENSION - (\S+)", _dump_list(program, path), re.MULTILINE)
    counter = _RowCounter(rows_of)
    command = [program, "--data-only", "--file=-"]
    with tempfile.TemporaryFile() as errors:
        with _reading_dump(command, path, progress, stdout=subprocess.PIPE, stderr=errors) as process:
            for part in iter(lambda: process.stdout.readline(LONGEST_LINE), b""):
                counter.take(part)
        errors.seek(0)
        _refuse_failed(process, errors.read())
    rows = {table: list(kept) for table, kept in counter.rows.items()}
    return {"tables": counter.tables, "extensions": extensions, "size": counter.size, "rows": rows}


def dump_restore(path, database, connection, progress=None, doing=None, timeout=None):
    """
    Restore a dump that ``pg_dump --format=custom`` wrote into an empty database, as a role that is no superuser.

    Restoring a dump runs what is in it: checks, expressions of indexes, defaults, and whatever somebody wrote into the
    file. So the session has been logged in as the role that will own it all; one of a superuser with ``SET ROLE``
    could be taken back by the dump. ``pg_restore`` speaks to the server itself: without ``psql``, no line of a dump
    is a command of psql. It runs without privileges on this host.

    All happens in one transaction, and the first error ends it. Extensions, the schema ``public`` and the comments on
    these are left out, as a superuser makes them before; so are owners and privileges. ``search_path`` is
    ``public, pg_catalog`` meanwhile, for functions that call others without naming their schema.

    path
        Path of the file.
    database
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Its role runs and owns what is restored.
    progress
        A function that is called with the number of bytes restored so far. Defaults to none.
    doing
        A function that is called with what ``pg_restore`` does next, a line of text. Defaults to none.
    timeout
        Seconds after which it is given up: a check or a default in a dump may never end. What the server still does
        then ends with the database, see :py:func:`database_drop`. Defaults to no limit.

    Raises ``CommandExecutionError`` if the role is a superuser, the server refuses a part of the dump, or the time is
    up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.dump_restore /var/backups/shop.dump shop '{host: 127.0.0.1, user: shop, password_pillar: a:b}'
    """
    if _is_superuser(connection, database):
        raise CommandExecutionError("A dump is not restored by a superuser: what is in it would run as one.")
    settings = _settings(connection)
    program = _client_program("pg_restore", connection, database)
    listed = _dump_list(program, path).splitlines(keepends=True)
    target = {key: settings[key] for key in LIBPQ_ARGUMENTS if key in settings}
    password = _secret(**{key: settings.get(key) for key in ("password", "password_pillar", "password_file")}) or ""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    restored = "".join(line for line in listed if not NOT_RESTORED.match(line))
    with _memory_file(restored) as entries, _memory_file(f"*:*:*:*:{escaped}\n") as passwords:
        command = [
            program, "--single-transaction", "--exit-on-error", "--verbose", "--no-password", "--no-owner",
            "--no-privileges", "--no-tablespaces", "--no-security-labels", "--no-publications", "--no-subscriptions",
            f"--use-list={entries}", f"--dbname={psycopg2.extensions.make_dsn(dbname=database, **target)}",
        ]  # fmt: skip
        errors = collections.deque(maxlen=50)
        options = _client_options(connection, database)
        with _reading_dump(command, path, progress, passwords, options, stderr=subprocess.PIPE) as process:
            with _killed_after(process, timeout) as late:
                for line in iter(lambda: process.stderr.readline(LONGEST_LINE), b""):
                    errors.append(line)
                    if doing and line.startswith(b"pg_restore: "):
                        doing(_printable(line).removeprefix("pg_restore: "))
        if late.is_set():
            raise CommandExecutionError(f"pg_restore has not come to its end within {timeout} s.")
        _refuse_failed(process, b"".join(errors))


def row_counts(database, connection=None, timeout=None):
    """
    Return the number of rows of each table of a database, as ``{"schema.table": rows}``.

    Only tables are read, no views, and no tables of extensions: nothing of what the database's owner has written is
    run, but for a policy of his.

    database
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.
    timeout
        Seconds for all of it. Defaults to no limit.

    Raises ``CommandExecutionError`` if the role may not read one of them, or the time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.row_counts immich
    """
    with _reading_tables(connection, database, timeout) as ask:
        tables = ask(_tables_query(""))
        return {_table_key(table): ask(_count_statement(table))[0]["rows"] for table in tables}


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

        salt '*' pgsql.rows_before immich createdAt 1790000000
    """
    has_column = """
        AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %s
            AND a.atttypid = 'pg_catalog.timestamptz'::pg_catalog.regtype AND a.attnum > 0 AND NOT a.attisdropped)
        """
    # Without arguments: a table's name may hold what stands for one.
    then = sql.Literal(float(moment))
    before = _compose("WHERE {} OPERATOR(pg_catalog.<) pg_catalog.to_timestamp({})", _name(column), then)
    with _reading_tables(connection, database, timeout) as ask:
        tables = ask(_tables_query(has_column), (column,))
        return {_table_key(table): ask(_count_statement(table, before))[0]["rows"] for table in tables}


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
    name = sql.Identifier(table["schema"], table["name"])
    return _compose("SELECT count(*) AS rows FROM ONLY {} {}", name, condition or sql.SQL(""))


@contextlib.contextmanager
def _reading_tables(connection, database, timeout):
    """
    A function that asks a database whose owner nobody trusts, within a time for all of it.

    Planning looks at a table's indexes, and before PostgreSQL 17 the functions of some extensions name types without
    their schema. A superuser's session stays with pg_catalog.
    """
    deadline = time.monotonic() + timeout if timeout else None
    owners = not _is_superuser(connection, database)
    if owners:
        _run_alone(connection, OUR_SEARCH_PATH.decode(), database)

    def ask(statement, arguments=None):
        if deadline:
            left = round((deadline - time.monotonic()) * 1000)
            if left <= 0:
                raise CommandExecutionError(f"The tables of {database} were not read within {timeout} s.")
            _run_alone(connection, sql.SQL(f"SET statement_timeout = {left}"), database)
        return _query(connection, statement, arguments, database)

    try:
        yield ask
    finally:
        with contextlib.suppress(CommandExecutionError):  # a session that is gone has no settings
            _run_alone(connection, sql.SQL("RESET statement_timeout"), database)
            _run_alone(connection, sql.SQL("RESET search_path"), database)


def database_created(name, connection=None):
    """
    Return when a database was created, or moved to another tablespace, in seconds since 1970.

    It is the time of a file that PostgreSQL writes then and never again; a copy of the cluster may have made it anew.

    name
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`; a superuser. Defaults to the one on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached, or the role is no superuser.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.database_created immich
    """
    statement = """
        SELECT extract(epoch FROM (pg_stat_file(regexp_replace(
            pg_relation_filepath('pg_catalog.pg_class'), '[^/]+$', 'PG_VERSION'))).modification)::float8 AS made
        """
    return _query(connection, statement, database=name)[0]["made"]


def analyze(database, connection=None, timeout=None):
    """
    Collect the statistics that the planner needs, which a dump does not hold.

    database
        Name of the database.
    connection
        See :ref:`Connection <pgsql-connection>`. Defaults to the superuser on this host's server.
    timeout
        Seconds: the expression of an index may never end. Defaults to no limit.

    Raises ``CommandExecutionError`` if the server refuses, or the time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql.analyze immich
    """
    _run_alone(connection, _compose("SET statement_timeout = {}", sql.Literal(f"{timeout or 0}s")), database)
    _run_alone(connection, sql.SQL("ANALYZE"), database)
    _run_alone(connection, sql.SQL("RESET statement_timeout"), database)


def _client_program(name, connection, database=None):
    """The program of the server's own version, or else the one in the path: another version may not understand it."""
    version = _server_version(connection, database)
    major = version // 10000
    for folder in CLIENT_FOLDERS:
        path = f"{folder.format(major=major)}/{name}"
        if os.access(path, os.X_OK):
            return path
    path = shutil.which(name)
    if path is None:
        raise CommandExecutionError(f"There is no {name} on this host: install PostgreSQL's client, version {major}.")
    return path


def _dump_list(program, path):
    with tempfile.TemporaryFile() as errors:
        with _reading_dump([program, "--list"], path, None, stdout=subprocess.PIPE, stderr=errors) as process:
            listed = process.stdout.read()
        errors.seek(0)
        _refuse_failed(process, errors.read())
    return listed.decode("utf-8", "replace")


@contextlib.contextmanager
def _reading_dump(command, path, progress, password_file="/dev/null", options="", **streams):
    """Run a program that reads a dump on its standard input, as nobody in particular; end it with the block."""
    with _opened(path) as dump:
        process = subprocess.Popen(
            [*UNPRIVILEGED, *command],
            stdin=subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGPASSFILE": password_file, "PGOPTIONS": options},
            cwd="/",
            pass_fds=[int(part.rpartition("/")[2]) for part in _memory_files(command, password_file)],
            **{"stdout": subprocess.DEVNULL, **streams},
        )
        feeder = threading.Thread(target=_feed, args=(dump, process.stdin, progress), daemon=True)
        feeder.start()
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
            feeder.join()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()


@contextlib.contextmanager
def _killed_after(process, seconds):
    """Kill a process that runs for longer; the event in the block then says so."""
    late = threading.Event()

    def kill():
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill) if seconds else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield late
    finally:
        if timer:
            timer.cancel()


def _opened(path):
    try:
        return open(path, "rb")
    except OSError as err:
        raise CommandExecutionError(f"Cannot read {path}: {err.strerror}.") from None


def _feed(dump, pipe, progress):
    done = 0
    # Whoever reads may end before the file does, and has its own words for it.
    with contextlib.suppress(BrokenPipeError), contextlib.closing(pipe):
        # The entry is one of the first, and what replaces it has its length.
        block = dump.read(1024 * 1024).replace(DUMP_SEARCH_PATH, OUR_SEARCH_PATH.ljust(len(DUMP_SEARCH_PATH)), 1)
        while block:
            pipe.write(block)
            done += len(block)
            if progress:
                progress(done)
            block = dump.read(1024 * 1024)


def _memory_files(command, *others):
    words = [word.partition("=")[2] for word in command] + list(others)
    return [word for word in words if word.startswith("/proc/self/fd/")]


@contextlib.contextmanager
def _memory_file(text):
    """A file that only a program that inherits it can open: nothing of it is left behind, whatever happens."""
    number = os.memfd_create("pgsql")
    try:
        os.fchmod(number, 0o600)  # libpq ignores a file of passwords that others may read
        os.fchown(number, NOBODY, NOBODY)
        with open(number, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def _refuse_failed(process, errors):
    if process.returncode == 0:
        return
    lines = [_printable(line).removeprefix("pg_restore: ") for line in errors.splitlines()]
    # After it stands the whole statement.
    said = list(itertools.takewhile(lambda line: not line.startswith("Command was:"), _from_first_error(lines)))
    raise CommandExecutionError(f"pg_restore: {' '.join(said)[:1500] or f'exit {process.returncode}'}")


def _from_first_error(lines):
    return list(itertools.dropwhile(lambda line: "error:" not in line, lines)) or lines


def _printable(line):
    return _shown(line.decode("utf-8", "replace").rstrip())


def _shown(text):
    """Names and messages of whoever owns a database may hold what a terminal takes for a command."""
    text = text[:LONGEST_MESSAGE].replace("\n", " ")
    return "".join(char if char.isprintable() else "?" for char in text)


class _RowCounter:
    """Counts rows in what ``pg_restore --data-only`` writes: after `COPY … FROM stdin;` a line each, up to `\\.`

    It is given lines, a long one in parts, and keeps no more of the rows asked for than ROWS_KEPT, the last ones.
    """

    def __init__(self, rows_of):
        self.tables, self.size = {}, 0
        self.rows = {table: collections.deque(maxlen=ROWS_KEPT) for table in rows_of}
        self._table = self._columns = None
        self._begins, self._heading = True, b""

    def take(self, part):
        begins, self._begins = self._begins, part.endswith(b"\n")
        if self._table is None:
            self.size += len(part) // 2  # a large object, in hexadecimal
            if begins or self._heading:
                self._begin(part)
        elif begins and part == b"\\.\n":
            self._table = None
        else:
            self.size += len(part)
            if begins:
                self._count(part)

    def _count(self, row):
        self.tables[self._table] += 1
        if self._table in self.rows:
            values = row[:LONGEST_ROW].decode("utf-8", "replace").removesuffix("\n").split("\t")
            self.rows[self._table].append(dict(zip(self._columns, values)))

    def _begin(self, part):
        """Take the statement before the rows, of more than one line where a name in it has line feeds."""
        self._heading += part
        match = COPY_STATEMENT.fullmatch(self._heading.decode("utf-8", "replace"))
        if match or not self._heading.startswith(b"COPY ") or len(self._heading) > LONGEST_LINE:
            self._heading = b""
        if match and len(self.tables) >= MOST_TABLES:
            raise CommandExecutionError(f"It has more than {MOST_TABLES} tables.")
        if match:
            self._table = ".".join(map(_unquoted, IDENTIFIER.findall(match[1])))
            self._columns = [_unquoted(name) for name in IDENTIFIER.findall(match[2] or "")]
            self.tables.setdefault(self._table, 0)


def _unquoted(name):
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
