"""
What an installation is made of, and what becomes of it when the pillar names something else
=============================================================================================

Asks nobody: the record is in ``immich_io.installation``, and the host in ``immich_host.identity``.
"""

import shlex

from immich_core import container_users, findings, storage
from immich_core.compose import SERVER

# Each part of an installation, and where the pillar has it.
PARTS = {
    "server": "immich:postgres:host",
    "database": "immich:postgres:database",
    "role": "immich:postgres:user",
    "library": "immich:upload_location",
    storage.PART: "immich:storage",
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
# Where the photos are.
_FILES = ("library", storage.PART)
# What clean leaves on the host.
KEPT = ("server", "database", "role", "library", storage.PART)


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
        storage.PART: storage.elsewhere(settings) or None,
        "network": settings["network"]["name"],
        "project_dir": settings["project_dir"],
        "valkey_database": valkey["database"],
        "valkey_user": valkey["user"],
        **{part: settings[key]["user"] for part, (key, _) in OWNERS.items() if key in written},
    }


def compare(there, desired, facts):
    """
    Return what becomes of an installation when the pillar describes another one. Asks nobody.

    ``{"refusals": [findings], "changes": {part: {"old": …, "new": …}}}``; ``changes`` has the parts that differ.

    there, desired
        What ``immich_host.identity.known`` and :py:func:`declared` return.

    facts
        What ``immich_host.identity`` has looked up of this host.
    """
    changes = {
        part: {"old": there[part], "new": new}
        for part, new in desired.items()
        if there.get(part) is not None and there[part] != new
    }
    refusals = [
        _library_refusal(there.get("library"), desired.get("library"), facts),
        _database_refusal(there, desired, facts),
        *storage.refusals(there, desired, facts["storage"]),
        _network_refusal(changes.get("network"), facts),
        *(_mount_refusal(part, path, facts) for part in OWNERS if part in changes for path in facts["mounts"][part]),
    ]
    return {"refusals": [refusal for refusal in refusals if refusal], "changes": changes}


def _refusal(code, part, seen, remedy):
    return findings.finding(code, "installation", seen, remedy, PARTS[part])


def _library_refusal(before, path, facts):
    moved_from = facts.get("library_moved_from")
    if before is None or (before == path and facts["library_is_there"]):
        return None
    if before == path:
        seen = f"{path} was this installation's library and is gone: is a mount missing?"
        return _refusal(
            "library-gone", "library", seen, "mount it; to start with an empty library instead, create it by hand"
        )
    if moved_from == before and facts["library_is_there"]:
        return None
    if moved_from == before:
        seen = f"{path} does not exist, although the pillar declares that {before} was moved there"
        return _refusal("library-not-moved", "library", seen, "move the files, then apply again")
    seen = f"the installation's library is {before}, not {path}"
    remedy = f"move the files, then set immich:upload_location_moved_from: {before}"
    return _refusal("library-differs", "library", seen, remedy)


def _database_refusal(there, desired, facts):
    old, new = there.get("database"), desired.get("database")
    if old is None:
        return None
    here = there.get("server") in (None, desired["server"])
    if old == new and here:
        return _gone(new, facts) if facts["database_is_there"] is False else None
    if facts["unasked"]:
        part = "database" if here else "server"
        seen = f"the installation's is {there[part]}, and PostgreSQL cannot be asked: {facts['unasked']}"
        return _refusal("database-not-asked", part, seen, f"start PostgreSQL, or set {there[part]}, then apply again")
    if facts["database_is_immichs"]:
        return _ambiguous(old, new, facts) if here and facts["former_is_there"] else None
    return _renamed(old, new, facts) if here else _elsewhere(there, desired)


def _gone(name, facts):
    seen = f"{name} was this installation's database and is gone. Immich would start empty"
    create = _psql(facts, f'CREATE DATABASE "{name}"')
    remedy = f"to start empty, or to restore a backup into it, create it first: {create}"
    return _refusal("database-gone", "database", seen, remedy)


def _ambiguous(old, new, facts):
    if facts["database_moved_from"] == old:
        return None
    seen = f"the installation's database is {old}, and {new} is a database of Immich too"
    remedy = f"set {old}, or, if {new} has its content, immich:postgres:database_moved_from: {old}"
    return _refusal("database-ambiguous", "database", seen, remedy)


def _elsewhere(there, desired):
    seen = (
        f"the installation's database {there['database']} is at {there['server']}, and at {desired['server']} the "
        f"database {desired['database']} is not a database of Immich: Immich would start empty"
    )
    remedy = f"stop Immich, dump the database at {there['server']}, restore it at {desired['server']}, then apply again"
    return _refusal("database-elsewhere", "server", seen, remedy)


def _renamed(old, new, facts):
    seen = f"the installation's database is {old}, not {new}: Immich would start empty"
    if facts["database_moved_from"] == old or not facts["former_is_there"]:
        seen = f"{seen}, because {new} is not a database of Immich"
        return _refusal("database-not-restored", "database", seen, f"restore it as {new}, or set its name")
    rename = _psql(facts, f'ALTER DATABASE "{old}" RENAME TO "{new}"')
    remedy = (
        f"rename it: systemctl stop immich; {rename}; then apply again. Or restore it as {new}, and set "
        f"immich:postgres:database_moved_from: {old}"
    )
    return _refusal("database-differs", "database", seen, remedy)


def _psql(facts, statement):
    """A command that a person can type on a server of this host; of one elsewhere, the statement."""
    user = facts.get("os_user")
    return f"runuser -u {user} -- psql -c '{statement}'" if user else f"`{statement}` as its superuser"


def _network_refusal(change, facts):
    if not change or not facts.get("network_users"):
        return None
    seen = f"{change['new']} overlaps {change['old']}, which {', '.join(facts['network_users'])} use"
    return _refusal("network-used", "network", seen, f"remove these, or give {change['new']} another subnet")


def _mount_refusal(part, path, facts):
    user = facts["desired_users"][part]
    seen = f"{path} is a mount point, below which the formula changes no owner, and does not belong to {user}"
    remedy = f"systemctl stop immich; chown -R {user} {shlex.quote(path)}; then apply again"
    return _refusal("mount-owner", part, seen, remedy)


def kept(there, clean):
    """
    Return the parts of an installation that ``immich.clean`` leaves on the host.

    there
        The parts that are known.

    clean
        The settings below ``immich:clean``.
    """
    left = {part: there[part] for part in KEPT if there.get(part)}
    if clean["delete_uploads"] == there.get("library"):
        left = {part: value for part, value in left.items() if part not in _FILES}
    if clean["delete_database"] == there.get("database"):
        left = {part: value for part, value in left.items() if part in _FILES}
    return left if left.keys() & {"library", "database"} else {}


def former_role(there, desired):
    """The role that Immich no longer uses, also where this dry run would be the one to replace it, or None."""
    role = there.get("role") if there.get("role") != desired["role"] else there.get("former_role")
    return role if role != desired["role"] else None
