"""
The lock of backup, restore, update and removal
===============================================

The states of ``immich.bootstrap.alone``.
"""

from immich_io import lock

__virtualname__ = "immich_lock"


def __virtual__():
    return __virtualname__


def held(name, what="removal"):
    """
    Make sure that no backup, restore or update is running on this host, and that none starts before this run has
    ended. A dry run only checks.

    name
        What the state is about, for the output.

    what
        What the lock is held for, in one word, which is shown to those that wait for it. Defaults to ``removal``.

    .. code-block:: yaml

        No backup, restore or update is under way:
          immich_lock.held:
            - order: first
            - failhard: true
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Nothing else is under way"}
    try:
        if not __opts__["test"]:
            lock.take(__context__, what)
            return ret
        holder = lock.under_way()
    except BlockingIOError as error:
        return {**ret, "result": False, "comment": f"{error} Nothing was changed"}
    except OSError as error:
        return {**ret, "result": False, "comment": f"The lock cannot be taken, and nothing was changed: {error}"}
    if holder:
        return {**ret, "result": False, "comment": f"{lock.sentence(holder)} Nothing was changed"}
    return ret
