"""
What a container's user may do with a file, by its owner and mode
=================================================================
"""

import os

from immich_diagnosis.check import FAILED


def may_use(paths, user, setting):
    """Rows of the first path that a container's user cannot write. It has no capabilities: root is no exception."""
    for path in paths:
        held = os.stat(path)
        if not may(held, *user_ids(user), 7 if os.path.isdir(path) else 6):
            owner = f"{held.st_uid}:{held.st_gid}"
            seen = (
                f"{path} belongs to {owner}, mode {held.st_mode & 0o7777:04o}, and the container's user is {user or 0}"
            )
            return [(FAILED, seen, f"{setting}: '{owner}'")]
    return []


def user_ids(user):
    """Numbers of user and group of a container's `user`."""
    uid, _, gid = str(user or "0:0").partition(":")
    return int(uid), int(gid or uid)


def may(held, uid, gid, desired):
    """Whether the mode of a file gives a user all of read (4), write (2) and search (1)."""
    shift = 6 if held.st_uid == uid else 3 if held.st_gid == gid else 0
    return held.st_mode >> shift & desired == desired
