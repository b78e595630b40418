"""
What an installation is made of, and what becomes of it when the pillar names something else
=============================================================================================

Asks nobody: the record and the host are in ``_modules/immich_identity.py``.
"""

import shlex

from immich_core import container_users

SERVER = "immich-server"
# Each part of an installation, and where the pillar has it.
PARTS = {
    "server": "immich:postgres:host",
    "database": "immich:postgres:database",
    "role": "immich:postgres:user",
    "library": "immich:upload_location",
    "network": "immich:network",
    "project_dir": "immich:podman:projects_dir",
    "valkey_database": "immich:valkey:database",
    "valkey_user": "immich:valkey:user",
    "server_user": "immich:server:user",
    "machine_learning_user": "immich:machine_learning:user",
}
# The parts that own a folder, with the section of the settings and the service of each.
OWNERS = {
    "server_user": ("server", SERVER),
    "machine_learning_user": ("machine_learning", "immich-machine-learning"),
}
# The parts that migrate while Immich is stopped. The others need no more than a new record.
MIGRATED = ("network", "project_dir", "role", "valkey_database", *OWNERS)
# What clean leaves on the host.
KEPT = ("server", "database", "role", "library")


def declared(settings):
    """
    Return the parts of the installation that the settings describe, by name.

    settings
        The formula's settings.
    """
    postgres, valkey = settings["postgres"], settings["valkey"]
    written = container_users.folders(settings)
    return {
        "server": f"{postgres['host']}:{postgres['port']}",
        "database": postgres["database"],
        "role": postgres["user"],
        "library": settings["upload_location"],
        "network": settings["network"]["name"],
        "project_dir": settings["project_dir"],
        "valkey_database": valkey["database"],
        "valkey_user": valkey["user"],
        **{part: settings[key]["user"] for part, (key, _) in OWNERS.items() if key in written},
    }


def compare(there, wanted, facts):
    """
    Return what becomes of an installation when the pillar describes another one. Asks nobody.

    ``{"refusals": [sentences], "changes": {part: {"old": …, "new": …}}}``; ``changes`` has the parts that differ.

    there, wanted
        What ``immich_identity.known`` and :py:func:`declared` return.

    facts
        What ``immich_identity`` has looked up of this host.
    """
    changes = {
        part: {"old": there[part], "new": new}
        for part, new in wanted.items()
        if there.get(part) is not None and there[part] != new
    }
    refusals = [
        _library_refusal(there.get("library"), wanted.get("library"), facts),
        _database_refusal(there, wanted, facts),
        _network_refusal(changes.get("network"), facts),
        *(_mount_refusal(part, path, facts) for part in OWNERS if part in changes for path in facts["mounts"][part]),
    ]
    return {"refusals": [refusal for refusal in refusals if refusal], "changes": changes}


def _library_refusal(before, path, facts):
    moved_from = facts.get("library_moved_from")
    if before is None or (before == path and facts["library_is_there"]):
        return None
    if before == path:
        return (
            f"immich:upload_location: {path} was this installation's library and is gone: a mount missing? If it is "
            f"really to start empty, create the folder by hand"
        )
    if moved_from == before:
        missing = f"immich:upload_location: {path} is not there, though {before} was said to be moved to it"
        return None if facts["library_is_there"] else missing
    return (
        f"immich:upload_location: the installation's library is {before}, not {path}. Move the files, then set "
        f"immich:upload_location_moved_from: {before}"
    )


def _database_refusal(there, wanted, facts):
    old, new = there.get("database"), wanted.get("database")
    if old is None:
        return None
    here = there.get("server") in (None, wanted["server"])
    if old == new and here:
        return _gone(new, facts) if facts["database_is_there"] is False else None
    if facts["unasked"]:
        setting = PARTS["database" if here else "server"]
        return f"{setting} is not the installation's, and PostgreSQL cannot be asked: {facts['unasked']}"
    if facts["database_is_immichs"]:
        return _ambiguous(old, new, facts) if here and facts["former_is_there"] else None
    return _renamed(old, new, facts) if here else _elsewhere(there, wanted)


def _gone(name, facts):
    create = _psql(facts, f'CREATE DATABASE "{name}"')
    return (
        f"immich:postgres:database: {name} was this installation's database and is gone. Immich would start empty. If "
        f"that is wanted, or a backup is to be restored into it, create it first: {create}"
    )


def _ambiguous(old, new, facts):
    if facts["database_moved_from"] == old:
        return None
    return (
        f"immich:postgres:database: the installation's database is {old}, and {new} is one of Immich's too. Set {old}, "
        f"or, if {new} has its content, immich:postgres:database_moved_from: {old}"
    )


def _elsewhere(there, wanted):
    return (
        f"immich:postgres:host: the installation's database {there['database']} is at {there['server']}, and at "
        f"{wanted['server']} the database {wanted['database']} is none of Immich's: Immich would start empty. Stop "
        f"Immich, dump the database there and restore it here, then apply again"
    )


def _renamed(old, new, facts):
    empty = f"the installation's database is {old}, not {new}: Immich would start empty"
    if facts["database_moved_from"] == old or not facts["former_is_there"]:
        return f"immich:postgres:database: {empty}, as {new} is none of Immich's. Restore it there, or set its name"
    rename = _psql(facts, f'ALTER DATABASE "{old}" RENAME TO "{new}"')
    return (
        f"immich:postgres:database: {empty}. Rename it: systemctl stop immich; {rename}; then apply again. Or restore "
        f"it as {new}, and set immich:postgres:database_moved_from: {old}"
    )


def _psql(facts, statement):
    """A command that a person can type on a server of this host; of one elsewhere, the statement."""
    user = facts.get("os_user")
    return f"runuser -u {user} -- psql -c '{statement}'" if user else f"`{statement}` as its superuser"


def _network_refusal(change, facts):
    if not change or not facts.get("network_users"):
        return None
    users = ", ".join(facts["network_users"])
    return (
        f"immich:network: {change['new']} overlaps {change['old']}, which {users} use. Remove these, or give "
        f"{change['new']} another subnet"
    )


def _mount_refusal(part, path, facts):
    user = facts["wanted_users"][part]
    return (
        f"{PARTS[part]}: {path} is a mount point, below which the formula changes no owner, and does not belong to "
        f"{user}. Type: systemctl stop immich; chown -R {user} {shlex.quote(path)}; then apply again"
    )


def kept(there, clean):
    """
    Return the parts of an installation that ``immich.clean`` leaves on the host.

    there
        The parts that are known.

    clean
        The settings below ``immich:clean``.
    """
    left = {part: there[part] for part in KEPT if part in there}
    if clean["delete_uploads"] == there.get("library"):
        left.pop("library", None)
    if clean["delete_database"] == there.get("database"):
        left = {part: value for part, value in left.items() if part == "library"}
    return left if left.keys() & {"library", "database"} else {}


def former_role(there, wanted):
    """The role that Immich no longer uses, also where this dry run would be the one to replace it, or None."""
    role = there.get("role") if there.get("role") != wanted["role"] else there.get("former_role")
    return role if role != wanted["role"] else None
