"""
Small files that are there whole or not at all
==============================================

Records of what is under way or installed are read after a crash: half of one would be worse than none.
"""

import os


def write(path, text, mode, owner=None):
    """
    Write a file: all of it or nothing, also when the power fails or the disk is full.

    path
        The file, a ``pathlib.Path``.
    text
        What it is to hold.
    mode
        Its permissions, a number.
    owner
        User and group, two numbers. Defaults to those of this process.

    Raises ``OSError`` that says which file cannot be written, and why. What was there before stays then.

    .. code-block:: python

        durable.write(Path("/var/lib/immich-formula/update.json"), "{}", 0o600)
    """
    # A name of its own for each file: what a killed write has left is overwritten by the next.
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "w", encoding="utf8") as file:
            os.fchmod(file.fileno(), mode)
            if owner:
                os.fchown(file.fileno(), *owner)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
