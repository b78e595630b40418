"""
Users, groups and owners of folders on this host
=================================================

Whose a folder of Immich's containers is, and whether the names and numbers of the formula's own users are free.
"""

import grp
import os
import pwd

from immich_core import container_users, findings

# What a new file system comes with.
INITIAL = {"lost+found"}
# The lookups by name and by number.
DATABASES = {"user": (pwd.getpwnam, pwd.getpwuid), "group": (grp.getgrnam, grp.getgrgid)}


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


def obstacles(settings):
    """
    Return where the name or number of a user of the formula's own is taken on this host, as findings
    (``immich_core.findings``) with the path in the pillar.

    settings
        The formula's settings.
    """
    return [found for part in container_users.own_parts(settings) for found in _taken(part, settings[part]["own_user"])]


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
