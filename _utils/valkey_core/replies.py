"""
Replies of the server
=====================
"""

import re

from valkey_core.errors import ServerError

MINIMUM = {"Valkey": (7, 2), "Redis": (7, 0)}
# db=, alldbs and resetdbs: https://github.com/valkey-io/valkey/pull/2309. Redis has nothing like it.
DATABASE_RULES = (9, 1)


def check(reply, sentence):
    """Raise ``ServerError`` with a sentence if a reply is an error."""
    if isinstance(reply, Exception):
        raise ServerError(f"{sentence}: {reply}.")


def pairs(flat):
    """Return a dictionary of a reply that is one, or a list of keys and values in turn."""
    if isinstance(flat, dict):
        return flat
    return dict(zip(flat[::2], flat[1::2]))


def info_fields(info):
    """Return the fields of a reply of INFO."""
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)


def product(info, where):
    """
    Return product and version of a server.

    info
        Its fields, as of ``info_fields``.

    where
        The server's name in messages.

    Raises ``ServerError`` for one that is too old.
    """
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if numbers(version) < MINIMUM[name]:
        raise ServerError(
            f"{name} {version} at {where.split(' at ', 1)[1]} is too old: Valkey 7.2 or Redis 7.0 is the least."
        )
    return {"product": name, "version": version}


def knows_databases(server):
    """Return whether the rules of a server, as of ``product``, have databases."""
    return server["product"] == "Valkey" and numbers(server["version"]) >= DATABASE_RULES


def numbers(version):
    """Return the first two numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
