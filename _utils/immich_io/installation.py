"""
The record of the installation on this host, and its project directory
=======================================================================
"""

import contextlib
import json
from pathlib import Path

from host_core import durable
from immich_core import compose

RECORD = Path("/var/lib/immich-formula/installation.json")
# Of the record. A newer one is from a newer formula, which knows more.
FORMAT = 1
# What of a project directory moves to another one, and what the states of immich.app write there again.
MOVED = "update.json"
WRITTEN = (
    "docker-compose.yml",
    *(f"secrets/{name}" for name in (*compose.SECRETS, compose.SERVER_SETTINGS, compose.CA_CERTIFICATES)),
)


class RecordError(Exception):
    """The record cannot be understood; the text says what to do."""


def record():
    """
    Return the parts of the installation by the record, or None where there is no record.

    Raises RecordError.
    """
    if not RECORD.exists():
        return None
    try:
        found = json.loads(RECORD.read_text(encoding="utf8"))
        readable = found["format"] <= FORMAT
        parts = dict(found["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{RECORD}, the record of this installation, cannot be read: {error}. Remove it: the next apply creates "
            f"it from the compose file"
        ) from error
    if not readable:
        raise RecordError(f"{RECORD} was written by a newer formula: use that version")
    return parts


def note(**parts):
    """
    Write parts of the installation into the record, whole or not at all. None removes one.

    Raises RecordError, and OSError that names the record if it cannot be written.
    """
    merged = {**(record() or {}), **parts}
    written = {"format": FORMAT, "parts": {part: value for part, value in merged.items() if value is not None}}
    RECORD.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.write(RECORD, json.dumps(written, indent=1, sort_keys=True) + "\n", 0o600)


def forget():
    """Remove the record."""
    RECORD.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        RECORD.parent.rmdir()


def move_project(old, new):
    """
    Take what the formula keeps in a former project directory out of it; return what is left there.

    The record of an update moves. Compose file and secrets are removed: the states of ``immich.app`` write them.

    old, new
        The directories; the new one is there. Immich is stopped.

    Raises OSError.
    """
    former = Path(old)
    if (former / MOVED).exists():
        durable.write(Path(new) / MOVED, (former / MOVED).read_text(encoding="utf8"), 0o600)
    for name in (MOVED, *WRITTEN):
        (former / name).unlink(missing_ok=True)
    for folder in (former / "secrets", former):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return sorted(path.name for path in former.iterdir()) if former.is_dir() else []
