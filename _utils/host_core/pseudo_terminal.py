"""
Run a program on a terminal of its own
======================================

For those that show how far they are on a terminal only.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from host_core import command

ROWS, COLUMNS = 50, 200
# Characters that are kept of what was written last.
KEPT = 20000


def run(words, heard, seconds):
    """
    Run a program until it ends or the time is up, and return ``command.Ended``, with what it wrote last.

    words
        The command, a list of words.
    heard
        Function that is called with what the program wrote last, whenever it writes and each second.
    seconds
        When it is killed.

    Raises ``OSError`` if it cannot be started.

    .. code-block:: python

        pseudo_terminal.run(["podman", "pull", "alpine"], print, 3600)
    """
    until = time.monotonic() + seconds
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=inner, stderr=inner, cwd="/", env=command.environment()
        ) as process:
            os.close(inner)
            inner = None
            try:
                written = _written(terminal, process, heard, until)
            except BaseException:
                process.kill()  # or it would be waited for
                raise
    finally:
        for descriptor in (terminal, inner):
            if descriptor is not None:
                os.close(descriptor)
    return command.Ended(written, "", None if time.monotonic() > until else process.returncode)


def _written(terminal, process, heard, until):
    written = ""
    while (chunk := _read(terminal)) is not None:
        written = (written + chunk)[-KEPT:]
        heard(written)
        if time.monotonic() > until:
            process.kill()
    return written


def _read(terminal):
    """What was written within a second, or None when the last writer has gone, which a terminal calls an error."""
    try:
        if not select.select([terminal], [], [], 1)[0]:
            return ""
        return os.read(terminal, 65536).decode(errors="replace") or None
    except OSError:
        return None
