"""
Text of others, made fit to be shown
====================================
"""

# Characters that are shown of a message of a server or a client program.
LONGEST_MESSAGE = 4000


def shown(text):
    """
    Return text on one line, with no more than ``LONGEST_MESSAGE`` characters, all of them printable.

    Names and messages of a database's owner may hold escape sequences that a terminal acts on.
    """
    text = text[:LONGEST_MESSAGE].replace("\n", " ")
    return "".join(char if char.isprintable() else "?" for char in text)


def printable(line):
    """Return a line that a program printed, in bytes, as text to be shown."""
    return shown(line.decode("utf-8", "replace").rstrip())
