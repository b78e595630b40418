"""
Connection arguments: defaults, the order of their sources, and the options of each session
============================================================================================
"""

import re

from pgsql_core.errors import InvalidArgumentError

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
ARGUMENTS = {*DEFAULTS, *LIBPQ_ARGUMENTS, *PASSWORD_SOURCES}

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

# The one word that tells an older server before there is a session, in what it replies to NEWER_SESSION_OPTIONS.
UNKNOWN_TO_OLDER_SERVERS = "transaction_timeout"

# Where packages put a server's own client programs: Debian, PostgreSQL's own RPMs.
CLIENT_FOLDERS = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")

# In place of that of SESSION_OPTIONS where an owner's functions call others without naming their schema.
OWNERS_SEARCH_PATH = "SET search_path = public, pg_catalog;"


def merged(*layers):
    """
    Return all arguments of a connection, ``os_user`` being ``None`` where it has no meaning.

    layers
        Dictionaries or nothing, each laid over those before. A password in one replaces those before, whatever
        their source.

    Raises ``InvalidArgumentError`` for arguments that do not exist.
    """
    given = {}
    for layer in layers:
        if any((layer or {}).get(source) is not None for source in PASSWORD_SOURCES):
            given = {key: value for key, value in given.items() if key not in PASSWORD_SOURCES}
        given.update(layer or {})
    unknown = sorted(set(given) - ARGUMENTS)
    if unknown:
        raise InvalidArgumentError(f"Unknown in a PostgreSQL connection: {', '.join(unknown)}.")
    arguments = {**DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    if not is_socket(arguments):
        arguments["os_user"] = None
    return arguments


def is_socket(arguments):
    """Return whether the server is reached through a socket in the file system."""
    return str(arguments["host"]).startswith("/")


def is_this_host(arguments):
    """Return whether the server is on this host, as far as its address shows."""
    return is_socket(arguments) or arguments["host"] in ("localhost", "127.0.0.1", "::1")


def for_libpq(arguments):
    """Return the arguments that libpq takes by the same names, without a password."""
    return {key: arguments[key] for key in LIBPQ_ARGUMENTS if key in arguments}


def client_options(taken_back, options):
    """
    Return what PGOPTIONS must hold for a client program to be as free of an owner's settings as our sessions.

    taken_back
        What OWNERS_SETTINGS has found: values by the names of settings.

    options
        SESSION_OPTIONS, with NEWER_SESSION_OPTIONS where the server knows them.
    """
    settings = (re.sub(r"([\\\s])", r"\\\1", f"{name}={value}") for name, value in sorted(taken_back.items()))
    return " ".join([*(f"-c {setting}" for setting in settings), options]).strip()


def client_folders(version):
    """
    Return where a server's own client programs may be.

    version
        The server's, as a number, such as 170006.
    """
    return [folder.format(major=version // 10000) for folder in CLIENT_FOLDERS]


def password_sources(arguments):
    """Return where the password comes from, as ``passwords.given`` takes it."""
    return {key: arguments.get(key) for key in PASSWORD_SOURCES}
