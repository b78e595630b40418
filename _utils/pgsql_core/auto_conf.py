"""
``postgresql.auto.conf``, the file of ALTER SYSTEM, while its server does not run
=================================================================================
"""

import re

# As ALTER SYSTEM writes it: each setting on a line of its own.
_NAME = re.compile(r"\s*([\w.]+)\s*=")


def with_values(text, settings):
    """
    Return the file's text with other values of settings.

    text
        What the file has.
    settings
        ``{name: value}``; None takes a setting out.

    .. code-block:: python

        auto_conf.with_values("work_mem = '5MB'\\n", {"work_mem": None})
    """
    others = [line for line in text.splitlines(keepends=True) if _name_of(line) not in settings]
    written = [f"{name} = '{_quoted(value)}'\n" for name, value in settings.items() if value is not None]
    return "".join([*others, *written])


def _name_of(line):
    match = _NAME.match(line)
    return match and match[1].lower()


def _quoted(value):
    return str(value).replace("\\", "\\\\").replace("'", "''")
