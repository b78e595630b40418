"""
Settings of the formula: defaults, pillar, validation and what follows from them
================================================================================

The only place with defaults. Reads ``defaults.yaml``, ``osfamilymap.yaml``, ``components.yaml``, ``schema.json``,
``server_settings.json`` and ``timezones.json`` from ``salt://immich``, merges the pillar key ``immich`` over them, and
reports all its errors at once. No text that it returns contains a password.

``immich_core.settings`` validates and derives; this module queries the host for it.

:depends: - ``jsonschema`` in Salt's own Python
"""

import functools
import importlib.util
import json
import os
import re
import shutil

import salt.utils.files
import salt.utils.hashutils
import salt.utils.yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core.pillar import value as pillar_value
from immich_core import components, container_users, findings, hardware, server_settings, sign_up
from immich_core.own_files import LIBRARY, OWN_FILES
from immich_core.settings import checks, derivation, networks, problems, schema
from immich_host import administrator, identity, secret_files
from immich_io import devices, host_users, owners

__virtualname__ = "immich_settings"

_SOURCES = [
    f"salt://immich/{name}"
    for name in (
        "schema.json",
        "server_settings.json",
        "defaults.yaml",
        "osfamilymap.yaml",
        "components.yaml",
        "timezones.json",
    )
]
# Before Podman is there, what it will have: default_subnet of containers.conf(5).
_PODMAN_GATEWAY = "10.88.0.1"


def __virtual__():
    if importlib.util.find_spec("jsonschema"):
        return __virtualname__
    return False, "immich_settings needs jsonschema in Salt's own Python, which immich.bootstrap brings"


def get():
    """
    Return the settings: the pillar merged over the defaults, and what is derived from both. Passwords are left out.

    Nothing is returned if the pillar is invalid; ``immich_settings.errors`` has the reasons.

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.get
    """
    return _evaluated()["settings"]


def errors():
    """
    Return all errors of the pillar, as a list of findings (``immich_core.findings``).

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.errors
    """
    return _evaluated()["errors"]


def warnings():
    """
    Return what is allowed in the pillar but not advisable, as a list of findings (``immich_core.findings``).

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.warnings
    """
    return _evaluated()["warnings"]


def up_to_date():
    """
    Return whether the modules that this minion has synced are those of the formula on the file server, and load.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.up_to_date
    """
    # Every SLS of a run asks. Only a yes is kept: after a no the run syncs them.
    if __context__.get("immich_settings.up_to_date"):
        return True
    files = (f"_{kind}/{name}.py" for kind, names in OWN_FILES.items() for name in names)
    # This module needs a library of its own, and so do these two.
    loaded = "pgsql_server.version" in __salt__ and "valkey_acl.get" in __salt__
    __context__["immich_settings.up_to_date"] = loaded and all(map(_is_held, files))
    return __context__["immich_settings.up_to_date"]


def program_library():
    """
    Return the files below ``_utils`` that the programs on the host import, as paths.

    Called by the SLS ``immich.programs``.
    """
    return [f"{name}.py" for name in LIBRARY]


def _is_held(file):
    """Whether the minion has a file as the file server has it. By hash: to cache a copy of it takes twice as long."""
    # Within a run Salt asks for all of them with one client of the file server.
    offered = __salt__["cp.hash_file"](f"salt://{file}")
    if not offered:
        return False
    try:
        held = os.path.join(__opts__["extension_modules"], file[1:])
        return salt.utils.hashutils.get_hash(held, offered["hash_type"]) == offered["hsum"]
    except OSError:  # not there
        return False


# What the functions above share: read once, evaluated once for each pillar


def _evaluated():
    files = _files()
    found = []
    pillar = schema.projected(__pillar__.get(problems.PILLAR_KEY, {}), files["schema"], (), found)
    wrong, doubtful = _problems_of_server_settings(files["schema"])
    found += wrong
    # Salt keeps __context__ for a run, in which state.sls may still be given another pillar.
    cached = __context__.get("immich_settings.evaluated")
    if not cached or cached["of"] != (pillar, found, doubtful):
        cached = {"of": (pillar, found, doubtful), **_evaluate(pillar, found, doubtful, files)}
        __context__["immich_settings.evaluated"] = cached
    return cached


def _evaluate(pillar, found, doubtful, files):
    found = [*found, *schema.violations(files["schema"], pillar)]
    wrong = {path for path, _ in found}
    right = schema.pruned(pillar, wrong)
    lookup = derivation.lookup_of(files["osfamilymap"], __grains__, right.get("lookup", {}))
    defaults = networks.with_own_network(files["defaults"], lookup)
    settings = {**derivation.merged(defaults, right), "lookup": lookup}
    external = networks.described(settings, defaults)
    gateway, trouble = _gateway_address(settings)

    more = [
        *checks.errors(settings),
        *checks.check_timezone(settings, files["timezones"], _zone_on_host(settings["timezone"])),
        *networks.check_networks(settings, external),
        *checks.check_lookup(lookup, files["schema"], __grains__),
        *_unusable_certificates(settings),
        *trouble,
    ]
    if "podman" in components.of_host(files["components"], settings):
        more += _conflicts(external, wrong | {path for path, _ in more})
    more += checks.check_schedules(_refused_schedules(settings["backup"], files["defaults"]["backup"]))
    found += [each for each in more if not problems.is_below(each[0], wrong)]

    if found:
        return {"errors": problems.report(found), "warnings": [], "settings": {}}
    registry = files["components"]
    left = [name for name, path in components.traces(registry).items() if os.path.exists(path)]
    setup = sign_up.mode(settings, lambda: _signed_up(settings))
    derived = derivation.derived(
        settings,
        external,
        gateway,
        _container_users(settings),
        _hardware(settings),
        registry,
        left,
        files["schema"],
        setup,
    )
    warned = [
        *doubtful,
        *checks.warnings(settings, external, _isolation(derived["network"])),
        *checks.open_folder_warnings(_open_folders(derived)),
    ]
    return {"errors": [], "warnings": problems.report(warned, findings.WARNING), "settings": derived}


def _files():
    if "immich_settings.files" not in __context__:
        cached = __salt__["cp.cache_files"](_SOURCES)
        described, of_server, defaults, osfamilymap, registry, timezones = map(_content, cached, _SOURCES)
        described, of_server = json.loads(described), json.loads(of_server)
        described = schema.inlined(described, described.pop("$defs"))
        own = described["properties"][server_settings.KEY]
        own.update({**schema.inlined(of_server, of_server.pop("$defs")), **own})
        __context__["immich_settings.files"] = {
            "schema": described,
            "defaults": salt.utils.yaml.safe_load(defaults),
            "osfamilymap": salt.utils.yaml.safe_load(osfamilymap),
            "components": salt.utils.yaml.safe_load(registry),
            "timezones": json.loads(timezones),
        }
    return __context__["immich_settings.files"]


def _content(path, source):
    if not path:
        raise CommandExecutionError(f"Salt's file server has no {source}: is the formula in file_roots or gitfs?")
    with salt.utils.files.fopen(path, encoding="utf-8") as handle:
        return handle.read()


def _problems_of_server_settings(described):
    """What is wrong with Immich's own settings and the schema cannot say, and what is doubtful."""
    declared = pillar_value(__pillar__, f"{problems.PILLAR_KEY}:{server_settings.KEY}")
    wrong, doubtful = server_settings.problems(declared, described["properties"][server_settings.KEY])
    return [*wrong, *_secrets_not_found(declared)], doubtful


# What is asked of the host


def _secrets_not_found(declared):
    for path, where in server_settings.references(declared).items():
        try:
            secret_files.secret(where, __pillar__)
        except CommandExecutionError as error:
            yield (server_settings.KEY, *path), str(error)


def _unusable_certificates(settings):
    asked = [(path, secret_files.unusable_certificates(file)) for path, file in derivation.authorities(settings)]
    return [(path, why) for path, why in asked if why]


def _zone_on_host(name):
    """Zones newer than the formula's list are known to a host that keeps its own up to date."""
    if not re.fullmatch(r"[A-Z][A-Za-z]+(/[A-Z][A-Za-z0-9_+-]+){1,2}", name):
        return False
    return os.path.isfile(f"/usr/share/zoneinfo/{name}")


def _refused_schedules(backup, defaults):
    asked = checks.schedules_to_ask(backup, defaults)
    return [key for key, schedule in asked.items() if not _systemd_understands(schedule)]


def _systemd_understands(schedule):
    """Whether systemd reads a calendar event in a text. Where it is not installed, any text passes."""
    if not shutil.which("systemd-analyze"):
        return True
    command = ["systemd-analyze", "calendar", "--", schedule]
    return __salt__["cmd.retcode"](command, python_shell=False, ignore_retcode=True) == 0


def _conflicts(external, wrong):
    """What on this host is in the way of the networks, each with its place in the pillar."""
    if "podman_network.conflicts" not in __salt__:
        return []
    compared = networks.subnets_to_compare(external, wrong)
    return [(path, message) for path, subnet, name in compared for message in _conflicts_of(subnet, name)]


def _conflicts_of(subnet, name):
    try:
        found = __salt__["podman_network.conflicts"](subnet, ignore=[name, *_former_network()])
    except (CommandExecutionError, SaltInvocationError) as err:
        return [f"could not be compared with Podman's networks: {err}"]
    return [f"{subnet} overlaps {conflict}" for conflict in found]


def _former_network():
    """Immich's network on this host, which makes room where the pillar has another."""
    try:
        return [name for name in [identity.known().get("network")] if name]
    except CommandExecutionError:
        return []  # the first state of immich.app says why


def _container_users(settings):
    """Each container's UID:GID on this host, by its part of the settings."""
    try:
        there = identity.known(derivation.project_dir(settings))
    except CommandExecutionError:
        there = {}  # the first state of immich.app says why
    folders = {
        "server": settings["upload_location"],
        "machine_learning": settings["machine_learning"]["cache_location"],
    }
    return {
        part: container_users.decided(
            settings[part]["user"],
            settings[part]["own_user"]["id"],
            functools.partial(host_users.owner, derivation.normal(folder)),
            there.get(f"{part}_user"),
        )
        for part, folder in folders.items()
    }


def _signed_up(settings):
    """Whether somebody has signed up as Immich's administrator, as far as this host knows."""
    postgres = {**settings["postgres"], "connection": derivation.postgres_connection(settings)}
    return administrator.signed_up(postgres, derivation.project_dir(settings), __salt__)


def _hardware(settings):
    """What each container gets of this host's devices, by its part of the settings."""
    declared = settings["hardware"]
    given = hardware.given(declared, devices.seen(hardware.asked(declared))) if hardware.chosen(declared) else {}
    return {name: _with_devices(given.get(name, {}), settings[name]) for name in hardware.CONTAINERS.values()}


def _with_devices(given, part):
    listed = part["devices"]
    return hardware.by_hand(given, listed, devices.seen(hardware.nothing_but(listed))) if listed else given


def _open_folders(derived):
    """Parts of the settings, each with a folder that root of its container writes to and every user here can enter."""
    return [
        (part, folder)
        for part, folders in container_users.folders(derived).items()
        for folder in folders
        if 0 in map(int, derived[part]["user"].split(":")) and owners.open_to_others(folder)
    ]


def _gateway_address(settings):
    """The address behind host.containers.internal, and what is wrong with it."""
    if settings["host_gateway"] != "podman":
        return settings["host_gateway"], []
    if not shutil.which("podman") or "podman_network.gateway" not in __salt__:
        return _PODMAN_GATEWAY, []
    try:
        return __salt__["podman_network.gateway"]("podman"), []
    except CommandExecutionError as err:
        return None, [(("host_gateway",), f"needs the gateway of Podman's default network: {err}")]


def _isolation(network):
    """How a network is isolated, or will be: by Podman's own default where the pillar does not say."""
    declared = network.get("isolate")
    if declared is not None or not shutil.which("podman") or "podman_network.default_isolation" not in __salt__:
        return declared
    return __salt__["podman_network.default_isolation"]()
