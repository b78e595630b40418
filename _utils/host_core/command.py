"""
Run a program of the host
=========================

With a deadline, with a limit for what is read of it, and with one error that says which program failed and why.
"""

import contextlib
import itertools
import os
import re
import selectors
import subprocess
import time
from collections import namedtuple

LARGEST_OUTPUT = 16 * 1024**2
LAST_WORDS = 1500
# A name of a subcommand, in front of options, identities and paths.
SUBCOMMAND = re.compile(r"[a-z][a-z-]{0,20}")

# ``code`` is None where the program had to be killed.
Ended = namedtuple("Ended", "stdout stderr code")


class CommandError(Exception):
    """
    A program that failed, or had to be killed.

    ``command`` is its list of words, ``code`` its exit code, or None where it was killed, ``words`` what it said last.
    """

    def __init__(self, command, code, words):
        named = itertools.takewhile(SUBCOMMAND.fullmatch, command[1:3])
        super().__init__(f"{' '.join([os.path.basename(command[0]), *named])}: {words}")
        self.command, self.code, self.words = list(command), code, words


def run(command, seconds=None, size=LARGEST_OUTPUT, check=True, variables=None):
    """
    Return what a program prints to its standard output.

    command
        List of words; no shell reads them.
    seconds
        When it is killed. Defaults to ``None``: never.
    size
        Bytes of each of its two outputs, at which it is killed. Defaults to 16 MiB.
    check
        Whether an exit code other than 0 is an error. Defaults to ``True``.
    variables
        More of its environment, by name. Defaults to none.

    Raises ``CommandError`` if it fails, is killed or is not there.

    .. code-block:: python

        command.run(["nft", "list", "tables"], seconds=10)
    """
    with startable(command):
        ended = read(command, seconds, size, variables=variables)
    if ended.code is None:
        limit = f"{size} bytes" if seconds is None else f"{seconds} s and {size} bytes"
        raise CommandError(command, None, f"it did not end within {limit}")
    if check and ended.code:
        words = (ended.stderr or ended.stdout).strip()[-LAST_WORDS:] or f"exit code {ended.code}"
        raise CommandError(command, ended.code, words)
    return ended.stdout


@contextlib.contextmanager
def startable(command):
    """
    Raise what keeps a program from being started as ``CommandError``.

    command
        As for :py:func:`run`.

    .. code-block:: python

        with command.startable(["podman", "info"]):
            ended = command.read(["podman", "info"], seconds=10, size=65536)
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CommandError(command, None, "there is no such program") from error
    except TimeoutError:  # a deadline of the caller's
        raise
    except OSError as error:
        raise CommandError(command, None, f"it cannot be run: {error.strerror}") from error


@contextlib.contextmanager
def raised_as(exception):
    """
    Raise a ``CommandError`` as another exception, with the same words.

    exception
        Its class, as the one that a caller of modules expects.

    .. code-block:: python

        with command.raised_as(CommandExecutionError):
            command.run(["nft", "list", "tables"], seconds=10)
    """
    try:
        yield
    except CommandError as error:
        raise exception(str(error)) from error


def read(command, seconds, size, merged=False, variables=None):
    """
    Return what a program prints until it ends, ``size`` bytes are there or the time is up, as ``Ended``.

    command, seconds, size
        As for :py:func:`run`.
    merged
        Whether ``stdout`` has both outputs in their order. Defaults to ``False``.
    variables
        As for :py:func:`run`.

    Raises ``OSError`` if it cannot be started, as ``FileNotFoundError`` if there is no such program.

    .. code-block:: python

        command.read(["podman", "logs", "shop"], seconds=10, size=65536, merged=True).stdout
    """
    until = None if seconds is None else time.monotonic() + seconds
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        bufsize=0,
        cwd="/",  # where this was called, root may not enter: a share, or somebody's FUSE
        env={**environment(), **(variables or {})},
    )
    # Whatever interrupts this, as the deadline of a caller: with Popen itself as the context it would be waited for.
    try:
        printed = {stream: bytearray() for stream in (process.stdout, process.stderr) if stream}
        closed = _read_all(printed, until, size)
        code = _code(process, until) if closed else None
    finally:
        process.kill()
        process.wait()
        for stream in printed:
            stream.close()
    texts = [data[:size].decode(errors="replace") for data in printed.values()]
    return Ended(texts[0], "" if merged else texts[1], code)


def environment():
    """
    Return the environment of a program: as it is here, but for the language of messages, and for who speaks to systemd
    on behalf of the unit.

    .. code-block:: python

        subprocess.Popen(["podman", "logs", "--follow", "shop"], env=command.environment())
    """
    inherited = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**inherited, "LC_ALL": "C.UTF-8"}


def _read_all(printed, until, size):
    """Read until all streams are closed. False if one has printed too much, or the time is up."""
    with selectors.DefaultSelector() as selector:
        for stream in printed:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_left(until))
            if not ready:
                return False
            for key, _ in ready:
                chunk = key.fileobj.read(65536)
                printed[key.fileobj] += chunk
                if len(printed[key.fileobj]) >= size:
                    return False
                if not chunk:
                    selector.unregister(key.fileobj)
    return True


def _left(until):
    return None if until is None else max(0, until - time.monotonic())


def _code(process, until):
    """The exit code of a program that has closed its outputs, if it ends by itself and soon."""
    try:
        return process.wait(None if until is None else max(1, _left(until)))
    except subprocess.TimeoutExpired:
        return None
