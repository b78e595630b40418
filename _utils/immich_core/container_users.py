"""
The users as which Immich's containers run
===========================================

A container runs as ``UID:GID`` of the host. By default that is the current owner of its folder, and on a new
installation a system user of the formula's own. ``settings`` is what ``immich_settings.get`` returns.
"""

import grp
import os
import pwd

from immich_core import findings

ROOT = "0:0"
# What a new file system comes with.
INITIAL = {"lost+found"}
# The lookups by name and by number.
DATABASES = {"user": (pwd.getpwnam, pwd.getpwuid), "group": (grp.getgrnam, grp.getgrgid)}


def decided(user, own, folder, former=None):
    """
    Return the ``UID:GID`` as which a container runs.

    user
        What the pillar says: ``UID:GID``, ``root``, ``own`` or None.

    own
        Number of the formula's own user and group for this container.

    folder
        The folder that the container writes to. It need not exist.

    former
        The container's current user on this host, if it is known. Default: None.

    Without a user in the pillar, the current one stays, or else the folder's owner. For a folder that does not exist,
    or is empty and root's, it is the formula's own.
    """
    own = f"{own}:{own}"
    said = {"own": own, "root": ROOT}.get(user, user) or _whole(former) or owner(folder) or own
    return ":".join(str(int(number)) for number in said.split(":"))


def _whole(user):
    """A user of the record, without the second one that it names while owners are being changed."""
    return user and user.partition(",")[0]


def owner(folder):
    """
    Return the ``UID:GID`` of a folder's owner, or None if the folder does not exist, or is empty and root's.

    folder
        Absolute path.
    """
    try:
        held = os.stat(folder)
        # Only root's own is looked into: a network share may let root see whose a folder is, and no more.
        if held.st_uid == 0 and set(os.listdir(folder)) <= INITIAL:
            return None
    except OSError:
        return None
    return f"{held.st_uid}:{held.st_gid}"


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
    Return the folder that each container writes to, by its part of the settings; of the containers that run here.

    settings
        The formula's settings.
    """
    found = {"server": settings["upload_location"]}
    if settings["machine_learning"]["enabled"]:
        found["machine_learning"] = settings["machine_learning"]["cache_location"]
    return found


def accounts(settings):
    """
    Return the formula's own users that this installation needs, as a list of ``{"name": …, "id": …}``.

    settings
        The formula's settings.
    """
    return [settings[part]["own_user"] for part in _own(settings)]


def _own(settings):
    return [part for part in folders(settings) if settings[part]["user"] == _pair(settings[part]["own_user"]["id"])]


def _pair(number):
    return f"{number}:{number}"


def obstacles(settings):
    """
    Return where the name or number of a user of the formula's own is taken on this host, as findings
    (``immich_core.findings``) with the path in the pillar.

    settings
        The formula's settings.
    """
    return [found for part in _own(settings) for found in _taken(part, settings[part]["own_user"])]


def _taken(part, own_user):
    name, number = own_user["name"], own_user["id"]
    for kind, (by_name, by_number) in DATABASES.items():
        named, numbered = _entry(by_name, name), _entry(by_number, number)
        if named and named[2] != number:
            seen = f"this host has a {kind} {name} with the number {named[2]}"
            path = f"immich:{part}:own_user:name"
            yield findings.finding("user-name-taken", "pillar", seen, "set another name", path)
        if numbered and numbered[0] != name:
            seen = f"{number} is the number of the {kind} {numbered[0]} on this host"
            path = f"immich:{part}:own_user:id"
            yield findings.finding("user-number-taken", "pillar", seen, "set another number", path)


def _entry(function, key):
    """The entry of a database as ``(name, password, number, …)``, or None."""
    try:
        return function(key)
    except KeyError:
        return None


def account(name):
    """
    Return the numbers of the user and of the group of a name on this host: ``{"user": …, "group": …}``, each None if
    there is none.

    name
        The name.
    """
    entries = {kind: _entry(by_name, name) for kind, (by_name, _) in DATABASES.items()}
    return {kind: entry and entry[2] for kind, entry in entries.items()}
