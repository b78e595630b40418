"""
System users of the formula's own, as which Immich's containers run
===================================================================
"""

from immich_io import host_users

__virtualname__ = "immich_system_user"


def __virtual__():
    return __virtualname__


def present(name, number):
    """
    Make sure that a system user of the formula's own exists, with a group of the same name and number, without a home
    directory and a login shell.

    name
        Name of user and group.

    number
        Their number.

    .. code-block:: yaml

        Immich's user immich-server is present:
          immich_system_user.present:
            - name: immich-server
            - number: 60883
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"The user {name} is present"}
    if host_users.account(name) == {"user": number, "group": number}:
        return ret
    ret["changes"] = {name: {"old": None, "new": number}}
    if __opts__["test"]:  # Salt's own states of users name no changes in a dry run
        return {**ret, "result": None, "comment": f"The user {name} would be created, with the number {number}"}
    group = __states__["group.present"](name, gid=number)
    nobodys = {"home": "/nonexistent", "createhome": False, "shell": "/usr/sbin/nologin", "system": True}
    for made in (group, group["result"] and __states__["user.present"](name, uid=number, gid=number, **nobodys)):
        if not made["result"]:
            return {**ret, "result": False, "changes": {}, "comment": made["comment"]}
    return {**ret, "comment": f"The user {name} was created, with the number {number}"}


def absent(name, number):
    """
    Make sure that a system user of the formula's own is gone, with the group of its name.

    A user of the same name with another number is not the formula's, and stays.

    name
        Name of user and group.

    number
        Their number.

    .. code-block:: yaml

        Immich's user immich-server is absent:
          immich_system_user.absent:
            - name: immich-server
            - number: 60883
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"There is no user {name} of the formula's"}
    held = host_users.account(name)
    if set(held.values()) - {number, None} or not any(held.values()):
        return ret
    ret["changes"] = {name: {"old": number, "new": None}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"The user {name} would be removed"}
    for kind in ("user", "group"):
        # userdel removes the group too, where login.defs says so.
        if host_users.account(name)[kind] is not None:
            __salt__[f"{kind}.delete"](name)
    if any(host_users.account(name).values()):
        return {**ret, "result": False, "changes": {}, "comment": f"The user {name} could not be removed"}
    return {**ret, "comment": f"The user {name} was removed"}
