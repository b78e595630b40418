"""
The formula's own API key for Immich: a file that only root reads, and its key on the server
==============================================================================================
"""

import contextlib
import json
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import durable
from immich_core import accounts
from immich_io import api

FILE = Path("/var/lib/immich-formula/api-key.json")


def held(file=FILE):
    """
    Return the key of this host, ``{"id": …, "secret": …}``, or ``None`` if there is none.

    file
        Its file. Defaults to the formula's.

    Raises ``CommandExecutionError`` if the file cannot be read.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf8"))
        return {"id": str(found["id"]), "secret": str(found["secret"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "it is none of the formula's"
        raise CommandExecutionError(f"{file} cannot be read: {reason}. Remove it, then apply again") from None


def client(url, timeout=api.SECONDS, file=FILE, wait=0):
    """
    Return a client of the server that authenticates with the key, or ``None`` if this host has no key.

    url
        The server's address, without a path.
    timeout
        Seconds for an answer. Defaults to 30.
    file
        As of :py:func:`held`.
    wait
        Seconds to wait for a server that restarts. Defaults to 0.

    Raises ``CommandExecutionError`` as :py:func:`held`.
    """
    key = held(file)
    return api.Client(url, key["secret"], timeout, wait) if key else None


def required_client(url, file=FILE, wait=0):
    """
    Return a client as :py:func:`client` does.

    url, file, wait
        As of :py:func:`client`.

    Raises ``ApiError`` if this host has no key, and ``CommandExecutionError`` as :py:func:`held`.
    """
    found = client(url, file=file, wait=wait)
    if found is None:
        raise api.ApiError("The formula has no API key for Immich: set immich:admin, then apply immich.accounts")
    return found


def state(url, file=FILE, wait=0):
    """
    Return whether the server accepts the key: ``works``, ``refused``, or ``absent`` if this host has none.

    url, file, wait
        As of :py:func:`client`.

    Raises ``ApiError`` if that is not known, and ``CommandExecutionError`` as :py:func:`held`.
    """
    asking = client(url, file=file, wait=wait)
    if asking is None:
        return "absent"
    try:
        asking.api_keys()
        asking.users()
    except api.ApiError as error:
        # 403: the key lacks a permission, as one of an earlier version of the formula does.
        if error.status not in (401, 403):
            raise
        return "refused"
    return "works"


def make(asking, file=FILE):
    """
    Make a key, keep it on this host, and delete all others of its name: those that it replaces, and one whose run was
    killed before it could write it down.

    asking
        A client that has logged in, or authenticates with the former key.
    file
        As of :py:func:`held`.

    Raises ``ApiError`` and ``OSError``.
    """
    made = asking.create_key(accounts.KEY_NAME, accounts.PERMISSIONS)
    Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.write(Path(file), json.dumps(made) + "\n", 0o600)
    # By the new one, as the former may be among those.
    renewed = asking.with_key(made["secret"])
    for key in renewed.api_keys():
        if key["name"] == accounts.KEY_NAME and key["id"] != made["id"]:
            renewed.delete_key(key["id"])


def remove(url, file=FILE):
    """
    Delete the key on the server, then its file. Return whether it was deleted on the server: one that does not serve
    keeps a key that nobody knows any more.

    url, file
        As of :py:func:`client`.

    Raises ``OSError`` if the file cannot be removed.
    """
    deleted = False
    with contextlib.suppress(api.ApiError, CommandExecutionError):
        key = held(file)
        if key:
            api.Client(url, key["secret"]).delete_key(key["id"])
            deleted = True
    Path(file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the folder goes if nothing else is in it
        Path(file).parent.rmdir()
    return deleted
