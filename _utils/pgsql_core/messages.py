"""
Text of others, made fit to be shown
====================================
"""

from host_core import terminal

# Characters of what a server or a client program says that are shown.
LONGEST_MESSAGE = 4000


def shown(text):
    """
    Return text on one line, with no more than ``LONGEST_MESSAGE`` characters, all of them printable.

    Names and messages of whoever owns a database may hold what a terminal takes for a command.
    """
    return terminal.plain(text[:LONGEST_MESSAGE])


def printable(line):
    """Return a line that a program printed, in bytes, as text to be shown."""
    return shown(line.decode("utf-8", "replace").rstrip())
