"""
What bounds Valkey's memory and scripts
=======================================
"""

from immich_core import findings

# What a server without a memory limit gets: a part of the host's memory, and enough for a million jobs, of which each
# takes 340 bytes (measured on Valkey 8.1, 9.1 and Redis 7.0). A full server refuses BullMQ's own bookkeeping too.
MEMORY_PART, LEAST_MEMORY = 8, 512 * 1024**2
# BullMQ's jobs have no expiry: a server that evicts loses them.
POLICY = "noeviction"
UNITS = {"m": 1024**2, "g": 1024**3}


def limits(pipeline, connection=None):
    """
    What bounds the memory and the scripts of a server, and how much memory its data takes.

    ``{"used": bytes, "limit": bytes or 0, "policy": name, "busy_reply_threshold": milliseconds}``

    pipeline
        The function ``valkey_acl.pipeline``, which asks the server and raises if it cannot be asked.
    connection
        As it takes it.
    """
    commands = [["INFO", "memory"], ["CONFIG", "GET", "busy-reply-threshold"]]
    info, threshold = pipeline(commands, connection=connection)
    held = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return {
        "used": int(held["used_memory"]),
        "limit": int(held["maxmemory"]),
        "policy": held["maxmemory_policy"],
        "busy_reply_threshold": int(threshold[1]),
    }


def refusal(maxmemory, held):
    """
    The finding that a server's memory cannot be bounded so, or None if it can: it would refuse to write.

    maxmemory
        The limit, in the form of ``512m`` or ``2g``.
    held
        What :py:func:`limits` returns.
    """
    desired = int(maxmemory[:-1]) * UNITS[maxmemory[-1]]
    # A server that has no larger limit now is full already: Immich's doing must not keep an apply from running.
    if desired > held["used"] or 0 < held["limit"] <= desired:
        return None
    seen = (
        f"is {maxmemory}, and this Valkey holds {held['used'] / UNITS['m']:.0f}m already: it would refuse every write"
    )
    remedy = "set a larger limit, or remove data from it"
    return findings.finding("valkey-memory-limit", "Valkey memory", seen, remedy, "immich:valkey:maxmemory")


def directives(maxmemory, held, host_megabytes):
    """
    The directives that bound a server's memory; none where it keeps the limit that it has.

    maxmemory
        The limit, in the form of ``512m`` or ``2g``. None: a server without a limit gets an eighth of the host's
        memory, but at least 512 MB and twice what its data takes, and a server with a limit keeps that.
    held
        What :py:func:`limits` returns.
    host_megabytes
        The host's memory.
    """
    if maxmemory is not None:
        return _bounded(f"{maxmemory}b")
    if held["limit"]:
        return {}
    part = host_megabytes * UNITS["m"] // MEMORY_PART
    return _bounded(f"{max(part, LEAST_MEMORY, 2 * held['used']) // UNITS['m']}mb")


def _bounded(limit):
    # The policy first: with a limit and another one, the server would evict keys at once.
    return {"maxmemory-policy": POLICY, "maxmemory": limit}
