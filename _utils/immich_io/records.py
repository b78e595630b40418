"""
Records of what was done last: small files for the status of this host
=======================================================================

One file for each kind, so that nobody overwrites what another process has recorded.
"""

import json
import time
from pathlib import Path

from host_core import durable

DIRECTORY = Path("/var/lib/immich-formula/records")
# What was done last; the status made of it, and what the beacon has reported of that.
NAMES = ("apply", "plan", "update", "drill")
STATUS, REPORTED = "status", "beacon"


def note(name, **values):
    """
    Write a record, with the time, whole or not at all.

    name
        One of those above, or ``releases``.
    values
        What to record; a ``time`` among them is that of the record.

    Raises ``OSError`` if it cannot be written.

    .. code-block:: python

        records.note("drill", success=True)
    """
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.write(DIRECTORY / f"{name}.json", json.dumps({"time": int(time.time()), **values}), 0o600)


def read(name):
    """
    Return a record; empty if there is none that can be read.

    name
        As for :py:func:`note`.

    .. code-block:: python

        records.read("drill").get("success")
    """
    try:
        found = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
