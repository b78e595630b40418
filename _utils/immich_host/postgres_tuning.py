"""
The settings of the PostgreSQL server that the formula has set, on record
==========================================================================
"""

import json
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import durable
from immich_core import postgres_tuning

RECORD = Path("/var/lib/immich-formula/postgres-tuning.json")


def plan(profile, memory, connection, salt):
    """
    Return what to set on the server for a profile, and what to record of it: ``(settings, record)``, as of
    ``immich_core.postgres_tuning.planned``. Of a server that is not there, all would be set.

    profile
        ``ssd``, ``hdd`` or ``none``.
    memory
        The host's, in MiB.
    connection
        As in ``pgsql_server``.
    salt
        Salt's execution functions by name (``__salt__``).

    Raises ``CommandExecutionError`` if the record cannot be read or the server cannot be asked.
    """
    desired, record = postgres_tuning.values(profile, memory), recorded()
    if not postgres_tuning.names(desired, record):
        return {}, {}
    try:
        desired = postgres_tuning.values(profile, memory, _major(connection, salt))
        names = postgres_tuning.names(desired, record)
        current = salt["pgsql_config.get"](names, connection)
    except CommandExecutionError as error:
        if getattr(error, "absent", None) != "server":
            raise
        return desired, record

    def is_set(name, value):
        return not salt["pgsql_config.changes"]({name: current[name]["persisted"]}, {name: value}, connection)

    return postgres_tuning.planned(desired, record, current, is_set)


def _major(connection, salt):
    return salt["pgsql_server.version"](connection) // 10000


def recorded():
    """
    Return the settings that the formula has set, as ``{name: {"set": value, "before": value or None}}``.

    Raises ``CommandExecutionError`` if the record cannot be read.
    """
    try:
        return json.loads(RECORD.read_text(encoding="utf8")) if RECORD.exists() else {}
    except (OSError, ValueError) as error:
        raise CommandExecutionError(
            f"{RECORD}, the record of PostgreSQL's former settings, cannot be read: {error}. Remove it: the present "
            f"settings then count as the former ones"
        ) from error


def note(record):
    """
    Write the record, or remove it if it has nothing.

    record
        As :py:func:`recorded` returns it.

    Raises OSError.
    """
    if not record:
        RECORD.unlink(missing_ok=True)
    elif record != recorded():
        RECORD.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write(RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n", 0o600)


def differing(profile, memory, connection, salt):
    """
    Return the settings with which the server does not run as the profile has them, as ``{name: {"old": …, "new": …}}``.

    profile, memory, connection, salt
        As for :py:func:`plan`.

    Raises ``CommandExecutionError`` if the server cannot be asked.
    """
    if profile == "none":
        return {}
    desired = postgres_tuning.values(profile, memory, _major(connection, salt))
    current = salt["pgsql_config.get"](sorted(desired), connection)
    running = {name: held["running"] for name, held in current.items() if held["comparable"]}
    return salt["pgsql_config.changes"](running, {name: desired[name] for name in running}, connection)
