"""
Read and restore dumps of PostgreSQL databases.

Both functions take ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

import collections
import contextlib
import fcntl
import itertools
import os
import re
import select
import shutil
import subprocess
import tempfile
import threading
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import connection as arguments
from pgsql_core import driver, errors, messages, restore_settings
from pgsql_core.dump_rows import LONGEST_LINE, RowCounter
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)

# A user that no process has and no file belongs to: https://systemd.io/UIDS-GIDS keeps 65520 to 65533 unused.
NOBODY = 65533
# All processes of a program end with it, and it with this one: a worker of pg_restore may outlive its leader.
TOGETHER = ("setpriv", "--pdeathsig=KILL", "--", "unshare", "--pid", "--fork", "--kill-child", "--")
UNPRIVILEGED = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    *("--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"),
)
# Entries of `pg_restore --list` that only a superuser can restore.
NOT_RESTORED = re.compile(r"\d+; \d+ \d+ (EXTENSION - |SCHEMA - public |COMMENT - (EXTENSION |SCHEMA public ))")
# dumpSearchPath() in src/bin/pg_dump/pg_dump.c, the same since PostgreSQL 10.3.
DUMP_SEARCH_PATH = b"SELECT pg_catalog.set_config('search_path', '', false);\n"
_OWNERS = arguments.OWNERS_SEARCH_PATH.encode().ljust(len(DUMP_SEARCH_PATH))
# In its first bytes a dump has that statement.
HEAD = 1024 * 1024
BLOCK = 1024 * 1024
# fcntl(2), which Python knows as fcntl.F_SETPIPE_SZ from 3.10 on. Any user may have a pipe of this size.
F_SETPIPE_SZ, PIPE = 1031, 1024 * 1024
# Where a copy of a dump may lie, if there is no room beside it.
OTHER_FOLDER = "/var/tmp"
# Seconds between two looks at what the server does.
LOOK_SECONDS = 1
# What the sessions of a restore do. A role sees its own, and of the others nothing.
AT_WORK = """
    SELECT 'copy' AS what, pid, relid::bigint AS id, relid::regclass::text AS name, bytes_processed AS done
    FROM pg_catalog.pg_stat_progress_copy WHERE datname = current_database()
    UNION ALL
    SELECT 'index', pid, index_relid::bigint, relid::regclass::text, tuples_done
    FROM pg_catalog.pg_stat_progress_create_index WHERE datname = current_database()
    """


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
            with contextlib.suppress(OSError):  # a user's pipes may be at their limit
                fcntl.fcntl(process.stdout, F_SETPIPE_SZ, PIPE)
            for block in iter(lambda: process.stdout.read1(BLOCK), b""):
                counter.take(block)
        stderr.seek(0)
        _refuse_failed(process, stderr.read())
    rows = {table: list(kept) for table, kept in counter.rows.items()}
    return {"tables": counter.tables, "extensions": extensions, "size": counter.size, "rows": rows}


@_salt_errors
def restore(path, database, connection, size=0, doing=None, watch=None, timeout=None):
    """
    Restore a dump that ``pg_dump --format=custom`` wrote into an empty database, as a role that is no superuser.

    Restoring a dump runs what is in it: checks, expressions of indexes, defaults, and whatever was written into the
    file. So the session has been logged in as the role that will own it all; one of a superuser with ``SET ROLE``
    could be taken back by the dump. ``pg_restore`` speaks to the server itself: without ``psql``, no line of a dump
    is a command of psql. It runs without privileges on this host.

    Several processes restore it, with memory and workers for its indexes as the host has them free. The first error
    ends it, and leaves a database that is to be dropped. Extensions, the schema ``public`` and the comments on
    these are left out, as a superuser makes them before; so are owners and privileges. ``search_path`` is
    ``public, pg_catalog`` meanwhile, for functions that call others without naming their schema.

    path
        Path of the file. A copy of it is made, which has no name: beside it or in ``/var/tmp``.
    database
        Name of the database.
    connection
        That of the role that runs and owns what is restored, and is no superuser.
    size
        What :py:func:`read` has returned of the dump: indexes get no more memory than that can take. Defaults to 0.
    doing
        A function that is called with what ``pg_restore`` does next, a line of text. Defaults to none.
    watch
        A function that is called about once a second with a list of what the server does for it: ``{"what": ``copy``
        or ``index``, "pid", "id", "name": of the table, "done": bytes of its rows as text, or rows in the index}``.
        Defaults to none.
    timeout
        Seconds after which it is given up: a check or a default in a dump may never end. What the server still does
        then ends with the database, see :py:func:`pgsql_database.drop`. Defaults to no limit.

    Raises ``CommandExecutionError`` if the role is a superuser, there is no room for the copy, the server refuses a
    part of the dump, or the time is up.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_dump.restore /var/backups/shop.dump shop '{host: 127.0.0.1, user: shop, password_pillar: a:b}'
    """
    server = _server(connection)
    if server.is_superuser(database):
        raise ServerError("A dump is not restored by a superuser: what is in it would run as one.")
    program = _client_program("pg_restore", server.version(database))
    here = arguments.is_this_host(server.settings)
    settings = restore_settings.of_session(*_resources(size, here))
    escaped = (server.password() or "").replace("\\", "\\\\").replace(":", "\\:")
    with _copied(path) as copy, _memory_file(f"*:*:*:*:{escaped}\n") as passwords:
        listed = _dump_list(program, copy).splitlines(keepends=True)
        with _memory_file("".join(line for line in listed if not NOT_RESTORED.match(line))) as entries:
            command = [
                program, f"--jobs={restore_settings.jobs(os.cpu_count())}", "--exit-on-error", "--verbose",
                "--no-password", "--no-owner", "--no-privileges", "--no-tablespaces", "--no-security-labels",
                "--no-publications", "--no-subscriptions", f"--use-list={entries}",
                f"--dbname={server.dsn(database)}", copy,
            ]  # fmt: skip
            options = f"{server.client_options(database)} {settings}"
            look = watch and (lambda: _look(server, database, watch))
            _run_restore(command, passwords, options, doing, look, timeout)


def _look(server, database, watch):
    with contextlib.suppress(ServerError):  # what ends a session ends the restore, which says why
        watch(server.query(AT_WORK, database=database))


def _run_restore(command, passwords, options, doing, look, timeout):
    printed = collections.deque(maxlen=50)
    with _running([*TOGETHER, *UNPRIVILEGED, *command], passwords, options, stderr=subprocess.PIPE) as process:
        with _killed_after(process, timeout) as late:
            for line in _lines_and_pauses(process.stderr, look):
                printed.append(line)
                if doing and line.startswith(b"pg_restore: "):
                    doing(messages.printable(line).removeprefix("pg_restore: "))
    if late.is_set():
        raise ServerError(f"pg_restore has not ended within {timeout} s.")
    _refuse_failed(process, b"\n".join(printed))


def _resources(size, here):
    """What of this host a restore may use: size of the dump, processors, and bytes of free memory, if it is ours."""
    free = None
    if here:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
        # A parallel build has its memory in there.
        free = min(free, shutil.disk_usage("/dev/shm").free)
    return size, os.cpu_count(), free


def _lines_and_pauses(stream, look):
    """The lines of a program as it writes them, each up to LONGEST_LINE; ``look`` is called about once a second."""
    rest, looked = b"", time.monotonic()
    while True:
        if look and time.monotonic() - looked >= LOOK_SECONDS:
            look()
            looked = time.monotonic()
        if not select.select([stream], [], [], LOOK_SECONDS)[0]:
            continue
        block = os.read(stream.fileno(), 65536)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if not block:
            break
        rest = rest[:LONGEST_LINE]
    if rest:
        yield rest


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _client_program(name, version):
    """The program of the server's own version, or else the one in the path: another version may not understand it."""
    for folder in arguments.client_folders(version):
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    path = shutil.which(name)
    if path is None:
        raise ServerError(f"There is no {name} on this host: install PostgreSQL's client, version {version // 10000}.")
    return path


def _dump_list(program, path):
    with tempfile.TemporaryFile() as stderr:
        with _reading_dump([program, "--list"], path, None, stdout=subprocess.PIPE, stderr=stderr) as process:
            listed = process.stdout.read()
        stderr.seek(0)
        _refuse_failed(process, stderr.read())
    return listed.decode("utf-8", "replace")


@contextlib.contextmanager
def _reading_dump(command, path, progress, **streams):
    """Run a program that reads a dump on its standard input, as an unprivileged user; end it with the block."""
    with _opened(path) as dump, contextlib.ExitStack() as afterwards:
        with _running([*UNPRIVILEGED, *command], stdin=subprocess.PIPE, **streams) as process:
            feeder = threading.Thread(target=_feed, args=(dump, process.stdin, progress), daemon=True)
            feeder.start()
            afterwards.callback(feeder.join)  # whom the end of the program ends
            yield process


@contextlib.contextmanager
def _running(command, password_file="/dev/null", options="", **streams):
    """Run a program that inherits the files of this process that are named in its command; end it with the block."""
    process = subprocess.Popen(
        command,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGPASSFILE": password_file, "PGOPTIONS": options},
        cwd="/",
        pass_fds=[int(part.rpartition("/")[2]) for part in _own_files(command, password_file)],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
    )
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
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
        while block := dump.read(BLOCK):
            pipe.write(block)
            done += len(block)
            if progress:
                progress(done)


@contextlib.contextmanager
def _copied(path):
    """A copy that only a program that inherits it can open, more than once, with the owner's search path in it."""
    with _opened(path) as dump:
        size = os.fstat(dump.fileno()).st_size
        with tempfile.TemporaryFile(dir=_folder_with_room(path, size)) as copy:
            try:
                while os.sendfile(copy.fileno(), dump.fileno(), copy.tell(), BLOCK):
                    copy.seek(0, os.SEEK_END)
            except OSError as err:
                raise ServerError(f"Cannot copy {path}: {err.strerror}.") from None
            head = os.pread(copy.fileno(), HEAD, 0)
            # The entry is one of the first, and what replaces it has its length.
            os.pwrite(copy.fileno(), head.replace(DUMP_SEARCH_PATH, _OWNERS, 1), 0)
            os.fchown(copy.fileno(), NOBODY, NOBODY)
            yield f"/proc/self/fd/{copy.fileno()}"


def _folder_with_room(path, size):
    for folder in (os.path.dirname(path), OTHER_FOLDER):
        if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > size:
            return folder
    raise ServerError(
        f"No room for a copy of {path}, of {size / 1000**2:.1f} MB, which several processes restore: neither beside it "
        f"nor in {OTHER_FOLDER}."
    )


def _own_files(command, *others):
    words = [word[word.find("/proc/self/fd/") :] for word in [*command, *others] if "/proc/self/fd/" in word]
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
