"""
Text of others, made fit to be shown
====================================
"""

from host_core import terminal

# Characters that are shown of a message of a server or a client program.
LONGEST_MESSAGE = 4000


def shown(text):
    """
    Return text on one line, with no more than ``LONGEST_MESSAGE`` characters, all of them printable.

    Names and messages of a database's owner may hold escape sequences that a terminal acts on.
    """
    return terminal.plain(text[:LONGEST_MESSAGE])


def printable(line):
    """Return a line that a program printed, in bytes, as text to be shown."""
    return shown(line.decode("utf-8", "replace").rstrip())
