"""
The record of an update or a change of settings that has not been completed
=============================================================================

``update.json`` beside the compose file: what a rollback needs. Of a change of settings that is the former compose file,
and the former file of Immich's own settings where there was one; of an update ``from``, ``to``, ``image``, ``backup``
and the ``migrations`` that the database had before, too. It holds the secrets of that file, and is root's alone.
"""

import json
from pathlib import Path

from host_core import durable

NAME = "update.json"
# What the record is of, where it is not of an update.
SETTINGS = "settings"


class DamagedError(Exception):
    """The record is there and cannot be read."""


def read(directory):
    """
    Return the record, or None if there is none.

    directory
        The project's directory.

    Raises ``DamagedError`` if it cannot be read.

    .. code-block:: python

        update_record.read("/opt/podman/immich")
    """
    path = Path(directory, NAME)
    try:
        return json.loads(path.read_text(encoding="utf8")) if path.exists() else None
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}. If no update failed before, remove it") from error


def of_update(record):
    """
    Return a record if it is one of an update, else None.

    record
        What :py:func:`read` returns.

    .. code-block:: python

        update_record.of_update(update_record.read(directory))
    """
    return record if record and record.get("what") != SETTINGS else None


def former_compose(directory):
    """
    Return the text of the compose file that served before, or None.

    directory
        As for :py:func:`read`, which says what is raised.

    .. code-block:: python

        update_record.former_compose("/opt/podman/immich")
    """
    return (read(directory) or {}).get("compose")


def write(directory, record):
    """
    Write the record, so that a power cut leaves the former or the new one.

    directory
        The project's directory, which is there.
    record
        What to write.

    Raises ``OSError`` if it cannot be written.

    .. code-block:: python

        update_record.write(directory, {"what": "settings", "compose": text})
    """
    durable.write(Path(directory, NAME), json.dumps(record, indent=1), 0o600)


def remove(directory):
    """
    Remove the record: Immich serves with what is declared.

    directory
        The project's directory.

    .. code-block:: python

        update_record.remove("/opt/podman/immich")
    """
    Path(directory, NAME).unlink(missing_ok=True)
