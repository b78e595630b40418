"""
Values of server settings: what they mean, what differs, and how they are set
=============================================================================
"""

import re

from pgsql_core import quoting
from pgsql_core.errors import InvalidArgumentError
from pgsql_core.list_settings import LIBRARY_SETTINGS, LIST_SETTINGS, entries_of, library

# https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES
MEMORY_UNITS = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
TIME_UNITS = {
    "us": 1,
    "ms": 1000,
    "s": 1000**2,
    "min": 60 * 1000**2,
    "h": 3600 * 1000**2,
    "d": 86400 * 1000**2,
}


def changes(current, desired, kinds):
    """
    Return what differs in meaning between two sets of settings, as ``{name: {old, new}}``.

    ``16MB`` is ``16384kB``, ``yes`` is ``on``, ``a,b`` is ``a, b``.

    current
        Settings as PostgreSQL stores them.

    desired
        Settings as a person writes them; a list for those that are lists, nothing to reset one.

    kinds
        Function that returns ``{name in lower case: (vartype, unit)}`` as in ``pg_settings``. It is called where the
        texts differ, as that may take a question to the server.
    """
    current = {name.lower(): value for name, value in current.items()}
    found = {}
    for name, value in desired.items():
        old = current.get(name.lower())
        if not _same(name, old, value, kinds):
            found[name] = {"old": old, "new": value}
    return found


def to_reset(current, reset):
    """
    Return the settings that a state resets because it does not declare them, as ``{name: None}``.

    current
        Settings as PostgreSQL stores them.

    reset
        ``True`` for all, or a list of the names that are kept.
    """
    kept = set() if reset is True else {name.lower() for name in reset}
    return {name: None for name in current if name.lower() not in kept}


def parsed(entries):
    """Return settings that a catalog holds as ``name=value``, as a dictionary."""
    return dict(entry.split("=", 1) for entry in entries or [])


def assignments(target, settings):
    """
    Return the statements that set settings, or reset those without a value.

    target
        What they belong to, quoted: ``ALTER ROLE x``, ``ALTER DATABASE y``, ``ALTER SYSTEM``.

    settings
        ``{name: value}``.
    """
    statements = []
    for name, value in settings.items():
        identifier = quoting.qualified(*name.split("."))
        if value is None:
            statements.append(quoting.compose("{} RESET {}", target, identifier))
        else:
            statements.append(quoting.compose("{} SET {} = {}", target, identifier, _quoted(name, value)))
    return statements


def _quoted(name, value):
    entries = entries_of(value) if name.lower() in LIST_SETTINGS else [_text(value)]
    if not entries and name.lower() in LIBRARY_SETTINGS:
        # PostgreSQL would store a list of one library with an empty name, and not start again with it.
        raise InvalidArgumentError(f"{name} cannot be set to an empty list: reset it.")
    return quoting.joined([quoting.literal(entry) for entry in entries or [""]], ", ")


def _same(name, left, right, kinds):
    if left == right or None in (left, right):
        return left == right
    kind = kinds().get(name.lower())
    return canonical(name, left, kind) == canonical(name, right, kind)


def canonical(name, value, kind):
    """Return a value in a form in which two are equal when they mean the same; ``kind`` as in ``changes``."""
    if name.lower() in LIBRARY_SETTINGS:
        return [library(entry) for entry in entries_of(value)]
    if name.lower() in LIST_SETTINGS:
        return entries_of(value)
    text = _text(value)
    vartype, unit = kind or ("string", None)
    if vartype == "bool":
        return _boolean(text)
    if vartype in ("integer", "real"):
        return _number(text, unit, vartype)
    return text.lower() if vartype == "enum" else text


def _text(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _boolean(text):
    # https://www.postgresql.org/docs/current/config-setting.html: "on, off, true, false, yes, no, 1, 0 (all
    # case-insensitive) or any unambiguous prefix of one of these".
    word = text.strip().lower()
    truths = [("on", "true", "yes", "1"), ("off", "false", "no", "0")]
    matching = [truth for truth in truths if word and any(full.startswith(word) for full in truth)]
    return matching[0][0] if len(matching) == 1 else text


def _number(text, unit, vartype):
    match = re.fullmatch(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match:
        return text
    amount, given = float(match[1]), match[2]
    if given and unit:
        base = re.fullmatch(r"(\d*)([a-zA-Z]+)", unit)
        units = MEMORY_UNITS if base[2] in MEMORY_UNITS else TIME_UNITS
        if given not in units:
            return text
        amount *= units[given] / (units[base[2]] * int(base[1] or 1))
    return round(amount) if vartype == "integer" else amount
