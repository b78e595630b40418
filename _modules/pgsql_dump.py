"""
Read and restore dumps of PostgreSQL databases.

Both functions take ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

import collections
import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import threading

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import driver, errors, messages
from pgsql_core.connection import OWNERS_SEARCH_PATH
from pgsql_core.dump_rows import LONGEST_LINE, RowCounter
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)

# Where packages put a server's own client programs: Debian, PostgreSQL's own RPMs.
CLIENT_FOLDERS = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
# A user that no process has and no file belongs to: https://systemd.io/UIDS-GIDS keeps 65520 to 65533 unused.
NOBODY = 65533
UNPRIVILEGED = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    *("--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"),
)
# Entries of `pg_restore --list` that only a superuser can restore.
NOT_RESTORED = re.compile(r"\d+; \d+ \d+ (EXTENSION - |SCHEMA - public |COMMENT - (EXTENSION |SCHEMA public ))")
# dumpSearchPath() in src/bin/pg_dump/pg_dump.c, the same since PostgreSQL 10.3.
DUMP_SEARCH_PATH = b"SELECT pg_catalog.set_config('search_path', '', false);\n"
_OWNERS = OWNERS_SEARCH_PATH.encode().ljust(len(DUMP_SEARCH_PATH))


def __virtual__():
    return driver.required_by("pgsql_dump")


@_salt_errors
def read(path, rows_of=(), progress=None, connection=None):
    """
    Read a dump that ``pg_dump --format=custom`` wrote, from its first byte to its last, and return what is in it.

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

        salt '*' pgsql_dump.read /var/backups/shop.dump
    """
    program = _client_program("pg_restore", _server(connection).version())
    extensions = re.findall(r"^\d+; \d+ \d+ EXTENSION - (\S+)", _dump_list(program, path), re.MULTILINE)
    counter = RowCounter(rows_of)
    command = [program, "--data-only", "--file=-"]
    with tempfile.TemporaryFile() as stderr:
        with _reading_dump(command, path, progress, stdout=subprocess.PIPE, stderr=stderr) as process:
            for part in iter(lambda: process.stdout.readline(LONGEST_LINE), b""):
                counter.take(part)
        stderr.seek(0)
        _refuse_failed(process, stderr.read())
    rows = {table: list(kept) for table, kept in counter.rows.items()}
    return {"tables": counter.tables, "extensions": extensions, "size": counter.size, "rows": rows}


@_salt_errors
def restore(path, database, connection, progress=None, doing=None, timeout=None):
    """
    Restore a dump that ``pg_dump --format=custom`` wrote into an empty database, as a role that is no superuser.

    Restoring a dump runs what is in it: checks, expressions of indexes, defaults, and whatever was written into the
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
        That of the role that runs and owns what is restored, and is no superuser.
    progress
        A function that is called with the number of bytes restored so far. Defaults to none.
    doing
        A function that is called with what ``pg_restore`` does next, a line of text. Defaults to none.
    timeout
        Seconds after which it is given up: a check or a default in a dump may never end. What the server still does
        then ends with the database, see :py:func:`pgsql_database.drop`. Defaults to no limit.

    Raises ``CommandExecutionError`` if the role is a superuser, the server refuses a part of the dump, or the time is
    up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_dump.restore /var/backups/shop.dump shop '{host: 127.0.0.1, user: shop, password_pillar: a:b}'
    """
    server = _server(connection)
    if server.is_superuser(database):
        raise ServerError("A dump is not restored by a superuser: what is in it would run as one.")
    program = _client_program("pg_restore", server.version(database))
    listed = _dump_list(program, path).splitlines(keepends=True)
    escaped = (server.password() or "").replace("\\", "\\\\").replace(":", "\\:")
    restored = "".join(line for line in listed if not NOT_RESTORED.match(line))
    with _memory_file(restored) as entries, _memory_file(f"*:*:*:*:{escaped}\n") as passwords:
        command = [
            program, "--single-transaction", "--exit-on-error", "--verbose", "--no-password", "--no-owner",
            "--no-privileges", "--no-tablespaces", "--no-security-labels", "--no-publications", "--no-subscriptions",
            f"--use-list={entries}", f"--dbname={server.dsn(database)}",
        ]  # fmt: skip
        printed = collections.deque(maxlen=50)
        options = server.client_options(database)
        with _reading_dump(command, path, progress, passwords, options, stderr=subprocess.PIPE) as process:
            with _killed_after(process, timeout) as late:
                for line in iter(lambda: process.stderr.readline(LONGEST_LINE), b""):
                    printed.append(line)
                    if doing and line.startswith(b"pg_restore: "):
                        doing(messages.printable(line).removeprefix("pg_restore: "))
        if late.is_set():
            raise ServerError(f"pg_restore has not ended within {timeout} s.")
        _refuse_failed(process, b"".join(printed))


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _client_program(name, version):
    """The program of the server's own version, or else the one in the path: another version may not understand it."""
    major = version // 10000
    for folder in CLIENT_FOLDERS:
        path = f"{folder.format(major=major)}/{name}"
        if os.access(path, os.X_OK):
            return path
    path = shutil.which(name)
    if path is None:
        raise ServerError(f"There is no {name} on this host: install PostgreSQL's client, version {major}.")
    return path


def _dump_list(program, path):
    with tempfile.TemporaryFile() as stderr:
        with _reading_dump([program, "--list"], path, None, stdout=subprocess.PIPE, stderr=stderr) as process:
            listed = process.stdout.read()
        stderr.seek(0)
        _refuse_failed(process, stderr.read())
    return listed.decode("utf-8", "replace")


@contextlib.contextmanager
def _reading_dump(command, path, progress, password_file="/dev/null", options="", **streams):
    """Run a program that reads a dump on its standard input, as an unprivileged user; end it with the block."""
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
    """Kill a process that runs for longer; the event in the block is set then."""
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
        raise ServerError(f"Cannot read {path}: {err.strerror}.") from None


def _feed(dump, pipe, progress):
    done = 0
    # The reading program may end before the file does, and reports why itself.
    with contextlib.suppress(BrokenPipeError), contextlib.closing(pipe):
        # The entry is one of the first, and what replaces it has its length.
        block = dump.read(1024 * 1024).replace(DUMP_SEARCH_PATH, _OWNERS, 1)
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


def _refuse_failed(process, printed):
    if process.returncode == 0:
        return
    lines = [messages.printable(line).removeprefix("pg_restore: ") for line in printed.splitlines()]
    # After it stands the whole statement.
    said = list(itertools.takewhile(lambda line: not line.startswith("Command was:"), _from_first_error(lines)))
    raise ServerError(f"pg_restore: {' '.join(said)[:1500] or f'exit {process.returncode}'}")


def _from_first_error(lines):
    return list(itertools.dropwhile(lambda line: "error:" not in line, lines)) or lines
