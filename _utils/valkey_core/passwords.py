"""
Passwords: where they are declared, and the SHA-256 that the server holds of them
=================================================================================
"""

import hashlib
import re

from valkey_core.errors import InvalidArgumentError, ServerError

SOURCES = ("password", "password_pillar", "password_file")


def sha256(password):
    """Return the SHA-256 of a password. Raises ``InvalidArgumentError`` for one that is empty or no string."""
    if not isinstance(password, str) or not password:
        raise InvalidArgumentError("A password must be a string that is not empty.")
    return hashlib.sha256(password.encode()).hexdigest()


def checked_hash(text):
    """Return a SHA-256 in lower case and without its sign. Raises ``InvalidArgumentError`` for what is none."""
    text = str(text).lstrip("#").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InvalidArgumentError("A password hash must be 64 hexadecimal digits (SHA-256).")
    return text


def from_pillar(path, lookup):
    """
    Return the passwords at a path of the pillar, a list.

    path
        Path like ``alice:password``, of a password or a list of them.

    lookup
        A function that returns what is at a path, or None.

    Raises ``InvalidArgumentError`` where there is none.
    """
    found = lookup(path)
    found = found if isinstance(found, list) else [found]
    if not found or not all(isinstance(one, str) and one for one in found):
        raise InvalidArgumentError(f"The pillar has no password at {path}.")
    return found


def from_file(path):
    """Return the password in a file. Raises ``ServerError`` where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            password = stream.read().rstrip("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise ServerError(f"The password file {path} cannot be read.") from err
    if not password:
        raise ServerError(f"The password file {path} is empty.")
    return password


def declared(user, lookup):
    """
    Return the SHA-256 of each password that is declared for a user, or None if none is.

    user
        A declared user: a dictionary with the arguments of ``valkey_acl.set``.

    lookup
        As for ``from_pillar``.
    """
    if all(user.get(source) is None for source in (*SOURCES, "password_hash")):
        return None
    hashes = {sha256(password) for password in as_list(user.get("password"))}
    for path in as_list(user.get("password_pillar")):
        hashes.update(sha256(password) for password in from_pillar(path, lookup))
    hashes.update(sha256(from_file(path)) for path in as_list(user.get("password_file")))
    hashes.update(checked_hash(one) for one in as_list(user.get("password_hash")))
    return hashes


def as_list(value):
    """Return a list of what is one thing, a list or nothing."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
