"""
The identity of an installation: what it is made of, and what becomes of it when the pillar names something else
=================================================================================================================

Database, role, library, network, project directory, and Valkey's database number and user belong together. A record on
this host, :file:`/var/lib/immich-formula/installation.json`, says which they are. It is compared with the pillar before
anything changes: each part is migrated, or refused with the way to do it.

``settings`` is what ``immich_settings.get`` returns. In the examples, ``SETTINGS`` holds the JSON of
``salt-call --local --out=json immich_settings.get``.
"""

import contextlib
import ipaddress
import json
import os
import re
import shlex
from pathlib import Path

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

from immich_core import compose_file, durable, run_facts, units

__virtualname__ = "immich_identity"

RECORD = Path("/var/lib/immich-formula/installation.json")
UNIT = Path(units.file(units.IMMICH))
# Of the record. A newer one is from a newer formula, which knows more.
FORMAT = 1
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
# What clean leaves on the host.
KEPT = ("server", "database", "role", "library")
# What of a project directory moves to another one, and what the states of immich.app write there anew.
MOVED = "update.json"
WRITTEN = ("docker-compose.yml", "secrets/db_password", "secrets/redis_password")
# One of these is in every database that Immich has served.
MIGRATIONS = ("kysely_migrations", "migrations")


def __virtual__():
    return __virtualname__


def paths():
    """
    Return where the pillar has each part of an installation.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.paths
    """
    return dict(PARTS)


# -- what is declared, and what is known ----------------------------------------


def declared(settings):
    """
    Return the parts of the installation that the settings describe, by name.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.declared "$SETTINGS"
    """
    postgres, valkey = settings["postgres"], settings["valkey"]
    return {
        "server": f"{postgres['host']}:{postgres['port']}",
        "database": postgres["database"],
        "role": postgres["user"],
        "library": settings["upload_location"],
        "network": settings["network"]["name"],
        "project_dir": settings["project_dir"],
        "valkey_database": valkey["database"],
        "valkey_user": valkey["user"],
        **{part: settings[key]["user"] for part, (key, _) in OWNERS.items() if key in _folders(settings)},
    }


def _folders(settings):
    return __salt__["immich_user.folders"](settings)


def known(directory=None):
    """
    Return the parts of the installation on this host: what its record says, or without one its unit and compose file.

    A part that neither names is missing. A host without an installation has none.

    directory
        Project directory to look into where no unit names one. Default: none.

    Raises CommandExecutionError if the record or the compose file cannot be understood.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.known
    """
    record = _record()
    if record is None:
        return _observed(_directory_of_unit() or directory)
    # Records of earlier releases lack the users.
    return {**_observed_users(record.get("project_dir")), **record} if OWNERS.keys() - record.keys() else record


def recorded():
    """
    Return what this host's record says, or nothing where there is none.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.recorded
    """
    return _record() or {}


def current(settings):
    """
    Return the parts of the installation as they are at this moment of a run: those known, and else those declared.

    Never fails: what cannot be understood is not known, and :py:func:`plan` says so.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.current "$SETTINGS"
    """
    try:
        there = known(settings["project_dir"])
    except CommandExecutionError:
        there = {}
    return {part: there.get(part, value) for part, value in declared(settings).items()}


def _record():
    if not RECORD.exists():
        return None
    try:
        record = json.loads(RECORD.read_text(encoding="utf8"))
        readable = record["format"] <= FORMAT
        parts = dict(record["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandExecutionError(
            f"{RECORD}, the record of this installation, cannot be read: {error}. Remove it, and the next apply makes "
            f"it from the compose file"
        ) from error
    if not readable:
        raise CommandExecutionError(f"{RECORD} was written by a newer formula: take that one")
    return parts


def _directory_of_unit():
    """The project directory that the unit runs, or None."""
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"^ExecStart=\S+ run --directory (\".*\")$", UNIT.read_text(encoding="utf8"), re.MULTILINE)
        return json.loads(found[1].replace("$$", "$").replace("%%", "%")) if found else None
    return None


def _observed(directory):
    """What the compose file in a directory says. One that somebody else wrote may say less."""
    path = Path(directory or "/nonexistent") / "docker-compose.yml"
    if not path.exists():
        return {}
    try:
        parts = {"project_dir": str(directory), "library": compose_file.upload_location(path)}
    except compose_file.ComposeFileError as error:
        raise CommandExecutionError(str(error)) from error
    parts.update(_observed_users(directory))
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        project = salt.utils.yaml.safe_load(path.read_text(encoding="utf8"))
        said = {key: str(value).replace("$$", "$") for key, value in project["services"][SERVER]["environment"].items()}
        parts["role"] = said.get("DB_USERNAME")
        parts["database"] = said.get("DB_DATABASE_NAME")
        parts["valkey_user"] = said.get("REDIS_USERNAME")
        parts["server"] = f"{said['DB_HOSTNAME']}:{said['DB_PORT']}"
        parts["valkey_database"] = int(said["REDIS_DBINDEX"])
        parts["network"] = project["networks"]["immich"]["name"]
    return {part: value for part, value in parts.items() if value is not None}


def _observed_users(directory):
    """The containers' users by the compose file in a directory, if it is the formula's."""
    users = compose_file.users(f"{directory}/docker-compose.yml") if directory else {}
    return {part: users[service] for part, (_, service) in OWNERS.items() if service in users}


# -- the decision ----------------------------------------


def compare(there, wanted, facts):
    """
    Return what becomes of an installation when the pillar describes another one. Asks nobody.

    ``{"refusals": [sentences], "changes": {part: {"old": …, "new": …}}}``; ``changes`` has the parts that differ.

    there, wanted
        What :py:func:`known` and :py:func:`declared` return.

    facts
        What :py:func:`facts` returns.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.compare '{"role": "immich"}' '{"role": "photos"}' '{}'
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


# -- what the decision needs to know ----------------------------------------


def plan(settings):
    """
    Return what :py:func:`compare` says of this host and the settings.

    PostgreSQL and Podman are asked only where the answer matters.

    settings
        The formula's settings.

    Raises CommandExecutionError if the record or the compose file cannot be understood, or Podman does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.plan "$SETTINGS"
    """
    wanted = declared(settings)
    there = {**_unlike_own(settings, wanted), **known(settings["project_dir"])}
    return compare(there, wanted, facts(settings, there, wanted))


def _unlike_own(settings, wanted):
    """Owners of folders with content, where a new installation declares the formula's own user."""
    folders = _folders(settings)
    found = {
        part: __salt__["immich_user.owner"](folders[key])
        for part, (key, _) in OWNERS.items()
        if key in folders and settings[key]["own_user"] in __salt__["immich_user.accounts"](settings)
    }
    return {part: owner for part, owner in found.items() if owner not in (None, wanted[part])}


def facts(settings, there, wanted):
    """
    Return what the decision about an installation has to know of this host.

    settings
        The formula's settings.

    there, wanted
        What :py:func:`known` and :py:func:`declared` return.

    Raises CommandExecutionError if Podman does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.facts "$SETTINGS" '{}' '{"library": "/srv/immich/upload"}'
    """
    moved_from = settings["upload_location_moved_from"]
    return {
        "library_is_there": os.path.isdir(wanted["library"]),
        "library_moved_from": moved_from and os.path.normpath(moved_from),
        "os_user": settings["postgres"]["connection"].get("os_user") if settings["postgres"]["managed"] else None,
        **_database_facts(settings["postgres"], there, wanted),
        "network_users": _overlapping_users(settings, there, wanted),
        "wanted_users": {part: wanted[part] for part in OWNERS if part in wanted},
        "mounts": _mounts(settings, there, wanted),
    }


def _mounts(settings, there, wanted):
    """Mount points below folders that change their owner, as far as they belong to another user."""
    folders = _folders(settings)
    return {
        part: __salt__["immich_user.mounts_of_others"](folders[key], wanted[part])
        for part, (key, _) in OWNERS.items()
        if part in wanted and there.get(part, wanted[part]) != wanted[part]
    }


def _database_facts(postgres, there, wanted):
    found = {
        "database_moved_from": postgres["database_moved_from"],
        "database_is_there": None,
        "database_is_immichs": False,
        "former_is_there": False,
        "unasked": None,
    }
    old, connection = there.get("database"), postgres["connection"]
    if old is None:
        return found
    same = old == wanted["database"] and there.get("server") in (None, wanted["server"])
    try:
        found["database_is_there"] = __salt__["pgsql_database.exists"](wanted["database"], connection)
        if not same:
            found["former_is_there"] = __salt__["pgsql_database.exists"](old, connection)
        if not same and found["database_is_there"]:
            tables = __salt__["pgsql_database.table_list"](wanted["database"], "public", connection)
            found["database_is_immichs"] = any(table in tables for table in MIGRATIONS)
    except CommandExecutionError as error:
        found["unasked"] = str(error)
    return found


def _overlapping_users(settings, there, wanted):
    """Containers that are not Immich's, where they keep the former network from giving its subnet to the new one."""
    former = there.get("network")
    if former in (None, wanted["network"]) or not __salt__["podman_network.exists"](former):
        return []
    own = ipaddress.ip_network(settings["network"]["subnet"])
    taken = [ipaddress.ip_network(each["subnet"]) for each in __salt__["podman_network.inspect"](former)["subnets"]]
    if not any(own.version == each.version and own.overlaps(each) for each in taken):
        return []
    return _other_users(former, there.get("project_dir", wanted["project_dir"]))


def _other_users(network, directory):
    own = __salt__["immich_app.containers"](directory)
    return [name for name in __salt__["podman_network.containers"](network) if name not in own]


# -- what migrates ----------------------------------------


def note(**parts):
    """
    Write parts of the installation into the record, whole or not at all. None removes one.

    Raises OSError that names the record if it cannot be written.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.note network=immich
    """
    if RECORD.exists():
        run_facts.of(__context__).migrated = True
    merged = {**(_record() or {}), **parts}
    record = {"format": FORMAT, "parts": {part: value for part, value in merged.items() if value is not None}}
    RECORD.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.write(RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n", 0o600)


def forget():
    """
    Remove the record.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.forget
    """
    RECORD.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        RECORD.parent.rmdir()


def move_project(old, new):
    """
    Take what the formula keeps in a former project directory out of it; return what is left there.

    The record of an update moves. Compose file and secrets are removed: the states of ``immich.app`` write them.

    old, new
        The directories; the new one is there. Immich is stopped.

    Raises OSError.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.move_project /opt/podman/immich /srv/projects/immich
    """
    former = Path(old)
    if (former / MOVED).exists():
        durable.write(Path(new) / MOVED, (former / MOVED).read_text(encoding="utf8"), 0o600)
    for name in (MOVED, *WRITTEN):
        (former / name).unlink(missing_ok=True)
    for folder in (former / "secrets", former):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return sorted(path.name for path in former.iterdir()) if former.is_dir() else []


def why_network_stays(settings, network):
    """
    Return why a network that Immich no longer uses is not to be removed, or None.

    settings
        The formula's settings.

    network
        Its name.

    Raises CommandExecutionError if Podman does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.why_network_stays "$SETTINGS" immich
    """
    if network in [each["name"] for each in settings["podman"]["external_networks"]]:
        return "the pillar lists it"
    if known(settings["project_dir"]).get("network_made") is False:
        return "it was there before the formula"
    users = _other_users(network, current(settings)["project_dir"])
    return f"{', '.join(users)} use it" if users else None


def why_role_stays(settings, role):
    """
    Return why a role of PostgreSQL that Immich no longer uses is not to be dropped, or None.

    settings
        The formula's settings.

    role
        Its name.

    Raises CommandExecutionError if PostgreSQL does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.why_role_stays "$SETTINGS" immich
    """
    connection, database = settings["postgres"]["connection"], settings["postgres"]["database"]
    held = __salt__["pgsql_role.get"](role, connection=connection)
    if held is None:
        return None
    if held["superuser"] or held["createrole"] or held["replication"]:
        return "it administers the server"
    return " ".join(__salt__["pgsql_role.dependencies"](role, connection, besides=database)) or None


def change_owner(settings, part, old, new):
    """
    Change the owner of what a container writes, and record it as that container's user; return a sentence.

    Immich is stopped. The record names both users meanwhile: an interrupted run is completed by the next one, whichever
    of them that one declares.

    settings
        The formula's settings.

    part
        ``server_user`` or ``machine_learning_user``.

    old, new
        The current and the declared user, as :py:func:`plan` returns them.

    Raises CommandExecutionError or OSError.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.change_owner "$SETTINGS" server_user 0:0 60883:60883
    """
    folder = _folders(settings)[OWNERS[part][0]]
    # A first run has no record before its end.
    noted = recorded()
    if noted:
        note(**{part: f"{old.partition(',')[0]}, partly {new}"})
    done = __salt__["immich_user.change_owner"](folder, new)
    if noted:
        note(**{part: new})
    return f"{done} files of {folder} changed their owner to {new}"


def planned_owner(settings, part, new):
    """
    Return what :py:func:`change_owner` would do, as a sentence.

    Arguments are those of :py:func:`change_owner`.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.planned_owner "$SETTINGS" server_user 60883:60883
    """
    folder = _folders(settings)[OWNERS[part][0]]
    return f"{__salt__['immich_user.count'](folder, new)} files of {folder} would change their owner to {new}"


def kept_by_clean(settings):
    """
    Return the parts of the installation that ``immich.clean`` leaves on the host.

    settings
        The formula's settings.

    Raises CommandExecutionError if the record or the compose file cannot be understood.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_identity.kept_by_clean "$SETTINGS"
    """
    there, clean = known(settings["project_dir"]), settings["clean"]
    kept = {part: there[part] for part in KEPT if part in there}
    if clean["delete_uploads"] == there.get("library"):
        kept.pop("library", None)
    if clean["delete_database"] == there.get("database"):
        kept = {part: value for part, value in kept.items() if part == "library"}
    return kept if kept.keys() & {"library", "database"} else {}
