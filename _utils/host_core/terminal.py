"""
Text of others, made fit for a terminal
=======================================

Names, answers and logs hold what their authors want, and a terminal acts on some of it. The formula's modules, its
programs on the host and its installer show such text through this file.
"""

import re

LONGEST_LINE = 4096
# Escape sequences of ECMA-48: CSI, OSC, and those of two characters.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


def plain(text, keep=""):
    """
    Return a text without escape sequences, with a space for every character that is not printable.

    Among those are the other control characters, the separators of lines, and what changes the direction of text.

    text
        The text, of any origin and length.
    keep
        Characters that stay. Defaults to none: line feeds and tabulators become spaces too.

    .. code-block:: python

        terminal.plain(paragraphs, keep="\\n")
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else " " for char in ESCAPES.sub("", text))


def one_line(text, length=LONGEST_LINE):
    """
    Return the beginning of a text as :py:func:`plain` does, with single spaces for all white space.

    text
        The text, of any origin and length.
    length
        Characters at most. Defaults to 4096.

    .. code-block:: python

        terminal.one_line(name, 60)
    """
    return " ".join(plain(text[: max(length, LONGEST_LINE)]).split())[:length]
