"""
Telling a person how far a long operation is
============================================

On the terminal, if there is one, and in the journal: who comes back in the morning finds what was done at night.
"""

import sys
import syslog
import time

from host_core import terminal

SECONDS_BETWEEN_LINES = 10


def say(text, tag):
    """
    Write one line to the journal and to the terminal, if there is one, without what a terminal would act on.

    text
        The line: what, how much of it, how long already. Names in it may be anybody's.
    tag
        What the journal knows it by, as in ``journalctl -t immich-restore``.

    .. code-block:: python

        progress.say("Stopping immich.service", "immich-restore")
    """
    text = terminal.plain(text)
    syslog.openlog(tag, 0, syslog.LOG_USER)
    syslog.syslog(text)
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def now_and_then(tag):
    """
    Return a function that tells the line it is given as :py:func:`say` does, but only every ten seconds.

    It can be taken along to another thread, in which Salt's dunders are empty.

    tag
        As for :py:func:`say`.

    .. code-block:: python

        tell = progress.now_and_then("immich-apply")
        while not done():
            tell(f"Waiting: {how_far()}")
    """
    told = time.monotonic()

    def tell(text):
        nonlocal told
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            say(text, tag)

    return tell
