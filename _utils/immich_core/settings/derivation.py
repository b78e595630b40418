"""
What follows from settings: the defaults of this system, and of valid settings all that the formula works with
===============================================================================================================
"""

import os
import re

from immich_core import components, hardware, sign_up
from immich_core.gateway import HOST_NAME
from immich_core.settings.hardware import tagged
from immich_core.settings.networks import bind_addresses, ip_address
from immich_core.settings.problems import PILLAR_KEY
from immich_core.settings.roles import here
from immich_core.settings.schema import public

FORMULA_USER = "immich-formula"
_FORMULA_PASSWORD_FILE = "/etc/immich-formula/valkey.password"


def lookup_of(osfamilymap, grains, pillar):
    """What this system calls things, by its grains, under what the pillar says of it."""
    found = {}
    for grain in ("os_family", "os", "osfinger"):
        found = merged(found, osfamilymap.get(grains.get(grain), {}))
    return merged(found, pillar)


def merged(lower, upper):
    """One tree over another: mappings are merged, everything else is replaced."""
    if not isinstance(lower, dict) or not isinstance(upper, dict):
        return upper
    return {**lower, **{key: merged(lower.get(key), value) for key, value in upper.items()}}


def derived(settings, networks, gateway, users, accelerated, registry, left, schema, setup):
    """
    Settings with what follows from them, and without secrets.

    networks
        As ``networks.described`` returns them.
    gateway
        Address of this host for containers.
    users
        Each container's UID:GID on this host, by its part of the settings.
    accelerated
        What each container gets for acceleration, as ``immich_core.hardware.given`` returns it.
    registry
        What ``components.yaml`` holds.
    left
        Names of the components that left a trace on this host.
    setup
        Who can sign up as administrator, as of ``sign_up.mode``.
    """
    host = components.of_host(registry, settings)
    services = here(settings, {*host, *left})
    external = [network for _, network in networks]
    own = next(network for network in external if network["name"] == settings["network"])
    following = {
        "upload_location": normal(settings["upload_location"]),
        "storage": _normal_each(settings["storage"]),
        "storage_moved_from": _normal_each(settings["storage_moved_from"]),
        "external_libraries": [library_of(entry) for entry in settings["external_libraries"]],
        "users": [_user(index, user) for index, user in enumerate(settings["users"])],
        "gateway_address": gateway,
        # Where PostgreSQL and Valkey listen besides what they did: for containers of this host, if it can have any.
        "listen_addresses": [gateway] if "gateway" in host else [],
        "network": own,
        "project_dir": project_dir(settings),
        "components": components.observed(registry, host),
        "includes": components.includes(registry, host, left, services),
        "before": components.waiting(registry, host),
        "server": {
            "user": users["server"],
            "image": tagged(settings["server"]["image"], settings["version"], ""),
            "hardware": accelerated.get("server", {}),
            "environment": _variables(settings["server"]["environment"]),
            **_by_hand(settings["server"]),
            "settings_managed": settings["settings"] is not None,
            "trusted": list(dict.fromkeys(path for _, path in authorities(settings))),
        },
        "machine_learning": {
            "enabled": settings["machine_learning"]["enabled"] and "machine_learning" in settings["roles"],
            "user": users["machine_learning"],
            "image": tagged(
                settings["machine_learning"]["image"], settings["version"], hardware.suffix(settings["hardware"])
            ),
            "hardware": accelerated.get("machine_learning", {}),
            "environment": _variables(settings["machine_learning"]["environment"]),
            **_by_hand(settings["machine_learning"]),
            "cache_location": normal(settings["machine_learning"]["cache_location"]),
        },
        "podman": {"external_networks": external},
        "backup": {"directory": normal(settings["backup"]["directory"])},
        "postgres": {
            "here": "postgres" in services,
            "host": settings["postgres"]["host"] or HOST_NAME,
            "connection": postgres_connection(settings),
        },
        "valkey": {
            "here": "valkey" in services,
            "host": settings["valkey"]["host"] or HOST_NAME,
            "connection": _valkey_connection(settings["valkey"]),
            "acl_users": [_acl_user(index, user) for index, user in enumerate(settings["valkey"]["acl_users"])],
        },
    }
    addresses = [str(ip_address(text)) for _, text in bind_addresses(settings)]
    return public({**merged(settings, following), **sign_up.derived(settings, setup, addresses)}, schema)


def authorities(settings):
    """The files of certificates that the server trusts besides the usual ones, each with its place in the pillar."""
    declared = (("server", "ca_certificates"), ("postgres", "sslrootcert"), ("valkey", "tls_ca"))
    return [(path, settings[path[0]][path[1]]) for path in declared if settings[path[0]][path[1]]]


def handed_down(settings):
    """
    The settings as states get them in an argument, which Salt logs at debug level and caches.

    Without the hook of the administrator's, who may have written a token into it, and without the registry.
    """
    backup = {key: value for key, value in settings["backup"].items() if key != "on_failure"}
    rest = {key: value for key, value in settings.items() if key not in ("includes", "before", "components")}
    return {**rest, "backup": backup}


def postgres_connection(settings):
    """The formula's own connection to PostgreSQL, as it is declared."""
    postgres, lookup = settings["postgres"], settings["lookup"]["postgres"]
    if not postgres["managed"]:
        return _admin_connection("postgres", postgres)
    user = lookup["os_user"]
    return {"host": lookup["socket_dir"], "port": postgres["port"], "user": user, "os_user": user}


def _valkey_connection(valkey):
    if not valkey["managed"]:
        return _admin_connection("valkey", valkey)
    return {
        "host": "127.0.0.1",
        "port": valkey["port"],
        "username": FORMULA_USER,
        "password_file": _FORMULA_PASSWORD_FILE,
    }


def _admin_connection(service, settings):
    """An administrator's connection as it is declared. Its password stays in the pillar."""
    declared = {key: value for key, value in settings["admin"].items() if value is not None and key != "password"}
    if settings["admin"]["password"] is not None:
        declared["password_pillar"] = f"{PILLAR_KEY}:{service}:admin:password"
    return {"port": settings["port"], **declared}


def _acl_user(index, user):
    """Either form of an entry as name, rules and the place of its password."""
    rules = user.get("rules")
    if rules is None:
        rules = " ".join([*(f"~{pattern}" for pattern in user["keypattern"].split()), *user["commands"].split()])
    return {
        "name": user.get("name", user.get("username")),
        "rules": rules,
        "password_pillar": f"{PILLAR_KEY}:valkey:acl_users:{index}:password",
    }


def project_dir(settings):
    """Directory of Immich's compose project."""
    return normal(f"{settings['podman']['projects_dir']}/immich")


def library_of(entry):
    """Either form of an external library as a folder of this host, its mount in the container, and its owner if any."""
    if isinstance(entry, str):
        entry = {"path": entry}
    path = normal(entry["path"])
    owner = {"owner": entry["owner"]} if "owner" in entry else {}
    return {"path": path, "mount": normal(entry.get("mount", path)), **owner}


def volume_of(entry):
    """Either form of a volume as a path of this host, its mount in the container, and whether that is read-only."""
    if isinstance(entry, str):
        entry = {"path": entry}
    path = normal(entry["path"])
    return {"path": path, "mount": normal(entry.get("mount", path)), "read_only": entry.get("read_only", True)}


def _user(index, user):
    """A declared account, with the place of its password."""
    declared = {key: value for key, value in user.items() if key != "password"}
    return {**declared, "password_pillar": f"{PILLAR_KEY}:users:{index}:password"}


def _by_hand(part):
    return {
        "volumes": [volume_of(entry) for entry in part["volumes"]],
        "hosts": {name: str(ip_address(text)) for name, text in part["hosts"].items()},
        "dns": [str(ip_address(text)) for text in part["dns"]],
    }


def _variables(environment):
    return {name: str(value) for name, value in environment.items()}


def _normal_each(paths):
    return {key: path and normal(path) for key, path in paths.items()}


def normal(path):
    """A path with single slashes and none at the end."""
    return os.path.normpath(re.sub("/+", "/", path))
