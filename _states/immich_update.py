"""
An update of Immich: which ones are refused, and what is prepared before one
============================================================================

States of ``immich.app``. ``settings`` is what ``immich_settings.get`` returns. The rollback is that of
``immich_app.running``, which alone knows whether the new version serves.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import findings
from immich_host import identity, update
from immich_io import lock, update_record

__virtualname__ = "immich_update"

# Errors that make a state fail.
FAILURES = (CommandExecutionError, SaltInvocationError, update_record.DamagedError, OSError)


def __virtual__():
    if "pgsql_database.query_as" not in __salt__:
        return False, "immich_update needs the execution module pgsql_database: is psycopg2 in Salt's Python?"
    return __virtualname__


def possible(name, settings):
    """
    Check whether Immich can go from the current version to the one that the pillar declares. Changes nothing.

    Fails for an older version, for one that requires another version in between, and during a restore.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich can go to the version that is asked for:
          immich_update.possible:
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The version stays"}
    try:
        restore = lock.restore_under_way()
        if restore:
            return {**ret, "result": False, "comment": f"{restore} Nothing was changed"}
        plan = update.plan(settings, __salt__)
    except FAILURES as error:
        return {**ret, "result": False, "comment": f"{error}\nNothing was changed"}
    if not plan:
        return ret
    if plan["refusal"]:
        return {**ret, "result": False, "comment": f"{findings.sentence(plan['refusal'])}\nNothing was changed"}
    return {**ret, "comment": f"Immich can go from {plan['from']} to {plan['to']}"}


def prepared(name, settings):
    """
    Make sure that a verified backup of the database and a record for the rollback exist before an update.

    The old version keeps serving meanwhile. If the version does not change, nothing is done.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich's update is prepared:
          immich_update.prepared:
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The version stays"}
    try:
        # Asked anew: the images were downloaded since `possible` was checked, which can take an hour.
        plan = update.plan(settings, __salt__)
        under_way = _pending(settings)
        if (plan or under_way) and not __opts__["test"]:
            lock.take(__context__, "update")
        if not plan:
            return {**ret, "comment": _under_way(under_way)} if under_way else ret
        ret["changes"]["version"] = {"old": plan["from"], "new": plan["to"]}
        if plan["backup"]:
            ret["changes"]["backup"] = {"old": None, "new": "of the database, read back after it was written"}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": _sentence(plan, "would be")}
        record = update.prepare(settings, plan, __salt__)
    except FAILURES as error:
        advice = "Nothing was stopped, and the old version serves. Fix that and apply again"
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\n{advice}"}
    if record["backup"]:
        ret["changes"]["backup"]["new"] = record["backup"]
    return {**ret, "comment": _sentence(plan, "was")}


def _pending(settings):
    """The record of an update to the declared version that has not been completed, or None."""
    directory = identity.project_dir(settings)
    record = update_record.of_update(update_record.read(directory))
    return record if record and record["image"] == settings["server"]["image"] else None


def _under_way(record):
    return f"The update from {record['from']} to {record['to']} goes on, with the backup {record['backup']}"


def _sentence(plan, verb):
    if plan["backup"]:
        return f"The database {verb} backed up before Immich goes from {plan['from']} to {plan['to']}"
    return f"Nothing {verb} backed up before Immich goes from {plan['from']} to {plan['to']}"
