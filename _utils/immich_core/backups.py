"""
Backups of Immich's database: where their files are, what a name says, and which ones are kept
===============================================================================================

The program that makes backups goes by this, and so do its list, restores and the doctor. Needs nothing but Python.
"""

import calendar
import re
import time

# The program's configuration, and what it runs when a backup has failed.
CONFIG = "/etc/immich-formula/backup.json"
HOOK = "/etc/immich-formula/backup-on-failure"
STAMP = "%Y%m%dT%H%M%SZ"
# What the name of a backup ends with in the name of the file that holds its SHA-256.
CHECKSUM = ".sha256"
_NAME = re.compile(r"immich_([0-9]{8}T[0-9]{6}Z)_([0-9A-Za-z.-]+)(?:_([a-z0-9_-]+)(\.empty)?)?\.dump")


def name(stamp, version, database, used):
    """
    Return the name of a backup. The database is in it: the next one in the same directory may be another.

    stamp
        When it was begun, as ``STAMP`` has it.
    version
        Of Immich, as ``v3.3.1``.
    database
        Name of the database.
    used
        Whether somebody has signed up in it.

    .. code-block:: python

        backups.name("20261124T203000Z", "v3.3.1", "immich", used=True)
    """
    return f"immich_{stamp}_{version}_{database}{'' if used else '.empty'}.dump"


def parsed(file_name):
    """
    Return what the name of a backup says: ``{"stamp", "moment": seconds since the epoch, "version", "database",
    "empty"}``, or None if it is none. The database is None where an older formula has made the backup.

    file_name
        Name of a file, without its directory.

    .. code-block:: python

        backups.parsed("immich_20261124T203000Z_v3.3.1_immich.dump")
    """
    found = _NAME.fullmatch(file_name)
    if not found:
        return None
    stamp, version, database, empty = found.groups()
    try:
        moment = calendar.timegm(time.strptime(stamp, STAMP))
    except ValueError:  # there is no such day
        return None
    return {"stamp": stamp, "moment": moment, "version": version, "database": database, "empty": bool(empty)}


def iso(moment):
    """
    Return a time as lists and messages show it: ``2026-11-24T20:30:00Z``.

    moment
        Seconds since the epoch.

    .. code-block:: python

        backups.iso(time.time())
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def former(database, names):
    """
    Return what Immich used before the restore that is at work: the database's name, and the stamp in it; or None.

    database
        Name of Immich's database.
    names
        Of the databases that there are.

    .. code-block:: python

        backups.former("immich", ["immich", "immich_before_20261124T203000Z"])
    """
    pattern = re.compile(rf"{re.escape(database)}_before_([0-9]{{8}}T[0-9]{{6}}Z)")
    found = sorted(each[1] for each in map(pattern.fullmatch, names) if each)
    return (f"{database}_before_{found[-1]}", found[-1]) if found else None


def alike(there, database, empty):
    """
    Return those of some backups that a new one takes the place of: of the same database, and as empty as that.

    there
        List of backups, each with ``database`` and ``empty``.
    database, empty
        Of the new one.

    .. code-block:: python

        backups.alike(there, "immich", empty=False)
    """
    return [each for each in there if each["database"] in (None, database) and each["empty"] == empty]


def expired(there, newest, keep, keep_days, now):
    """
    Return those of some backups that are no longer to be kept: never the one just made, nor the newest.

    there
        List of backups, newest first, each with ``name`` and ``time``, as :py:func:`iso` has it.
    newest
        Name of the one just made, which is not the newest where the clock was wrong.
    keep
        How many are kept.
    keep_days
        For how many days at most; 0 for any.
    now
        Seconds since the epoch.

    .. code-block:: python

        backups.expired(there, there[0]["name"], 14, 0, time.time())
    """
    oldest = iso(now - keep_days * 86400) if keep_days else ""
    return [
        backup
        for index, backup in enumerate(there)
        if index and backup["name"] != newest and (index >= keep or backup["time"] < oldest)
    ]


def moved(looks):
    """
    Return the tables that were there at each of some looks at a database, with other rows in between.

    looks
        List of dictionaries: the file that holds a table's rows, by the table.

    .. code-block:: python

        backups.moved([{"public.asset": "16399"}, {"public.asset": "16421"}])
    """
    return sorted(table for table in at_each(looks) if len({look[table] for look in looks}) > 1)


def at_each(looks):
    """
    Return the set of tables that were there at each of some looks.

    looks
        As for :py:func:`moved`.

    .. code-block:: python

        backups.at_each([{"public.asset": "16399"}, {}])
    """
    return set(looks[0]).intersection(*looks[1:])
