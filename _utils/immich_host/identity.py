"""
The installation on this host, and what becomes of it
======================================================

The record says what it is made of, else its unit and its compose file. ``immich_core.identity`` decides.
"""

import contextlib
import ipaddress
import json
import os
import re
from pathlib import Path

from salt.exceptions import CommandExecutionError
from salt.utils import yaml

from host_core import command
from immich_core import container_users, identity, run_facts, storage, units, versions
from immich_io import compose_file, containers, host_users, installation, owners

UNIT = Path(units.file(units.IMMICH))


# -- what is known ----------------------------------------


def known(directory=None):
    """
    Return the parts of the installation on this host. A part that is not known is missing; a host without an
    installation has none.

    directory
        Project directory to look into where neither record nor unit names one. Default: none.

    Raises CommandExecutionError if the record or the compose file cannot be understood.
    """
    try:
        record = installation.record()
    except installation.RecordError as error:
        raise CommandExecutionError(str(error)) from error
    if record is None:
        return _observed(_directory_of_unit() or directory)
    # Records of earlier releases lack the users.
    lacks_users = identity.OWNERS.keys() - record.keys()
    return {**_observed_users(record.get("project_dir")), **record} if lacks_users else record


def current(settings):
    """
    Return the parts of the installation as they are at this moment of a run: those known, and else those declared.

    Never fails: what cannot be understood is not known, and :py:func:`plan` says so.

    settings
        The formula's settings.
    """
    try:
        there = known(settings["project_dir"])
    except CommandExecutionError:
        there = {}
    return {part: there.get(part, value) for part, value in identity.declared(settings).items()}


def project_dir(settings):
    """Return the project directory: before a run moves it the former one, the declared one after."""
    return current(settings)["project_dir"]


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
    parts.update({**_observed_users(directory), storage.PART: compose_file.storage(path) or None})
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        project = yaml.safe_load(compose_file.read(path))
        environment = project["services"][identity.SERVER]["environment"]
        said = {key: str(value).replace("$$", "$") for key, value in environment.items()}
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
    return {part: users[service] for part, (_, service) in identity.OWNERS.items() if service in users}


# -- the decision ----------------------------------------


def plan(settings, salt):
    """
    Return what becomes of the installation on this host when these settings are applied:
    ``{"refusals": [findings], "changes": {part: {"old": …, "new": …}}}``.

    PostgreSQL and Podman are asked only where the answer matters.

    settings
        The formula's settings.
    salt
        Salt's execution functions by name (``__salt__``).

    Raises CommandExecutionError if the record or the compose file cannot be understood, or Podman does not answer.
    """
    desired = identity.declared(settings)
    there = {**_unlike_own(settings, desired), **known(settings["project_dir"])}
    return identity.compare(there, desired, _facts(settings, there, desired, salt))


def plan_of_run(run, settings, salt):
    """
    Return :py:func:`plan`. It is made once in a run, and again after a change of the record.

    run
        The ``__context__`` of the run.
    """
    facts = run_facts.of(run)
    if facts.identity_plan is None:
        facts.identity_plan = plan(settings, salt)
    return facts.identity_plan


def _unlike_own(settings, desired):
    """Owners of folders with content, where a new installation declares the formula's own user."""
    written = container_users.folders(settings)
    found = {
        part: host_users.owner(written[key][0])
        for part, (key, _) in identity.OWNERS.items()
        if key in written and settings[key]["own_user"] in container_users.accounts(settings)
    }
    return {part: owner for part, owner in found.items() if owner not in (None, desired[part])}


def _facts(settings, there, desired, salt):
    """What the decision about an installation has to know of this host."""
    moved_from = settings["upload_location_moved_from"]
    return {
        "library_is_there": os.path.isdir(desired["library"]),
        "library_moved_from": moved_from and os.path.normpath(moved_from),
        "storage": _storage_facts(settings["storage_moved_from"], desired),
        "os_user": settings["postgres"]["connection"].get("os_user") if settings["postgres"]["managed"] else None,
        **_database_facts(settings["postgres"], there, desired, salt),
        "network_users": _overlapping_users(settings, there, desired, salt),
        "desired_users": {part: desired[part] for part in identity.OWNERS if part in desired},
        "mounts": _mounts(settings, there, desired),
    }


def _storage_facts(moved_from, desired):
    """What is at the place of each folder of the library. A container can write there: no more is read of it."""
    return {
        folder: {
            "moved_from": moved_from[folder],
            "is_there": os.path.isdir(path),
            "has_marker": os.path.lexists(f"{path}/{storage.MARKER}"),
        }
        for folder, path in storage.places(desired["library"], desired[storage.PART] or {}).items()
    }


def _mounts(settings, there, desired):
    """Mount points below folders that change their owner, as far as they belong to another user."""
    written = container_users.folders(settings)
    return {
        part: [point for folder in written[key] for point in owners.mounts_of_others(folder, desired[part])]
        for part, (key, _) in identity.OWNERS.items()
        if part in desired and there.get(part, desired[part]) != desired[part]
    }


def _database_facts(postgres, there, desired, salt):
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
    same = old == desired["database"] and there.get("server") in (None, desired["server"])
    try:
        found["database_is_there"] = salt["pgsql_database.exists"](desired["database"], connection)
        if not same:
            found["former_is_there"] = salt["pgsql_database.exists"](old, connection)
        if not same and found["database_is_there"]:
            tables = salt["pgsql_table.list"](desired["database"], "public", connection)
            found["database_is_immichs"] = any(table in tables for table in versions.MIGRATION_TABLES)
    except CommandExecutionError as error:
        found["unasked"] = str(error)
    return found


def _overlapping_users(settings, there, desired, salt):
    """Containers that are not Immich's, where they keep the former network from giving its subnet to the new one."""
    former = there.get("network")
    if former in (None, desired["network"]) or not salt["podman_network.exists"](former):
        return []
    own = ipaddress.ip_network(settings["network"]["subnet"])
    taken = [ipaddress.ip_network(each["subnet"]) for each in salt["podman_network.inspect"](former)["subnets"]]
    if not any(own.version == each.version and own.overlaps(each) for each in taken):
        return []
    return other_users(former, there.get("project_dir", desired["project_dir"]), salt)


def other_users(network, directory, salt):
    """
    Return the containers in a network that are not of the compose project in a directory.

    Raises CommandExecutionError if Podman does not answer.
    """
    with command.raised_as(CommandExecutionError):
        own = containers.names(directory)
    return [name for name in salt["podman_network.containers"](network) if name not in own]
