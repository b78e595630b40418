"""
Settings of the PostgreSQL server for Immich: their values, and what becomes of those that were there
======================================================================================================

The values are those of Immich's own image of PostgreSQL, ``postgresql.ssd.conf`` and ``postgresql.hdd.conf`` of
immich-app/base-images, on a host with 4 GiB of memory; what is kept in memory grows with the host's.
"""

import math

PROFILES = ("none", "ssd", "hdd")
# For each GiB of memory, the least and the most, in MiB.
_SHARED_BUFFERS, _WORK_MEM = (128, 128, 2048), (4, 4, 64)
# Since PostgreSQL 15 wal_compression names its way, and `on` is shown as this one.
_PGLZ_SINCE = 15
# A disk without heads reads anywhere as fast, and many blocks at once.
_OF_PROFILE = {"ssd": {"random_page_cost": "1.2", "effective_io_concurrency": "200"}, "hdd": {}}


def values(profile, memory, major=_PGLZ_SINCE):
    """
    Return the server's settings for a profile, as ``{name: value}``.

    profile
        ``ssd``, ``hdd`` or ``none``.
    memory
        The host's, in MiB. Whole GiB count, so that the values stay when a virtual machine gives some MiB back.
    major
        Version of the server, such as 17. Defaults to one that is 15 or newer.

    .. code-block:: python

        postgres_tuning.values("ssd", 7952)["shared_buffers"]
    """
    if profile == "none":
        return {}
    return {
        "shared_buffers": _sized(memory, *_SHARED_BUFFERS),
        "work_mem": _sized(memory, *_WORK_MEM),
        "max_wal_size": "5GB",
        "wal_compression": "pglz" if major >= _PGLZ_SINCE else "on",
        **_OF_PROFILE[profile],
    }


def _sized(memory, each, least, most):
    return f"{min(max(math.ceil(memory / 1024) * each, least), most)}MB"


def names(desired, record):
    """
    Return the settings that :py:func:`planned` has to know the current values of.

    desired, record
        As for :py:func:`planned`.

    .. code-block:: python

        postgres_tuning.names(postgres_tuning.values("hdd", 4096), {})
    """
    return sorted({*desired, *record})


def planned(desired, record, current, is_set):
    """
    Return what to set, and what to record of it: ``(settings, record)``.

    A setting that is no longer desired gets the value back that ALTER SYSTEM had given it before, unless it was changed
    since: then it stays as it is.

    desired
        What :py:func:`values` returns.
    record
        The settings that the formula has set: ``{name: {"set": value, "before": value or None}}``.
    current
        What ``pgsql_config.get`` returns of :py:func:`names`.
    is_set
        Function that returns whether a setting's current value, by its name, is a value.

    .. code-block:: python

        settings, record = postgres_tuning.planned(desired, record, current, is_set)
    """
    kept = {
        name: {"set": value, "before": record[name]["before"] if name in record else _by_alter_system(current[name])}
        for name, value in desired.items()
    }
    former = {
        name: held["before"] for name, held in record.items() if name not in desired and is_set(name, held["set"])
    }
    return {**desired, **former}, kept


def _by_alter_system(held):
    return held["persisted"] if held["persisted"] != held["below"] else None
