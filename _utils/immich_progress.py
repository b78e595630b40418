"""
Telling a person how far a long operation is
============================================

On the terminal, if there is one, and in the journal: who comes back in the morning finds what was done at night.
"""

import sys
import syslog


def say(text, tag):
    """
    Tell one line to the journal, and to who sits at the terminal.

    text
        The line: what, how much of it, how long already.
    tag
        What the journal knows it by, as in ``journalctl -t immich-restore``.

    .. code-block:: python

        __utils__["immich_progress.say"]("Stopping immich.service", "immich-restore")
    """
    syslog.openlog(tag, 0, syslog.LOG_USER)
    syslog.syslog(text)
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")
