"""
Text of others, made fit to be shown
====================================
"""

# Characters of what a server or a client program says that are shown.
LONGEST_MESSAGE = 4000


def shown(text):
    """
    Return text on one line, with no more than ``LONGEST_MESSAGE`` characters, all of them printable.

    Names and messages of whoever owns a database may hold what a terminal takes for a command.
    """
    text = text[:LONGEST_MESSAGE].replace("\n", " ")
    return "".join(char if char.isprintable() else "?" for char in text)


def printable(line):
    """Return a line that a program printed, in bytes, as text to be shown."""
    return shown(line.decode("utf-8", "replace").rstrip())
