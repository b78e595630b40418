"""
The users as which Immich's containers run
===========================================

A container runs as ``UID:GID`` of the host. By default that is the current owner of its folder, and on a new
installation a system user of the formula's own. ``settings`` is what ``immich_settings.get`` returns.
"""

from immich_core import storage

ROOT = "0:0"


def decided(user, own, owner, former=None):
    """
    Return the ``UID:GID`` as which a container runs.

    user
        What the pillar says: ``UID:GID``, ``root``, ``own`` or None.

    own
        Number of the formula's own user and group for this container.

    owner
        Function that returns the owner of the folder that the container writes to, or None if it does not exist, or is
        empty and root's. Called only if neither pillar nor record says the user.

    former
        The container's current user on this host, if it is known. Default: None.

    Without a user in the pillar, the current one stays, or else the folder's owner. For a folder that does not exist,
    or is empty and root's, it is the formula's own.
    """
    own = f"{own}:{own}"
    said = {"own": own, "root": ROOT}.get(user, user) or _whole(former) or owner() or own
    return ":".join(str(int(number)) for number in said.split(":"))


def _whole(user):
    """A user of the record, without the second one that it names while owners are being changed."""
    return user and user.partition(",")[0]


def numbers(user):
    """
    Return a ``UID:GID`` as Salt's file states want it: ``{"user": …, "group": …}``.

    user
        The text, also as the record has it.
    """
    uid, _, gid = _whole(user).partition(":")
    # Salt's file states take the number 0 for nothing said, and would leave another owner alone.
    return {"user": int(uid) or "root", "group": int(gid) or "root"}


def folders(settings):
    """
    Return the folders that each container writes to, by its part of the settings, the one that has the others first; of
    the containers that run here.

    settings
        The formula's settings.
    """
    found = {"server": [settings["upload_location"], *storage.elsewhere(settings).values()]}
    if settings["machine_learning"]["enabled"]:
        found["machine_learning"] = [settings["machine_learning"]["cache_location"]]
    return found


def accounts(settings):
    """
    Return the formula's own users that this installation needs, as a list of ``{"name": …, "id": …}``.

    settings
        The formula's settings.
    """
    return [settings[part]["own_user"] for part in own_parts(settings)]


def own_parts(settings):
    """
    Return the parts of the settings whose container runs as the formula's own user.

    settings
        The formula's settings.
    """
    return [part for part in folders(settings) if settings[part]["user"] == _pair(settings[part]["own_user"]["id"])]


def _pair(number):
    return f"{number}:{number}"
