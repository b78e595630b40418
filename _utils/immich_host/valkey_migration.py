"""
What becomes of Immich's queues and of its former user when the pillar names others in Valkey
==============================================================================================
"""

from immich_core.valkey_users import LOGIN

# All keys that Immich has.
QUEUES = "immich_bull:*"


def move_queues(settings, old, new, salt):
    """
    Move Immich's queues from one database number to another, and return how many keys that were.

    A key of the same name in the new one is of an earlier time, and is replaced. Immich is stopped.

    settings
        The formula's settings.
    old, new
        Database numbers.
    salt
        Salt's execution functions by name (``__salt__``).

    Raises CommandExecutionError if the server cannot be asked, or its administrator may not move keys.
    """
    # The formula's own user has no keys.
    connection = salt["immich_valkey.logins"](settings, own=False)
    old, new, cursor, moved = str(old), str(new), "0", 0
    # A connection is shared, so each batch leaves it in the database where it found it.
    back = ["SELECT", "0"]
    while True:
        scan = ["SCAN", cursor, "MATCH", QUEUES, "COUNT", "1000"]
        _, (cursor, keys), _ = salt["valkey_acl.pipeline"]([["SELECT", old], scan, back], connection=connection)
        steps = [(["SELECT", new], ["DEL", key], ["SELECT", old], ["MOVE", key, new]) for key in keys]
        commands = [command for step in steps for command in step]
        if commands:
            salt["valkey_acl.pipeline"]([*commands, back], connection=connection)
        moved += len(keys)
        if cursor == "0":
            return moved


def remove_former_user(settings, name, salt):
    """
    Delete an ACL user that Immich no longer logs in as, unless the pillar declares it; return whether it was.

    settings
        The formula's settings.
    name
        Name of the user.
    salt
        Salt's execution functions by name (``__salt__``).

    Raises CommandExecutionError if the server cannot be asked.
    """
    connection = salt["immich_valkey.logins"](settings)
    declared = [user["name"] for user in salt["immich_valkey.users"](settings)]
    if name in (*declared, LOGIN, "default") or salt["valkey_acl.get"](name, connection=connection) is None:
        return False
    salt["valkey_acl.delete"](name, connection=connection)
    return True
