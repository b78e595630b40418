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


def far(done, total, seconds, shown, about=False):
    """
    Return how far something is: ``12.0 MB of 48.0 MB, 25 %, 4.0 MB/s, 3 s, about 9 s left``.

    done, total
        Numbers of the same unit; no total where it is not known.
    seconds
        Since it began.
    shown
        A function from such a number to words.
    about
        Whether the total is an estimate. Defaults to ``False``.

    .. code-block:: python

        progress.far(12, 48, 3.0, "{:.0f}".format)
    """
    rate = done / seconds if seconds > 0 else 0
    words = [
        shown(done)
        + (f" of {'about ' if about else ''}{shown(total)}, {min(done * 100 // total, 100)} %" if total else "")
    ]
    if rate:
        words.append(f"{shown(rate)}/s")
    words.append(f"{seconds:.0f} s")
    if rate and total:
        words.append(f"about {max(total - done, 0) / rate:.0f} s left")
    return ", ".join(words)


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
