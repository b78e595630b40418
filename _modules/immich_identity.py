"""
The identity of an installation: what it is made of, and what becomes of it when the pillar names something else
=================================================================================================================

Database, role, library, network, project directory, and Valkey's database number and user belong together. A record on
this host, :file:`/var/lib/immich-formula/installation.json`, says which they are. It is compared with the pillar before
anything changes: each part is migrated, or refused with the way to do it. ``immich_core.identity`` decides, and
``immich_core.installation`` keeps the record.

``settings`` is what ``immich_settings.get`` returns.
"""

import contextlib
import ipaddress
import json
import os
import re
from pathlib import Path

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

from immich_core import compose_file, container_users, identity, installation, owners, units

__virtualname__ = "immich_identity"

UNIT = Path(units.file(units.IMMICH))
# One of these is in every database that Immich has served.
MIGRATIONS = ("kysely_migrations", "migrations")


def __virtual__():
    return __virtualname__


# -- what is known ----------------------------------------


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

    Called by the SLS ``immich.podman``, and by states that ask where the project is or whose the tables are.
    """
    try:
        there = known(settings["project_dir"])
    except CommandExecutionError:
        there = {}
    return {part: there.get(part, value) for part, value in identity.declared(settings).items()}


def folders(settings):
    """
    Return what the containers write to and as whom, as it is at this moment of a run, for ``immich.preflight``:
    ``{"accounts": [{"name": …, "id": …}], "folders": [{"what": …, "path": …, "user": …, "group": …}]}``.

    Until they are migrated, folders have the owners of before. Accounts are the users of the formula's own that the
    settings need.

    settings
        The formula's settings.

    Called by the SLS ``immich.preflight``.
    """
    there = current(settings)
    words = {"server": "library", "machine_learning": "model cache"}
    return {
        "accounts": container_users.accounts(settings),
        "folders": [
            {"what": words[key], "path": path, **container_users.numbers(there[f"{key}_user"])}
            for key, path in container_users.folders(settings).items()
        ],
    }


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
        project = salt.utils.yaml.safe_load(compose_file.read(path))
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


def plan(settings):
    """
    Return what becomes of the installation on this host when these settings are applied:
    ``{"refusals": [findings], "changes": {part: {"old": …, "new": …}}}``.

    PostgreSQL and Podman are asked only where the answer matters.

    settings
        The formula's settings.

    Raises CommandExecutionError if the record or the compose file cannot be understood, or Podman does not answer.

    Called by the states ``immich_identity.compared``, ``network_replaced`` and ``migrated``.
    """
    wanted = identity.declared(settings)
    there = {**_unlike_own(settings, wanted), **known(settings["project_dir"])}
    return identity.compare(there, wanted, _facts(settings, there, wanted))


def _unlike_own(settings, wanted):
    """Owners of folders with content, where a new installation declares the formula's own user."""
    written = container_users.folders(settings)
    found = {
        part: container_users.owner(written[key])
        for part, (key, _) in identity.OWNERS.items()
        if key in written and settings[key]["own_user"] in container_users.accounts(settings)
    }
    return {part: owner for part, owner in found.items() if owner not in (None, wanted[part])}


def _facts(settings, there, wanted):
    """What the decision about an installation has to know of this host."""
    moved_from = settings["upload_location_moved_from"]
    return {
        "library_is_there": os.path.isdir(wanted["library"]),
        "library_moved_from": moved_from and os.path.normpath(moved_from),
        "os_user": settings["postgres"]["connection"].get("os_user") if settings["postgres"]["managed"] else None,
        **_database_facts(settings["postgres"], there, wanted),
        "network_users": _overlapping_users(settings, there, wanted),
        "wanted_users": {part: wanted[part] for part in identity.OWNERS if part in wanted},
        "mounts": _mounts(settings, there, wanted),
    }


def _mounts(settings, there, wanted):
    """Mount points below folders that change their owner, as far as they belong to another user."""
    written = container_users.folders(settings)
    return {
        part: owners.mounts_of_others(written[key], wanted[part])
        for part, (key, _) in identity.OWNERS.items()
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
            tables = __salt__["pgsql_table.list"](wanted["database"], "public", connection)
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
