"""
How systemd's unit files are written
====================================

The rules are those of systemd.syntax(7), of systemd.unit(5) for ``%`` and of systemd.service(5) for ``$``.
"""

import json


def quoted(text):
    """
    Return a value as unit files want it: quoted, with ``%`` doubled.

    text
        As a path: ``/srv/my photos``.

    .. code-block:: python

        unit_file.quoted("/srv/my photos")
    """
    return json.dumps(text, ensure_ascii=False).replace("%", "%%")


def command_word(text):
    """
    Return a word of a command line, as of ``ExecStart=``: as :py:func:`quoted` does, and with ``$`` doubled.

    text
        The word.

    .. code-block:: python

        unit_file.command_word("/opt/my $projects")
    """
    return quoted(text).replace("$", "$$")
