"""
What the doctor's checks go by: the settings, or without them what was deployed
================================================================================

Every check is called with ``here``, a dictionary: what ``gather`` returns, ``salt`` and ``pillar`` (the loader's
``__salt__`` and ``__pillar__``), ``seconds`` for a check, ``working``, the holder of the lock, or empty, and ``asked``,
names of the functions that have a row of their own.
"""

import re
from pathlib import Path

import salt.utils.yaml

from immich_core import storage, units
from immich_core.compose import MACHINE_LEARNING, SERVER
from immich_diagnosis.check import NotCheckedError

DEPLOYED = "/opt/podman/immich"
UNIT_FILE = units.file(units.IMMICH)


def gather(settings):
    """What is to be looked at: by the settings, or without them by what was deployed."""
    directory = settings["project_dir"] if settings else DEPLOYED
    text = read_text(f"{directory}/docker-compose.yml")
    compose = _parsed(text)
    server = compose["services"].get(SERVER, {})
    learning = compose["services"].get(MACHINE_LEARNING, {})
    here = {
        "settings": settings,
        "directory": directory,
        "compose_text": text,
        "compose": compose,
        "uploads": source(server, "/data"),
        "storage": {
            folder: path for folder in storage.FOLDERS if (path := source(server, f"{storage.MEDIA}/{folder}"))
        },
        "cache": source(learning, "/cache"),
        "volumes": [],
        "libraries": [_unescaped(mount["source"]) for mount in _mounts(server) if mount.get("read_only")],
        "users": {SERVER: server.get("user"), MACHINE_LEARNING: learning.get("user")},
        "ping": compose.get("x-immich-stack", {}).get("ping"),
        "postgres": {"units": _ordered_after("postgresql"), "port": _port(server, "DB_PORT", 5432), "managed": True},
        "valkey": {
            "units": _ordered_after("valkey", "redis"),
            "port": _port(server, "REDIS_PORT", 6379),
            "managed": True,
        },
        "socket_dir": "/var/run/postgresql",
    }
    if not settings:
        return here
    here.update(_by_settings(settings))
    if not server:
        here["users"] = {SERVER: settings["server"]["user"], MACHINE_LEARNING: settings["machine_learning"]["user"]}
    return here


def _by_settings(settings):
    learning = settings["machine_learning"]
    postgres, valkey = settings["lookup"]["postgres"], settings["lookup"]["valkey"]
    units = {"postgres": [postgres.get("unit", postgres["service"])], "valkey": [valkey["service"]]}
    return {
        "uploads": settings["upload_location"],
        "storage": storage.elsewhere(settings),
        "volumes": [
            volume
            for part in ("server", "machine_learning")
            if settings[part].get("enabled", True)
            for volume in settings[part]["volumes"]
        ],
        "cache": learning["cache_location"] if learning["enabled"] else None,
        "libraries": [library["path"] for library in settings["external_libraries"]],
        "socket_dir": postgres.get("socket_dir", "/var/run/postgresql"),
        **{
            part: {"units": units[part], "port": settings[part]["port"], "managed": settings[part]["managed"]}
            for part in units
        },
    }


def settings_of(here):
    """The settings, for a check that needs some."""
    if not here["settings"]:
        raise NotCheckedError("a valid pillar")
    return here["settings"]


def compose_of(here):
    """The compose file, for a check that needs one with services."""
    if not here["compose"]["services"]:
        raise NotCheckedError(f"{here['directory']}/docker-compose.yml")
    return here["compose"]


def read_text(path):
    """What a file holds; nothing where it is not there."""
    try:
        return Path(path).read_text(encoding="utf8", errors="replace")
    except OSError:
        return ""


def _parsed(text):
    """A compose file as far as it can be read; without one there are no services."""
    try:
        compose = salt.utils.yaml.safe_load(text)
        services = compose["services"].values()
        if all(isinstance(service, dict) for service in services):
            return compose
    except (salt.utils.yaml.YAMLError, TypeError, KeyError, AttributeError):
        pass
    return {"services": {}}


def _mounts(service):
    return [mount for mount in service.get("volumes", []) if isinstance(mount, dict)]


def source(service, target):
    """The path on the host that a service has mounted at a path."""
    return next((_unescaped(mount["source"]) for mount in _mounts(service) if mount["target"] == target), None)


def _unescaped(text):
    return text.replace("$$", "$")


def _port(service, name, default):
    return int(service.get("environment", {}).get(name, default))


def _ordered_after(*names):
    """Units of a service that the deployed immich.service waits for; the last one is the server itself."""
    found = re.findall(r"^After=(.*)$", read_text(UNIT_FILE), re.MULTILINE)
    units = [unit for line in found for unit in line.split() if unit.startswith(names)]
    return [unit[: -len(".service")] for unit in units[-1:]]


def postgres_connection(here):
    """The connection to PostgreSQL, with the deadline of a check."""
    return {**settings_of(here)["postgres"]["connection"], "connect_timeout": 2}
