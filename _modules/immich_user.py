"""
The users as which Immich's containers run, and the owners of their folders
============================================================================

A container runs as ``UID:GID`` of the host. By default that is the current owner of its folder, and on a new
installation a system user of the formula's own. The content of the folders is untrusted, as the container writes it:
owners are changed without following symbolic links, and nothing that is mounted below a folder is changed.

``settings`` is what ``immich_settings.get`` returns. In the examples, ``SETTINGS`` holds the JSON of
``salt-call --local --out=json immich_settings.get``.
"""

import grp
import os
import pwd
import stat

from immich_core import file_tree, findings, progress

__virtualname__ = "immich_user"

ROOT = "0:0"
# Each container's part of the settings, and the part of the identity that is its user.
PARTS = {"server": "server_user", "machine_learning": "machine_learning_user"}
# What a new file system comes with.
INITIAL = {"lost+found"}
# The lookups by name and by number.
DATABASES = {"user": (pwd.getpwnam, pwd.getpwuid), "group": (grp.getgrnam, grp.getgrgid)}
SETID = stat.S_ISUID | stat.S_ISGID


def __virtual__():
    return __virtualname__


# -- which user ----------------------------------------


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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.decided None 60883 /srv/immich/upload
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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.owner /srv/immich/upload
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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.numbers 2000:2000
    """
    uid, _, gid = _whole(user).partition(":")
    # Salt's file states take the number 0 for nothing said, and would leave another owner alone.
    return {"user": int(uid) or "root", "group": int(gid) or "root"}


def folders(settings):
    """
    Return the folder that each container writes to, by its part of the settings; of the containers that run here.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.folders "$SETTINGS"
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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.accounts "$SETTINGS"
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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.obstacles "$SETTINGS"
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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.account immich-server
    """
    entries = {kind: _entry(by_name, name) for kind, (by_name, _) in DATABASES.items()}
    return {kind: entry and entry[2] for kind, entry in entries.items()}


# -- owners of files ----------------------------------------


def count(folder, user):
    """
    Return how many files and directories :py:func:`change_owner` would change, including the folder itself.

    folder
        Absolute path. A folder that does not exist has none.

    user
        The ``UID:GID`` of the new owner.

    Raises OSError.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.count /srv/immich/upload 60883:60883
    """
    if not os.path.isdir(folder):
        return 0
    ids = _ids(user)
    below = (held for *_, held in file_tree.below(folder))
    return sum(_differs(held, ids) for held in (os.stat(folder), *below))


def change_owner(folder, user):
    """
    Change the owner of a folder and of everything in it, and clear setuid and setgid bits of its files; return how many
    files and directories changed.

    The folder itself comes last, so that an interrupted run is completed by the next one. Symbolic links are not
    followed, their own owner changes; devices, and whatever is mounted below the folder, stay as they are.

    folder
        Absolute path. Nothing writes there meanwhile.

    user
        The ``UID:GID`` of the new owner.

    Raises OSError.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.change_owner /srv/immich/upload 60883:60883
    """
    total, done, ids = count(folder, user), 0, _ids(user)
    if not total:
        return 0
    tell = progress.now_and_then("immich-apply")
    for directory, name, _, held in file_tree.below(folder):
        if _differs(held, ids):
            _change(directory, name, held, ids)
            done += 1
            tell(f"Changing the owner of {folder} to {user}: {done} of {total} files")
    if _differs(os.stat(folder), ids):
        os.chown(folder, *ids)
        done += 1
    return done


def _ids(user):
    return tuple(map(int, user.split(":")))


def _differs(held, ids):
    if stat.S_ISBLK(held.st_mode) or stat.S_ISCHR(held.st_mode):
        return False
    return (held.st_uid, held.st_gid) != ids or _setid(held)


def _setid(held):
    """Whether a program runs with the rights of its owner or group. Directories with these bits are harmless."""
    return bool(stat.S_ISREG(held.st_mode) and held.st_mode & SETID)


def _change(directory, name, held, ids):
    if _setid(held):
        # By descriptor, as Linux changes the mode of a link's target alone.
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.chmod(f"/proc/self/fd/{file}", stat.S_IMODE(held.st_mode) & ~SETID)
        finally:
            os.close(file)
    os.chown(name, *ids, dir_fd=directory, follow_symlinks=False)


def mounts_of_others(folder, user):
    """
    Return the mount points below a folder that do not belong to a user.

    folder
        Absolute path.

    user
        The ``UID:GID``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.mounts_of_others /srv/immich/upload 60883:60883
    """
    points = file_tree.mounts_below(folder)
    return [point for point in points if _differs(os.stat(point), _ids(user))]


def open_to_others(folder):
    """
    Return whether another user of this host than root may run a setuid program that is in a folder: each directory of
    its path can be searched by everybody, by its group or by its owner, other than root's, and the file system is not
    mounted with ``nosuid``. Access control lists are not looked at.

    folder
        Absolute path. A folder that does not exist is not open.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_user.open_to_others /srv/immich/upload
    """
    path = os.path.realpath(folder)
    try:
        if os.statvfs(path).f_flag & os.ST_NOSUID:
            return False
        while _lets_others_in(os.stat(path)):
            if path == "/":
                return True
            path = os.path.dirname(path)
    except OSError:
        pass
    return False


def _lets_others_in(held):
    ways = stat.S_IXOTH | (stat.S_IXGRP if held.st_gid else 0) | (stat.S_IXUSR if held.st_uid else 0)
    return bool(held.st_mode & ways)
