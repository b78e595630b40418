"""
Owners of the files that a container writes
============================================

The content of its folder is untrusted: owners are changed without following symbolic links, and nothing that is mounted
below a folder is changed.
"""

import os
import stat

from immich_io import file_tree, progress

SETID = stat.S_ISUID | stat.S_ISGID


def count(folder, user):
    """
    Return how many files and directories :py:func:`change_owner` would change, including the folder itself.

    folder
        Absolute path. A folder that does not exist has none.

    user
        The ``UID:GID`` of the new owner.

    Raises OSError.
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
