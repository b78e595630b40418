"""
Small files that are there whole or not at all
==============================================

Records and configuration are read after a crash: half of a file would be worse than none.
"""

import contextlib
import os
import shutil
from pathlib import Path


def write(path, text, mode, owner=None):
    """
    Write a file: all of it or nothing, also when the power fails or the disk is full.

    path
        The file.
    text
        What it is to hold. What was read with ``surrogateescape`` is written as it was.
    mode
        Its permissions, a number.
    owner
        Numbers of its user and its group. Defaults to those of the process.

    Raises ``OSError`` that says which file cannot be written, and why. What was there before stays then.

    .. code-block:: python

        durable.write("/var/lib/immich-formula/update.json", "{}", 0o600)
    """
    _put(Path(path), text, mode, owner)


def replace(path, text):
    """
    Write a file that is there, as :py:func:`write` does. It keeps its owner, its permissions and its labels, and where
    it is a link, that stays one.

    path, text
        As for :py:func:`write`, which says what is raised.

    .. code-block:: python

        durable.replace("/etc/valkey/valkey.conf", "port 6379\\n")
    """
    path = Path(os.path.realpath(path))
    held = os.stat(path)
    _put(path, text, held.st_mode & 0o7777, (held.st_uid, held.st_gid), like=path)


def _put(path, text, mode, owner, like=None):
    # A name of its own for each file: what a killed write has left is overwritten by the next.
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        # Whoever else may write into the folder must not have a link there that is followed.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf8", errors="surrogateescape") as file:
            if owner:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        if like:
            shutil.copystat(like, part)
            os.utime(part)
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
