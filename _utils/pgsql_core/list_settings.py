"""
Server settings whose value is a list
=====================================
"""

import ipaddress
import re

# GUC_LIST_INPUT in guc_tables.c of PostgreSQL 17.
LIST_SETTINGS = {
    "createrole_self_grant",
    "datestyle",
    "listen_addresses",
    "local_preload_libraries",
    "log_destination",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
    "wal_consistency_checking",
}
# Of these, the ones stored with their elements quoted (GUC_LIST_QUOTE); they cannot hold an empty list.
LIBRARY_SETTINGS = {"local_preload_libraries", "session_preload_libraries", "shared_preload_libraries"}


def entries_of(value):
    """Split a value as PostgreSQL does: commas, and double quotes around what holds one."""
    if isinstance(value, (list, tuple)):
        return [str(entry) for entry in value]
    entries = re.findall(r'\s*("(?:[^"]|"")*"|[^,"]*)\s*(?:,|$)', value or "")
    entries = [entry.strip() for entry in entries]
    return [entry[1:-1].replace('""', '"') if entry.startswith('"') else entry for entry in entries if entry]


def library(entry):
    """Return the name of a library, without what may or may not stand around it."""
    return entry.removeprefix("$libdir/").removesuffix(".so")


def including(name, current, entries):
    """
    Return a list setting that has what it had and all entries asked for.

    In ``listen_addresses``, ``*`` contains every address, ``0.0.0.0`` every one of IPv4 and ``::`` of IPv6.
    Libraries are the same with and without ``.so``.

    name
        Name of the setting.

    current
        What it holds, as PostgreSQL stores it.

    entries
        List of what it shall contain.
    """
    held = entries_of(current)
    return held + [entry for entry in entries if not _contains(name, held, entry)]


def excluding(name, current, entries):
    """
    Return a list setting without some entries.

    name
        Name of the setting.

    current
        What it holds, as PostgreSQL stores it.

    entries
        List of what it shall not contain.
    """
    same = library if name.lower() in LIBRARY_SETTINGS else str
    unwanted = {same(entry) for entry in entries}
    return [entry for entry in entries_of(current) if same(entry) not in unwanted]


def _contains(name, held, entry):
    if name.lower() in LIBRARY_SETTINGS:
        return library(entry) in map(library, held)
    if name.lower() != "listen_addresses":
        return entry in held
    version = _ip_version(entry)
    wildcards = {4: ("*", "0.0.0.0"), 6: ("*", "::")}.get(version, ("*",))
    return entry in held or any(wildcard in held for wildcard in wildcards)


def _ip_version(text):
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None
