"""
Walking a folder that others can write to
=========================================

Immich's container can put anything into its folders: symbolic links, names of any bytes, directories without end. So a
walk goes by descriptors of directories, follows no link, enters nothing that is mounted below, and goes no deeper than
anything of Immich's. Needs nothing but Python.
"""

import errno
import os
import re
import stat

# Immich's own files lie six levels deep, those of a storage template a few more. Each level takes two descriptors.
DEEPEST = 100
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOUNTINFO = "/proc/self/mountinfo"


def below(top):
    """
    Return an iterator over all that is below a folder, each as ``(directory, name, path, status)``.

    ``directory`` is a descriptor of the directory that has the ``name``, good until the next step; ``path`` is for
    people; ``status`` is that of ``os.lstat``. A directory comes before what is in it. What is mounted below is left
    out, and so is what vanishes meanwhile.

    top
        Absolute path of the folder, which may be a symbolic link.

    Raises ``OSError`` if a directory cannot be read, or is nested more than 100 levels deep.

    .. code-block:: python

        for directory, name, path, status in file_tree.below("/srv/immich/upload"):
            print(path)
    """
    top = os.path.realpath(top)
    mounted = set(mounts_below(top))
    levels = [_Level(os.open(top, DIRECTORY), top)]
    try:
        while levels:
            name = levels[-1].next_name()
            if name is None:
                levels.pop().close()
                continue
            here, path = levels[-1].descriptor, os.path.join(levels[-1].path, name)
            try:
                held = os.stat(name, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if path in mounted:
                continue
            yield here, name, path, held
            if stat.S_ISDIR(held.st_mode):
                levels += _entered(here, name, path, len(levels))
    finally:
        for level in levels:
            level.close()


class _Level:
    """A directory that is being walked through."""

    def __init__(self, descriptor, path):
        self.descriptor = descriptor
        self.path = path
        self.entries = os.scandir(descriptor)

    def next_name(self):
        entry = next(self.entries, None)
        return entry and entry.name

    def close(self):
        self.entries.close()
        os.close(self.descriptor)


def _entered(parent, name, path, depth):
    """The level of a directory, in a list, which is empty if something else is there by now."""
    if depth == DEEPEST:
        raise OSError(errno.ELOOP, f"nested more than {DEEPEST} directories deep, which Immich never creates", path)
    try:
        return [_Level(os.open(name, DIRECTORY, dir_fd=parent), path)]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise


def mounts_below(top):
    """
    Return the paths at which something is mounted below a folder.

    top
        Absolute path of the folder.

    .. code-block:: python

        file_tree.mounts_below("/srv/immich/upload")
    """
    prefix = os.path.realpath(top).rstrip("/") + "/"
    with open(MOUNTINFO, encoding="utf8", errors="surrogateescape") as file:
        points = [_unescaped(line.split(" ")[4]) for line in file]
    return [point for point in dict.fromkeys(points) if point.startswith(prefix)]


def _unescaped(text):
    """A path as proc_pid_mountinfo(5) has it, with space, tab, newline and backslash as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
