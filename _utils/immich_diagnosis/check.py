"""
Checks of the doctor, and what they yield
=========================================

A check is called with ``here`` (``immich_diagnosis.facts``) and yields ``(result, seen)``, or with a remedy and a code
``(result, seen, remedy, code)``. A part is importable and yields rows also where no module of Salt can be loaded.
"""

import re
from collections import namedtuple

from host_core import terminal
from immich_core import findings
from immich_diagnosis.words import one_line

# ``gate``: whether the rest of its group needs it. ``disturbed``: whether a restore, an update or a removal under way
# explains that it is not well. ``everywhere``: whether hosts without the component of its part have it too. ``asks``:
# functions that the registry of components names, which it calls: their findings are in this row alone. ``times``: how
# many times as long as others it may take.
Check = namedtuple("Check", "part function gate disturbed everywhere asks times", defaults=(False, False, False, (), 1))
OK, WARNING, FAILED = "ok", "warning", "failed"


class NotCheckedError(Exception):
    """A check lacks what it needs; the text says what."""


def need(here, *functions):
    """Raise ``NotCheckedError`` where the module of an execution function is not there."""
    for function in functions:
        if function not in here["salt"]:
            raise NotCheckedError(f"the module {function.partition('.')[0]}")


def call(here, function, *arguments, **kwargs):
    """Call an execution function. Where its module is not there, what needs it is not checked."""
    need(here, function)
    return here["salt"][function](*arguments, **kwargs)


def of_finding(each):
    """What a check yields of a finding."""
    return findings.RESULTS[each["severity"]], one_line(findings.seen(each)), each["remedy"], each["code"]


def table_row(part, result, seen, remedy="", code=""):
    """A row of the table. Without a code of its own, a finding has that of its part."""
    code = code or re.sub(r"[^a-z]+", "-", part.lower())
    seen, remedy = terminal.plain(seen), terminal.plain(remedy)
    return {"part": part, "result": result, "code": code, "seen": seen, "remedy": remedy}
