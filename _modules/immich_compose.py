"""
Immich's compose project: what stands in its file
=================================================

``settings`` is what ``immich_settings.get`` returns. In the examples, ``SETTINGS`` holds the JSON of
``salt-call --local --out=json immich_settings.get``.

Sources of the rules: Immich's documentation of its environment variables, and what was measured with its server v3.0.3.
"""

import hashlib
import ipaddress
import json
from pathlib import Path

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

__virtualname__ = "immich_compose"

SERVER = "immich-server"
MACHINE_LEARNING = "immich-machine-learning"
IMAGES_OWN_USER = "0:0"
HASH_LABEL = "io.immich-formula.service-hash"


def __virtual__():
    return __virtualname__


def project(settings, vector_extension):
    """
    Return the compose project as data, without any secret.

    settings
        The formula's settings.

    vector_extension
        The one that Immich is configured to use, ``vectorchord`` or ``pgvector``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.project "$SETTINGS" pgvector
    """
    services = {SERVER: _server(settings, vector_extension)}
    if settings["machine_learning"]["enabled"]:
        services[MACHINE_LEARNING] = _machine_learning(settings)
    for service in services.values():
        service["labels"] = {HASH_LABEL: _digest(service)}
    return {
        "name": "immich",
        "services": services,
        "networks": {"immich": {"external": True, "name": settings["network"]["name"]}},
        "secrets": {name: {"file": f"./secrets/{name}"} for name in ("db_password", "redis_password")},
        # For immich-stack, the program that runs the project.
        "x-immich-stack": {
            "compose": settings["lookup"]["podman"]["compose_command"],
            "main": SERVER,
            "ping": f"{server_url(settings)}/api/server/ping",
            "timeout": settings["service"]["start_timeout"],
        },
        # One container, one name: a pod would tie the life of both together.
        "x-podman": {"in_pod": False},
    }


def project_yaml(settings, vector_extension):
    """
    Return the text of ``docker-compose.yml``.

    Arguments are those of :py:func:`project`.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.project_yaml "$SETTINGS" pgvector
    """
    head = "# This file is managed by Salt (immich-formula). It holds no secret.\n"
    return head + salt.utils.yaml.safe_dump(project(settings, vector_extension), default_flow_style=False)


def _common(settings, name, part):
    service = {
        "image": part["image"],
        "container_name": name,
        "networks": ["immich"],
        "extra_hosts": [f"host.containers.internal:{settings['gateway_address']}"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        # The journal has the lines too (immich.service follows them); this is for `podman compose logs`, and bounded.
        "logging": {"driver": "k8s-file", "options": {"max-size": "20mb"}},
    }
    if __grains__.get("selinux", {}).get("enabled"):
        # The alternative, a `:z` on the mount, relabels every photo.
        service["security_opt"].append("label=disable")
    if part["user"] != IMAGES_OWN_USER:
        service["user"] = part["user"]
    if part["read_only"]:
        service |= {"read_only": True, "tmpfs": _tmpfs(part["tmp_size"])}
    # podman-compose 1.3 knows no limit of processes: immich-stack hands that one on to Podman.
    limits = {"mem_limit": part["memory_limit"], "pids_limit": part["pids_limit"]}
    return {**service, **{key: limit for key, limit in limits.items() if limit}}


def _tmpfs(size):
    """What can be written, with sizes: Podman mounts /run and /var/tmp anyhow, each with half of the host's memory."""
    return [f"/tmp:size={size},mode=1777", "/run:size=16m,mode=0755", "/var/tmp:size=64m,mode=1777"]


def _server(settings, vector_extension):
    postgres, valkey = settings["postgres"], settings["valkey"]
    environment = {
        "TZ": settings["timezone"],
        "DB_HOSTNAME": postgres["host"],
        "DB_PORT": postgres["port"],
        "DB_USERNAME": postgres["user"],
        "DB_DATABASE_NAME": postgres["database"],
        "DB_PASSWORD_FILE": "/run/secrets/db_password",
        # Left alone, a package that appears on the server would switch it under a running Immich.
        "DB_VECTOR_EXTENSION": vector_extension,
        "REDIS_HOSTNAME": valkey["host"],
        "REDIS_PORT": valkey["port"],
        "REDIS_DBINDEX": valkey["database"],
        "REDIS_USERNAME": valkey["user"],
        "REDIS_PASSWORD_FILE": "/run/secrets/redis_password",
        **settings["server"]["environment"],
    }
    libraries = [_bind(library["path"], library["mount"], True) for library in settings["external_libraries"]]
    return {
        **_common(settings, SERVER, settings["server"]),
        "environment": _environment(environment),
        "volumes": [_bind(settings["upload_location"], "/data", False), *libraries],
        "secrets": ["db_password", "redis_password"],
        "ports": [f"{_bracketed(address)}:{settings['port']}:2283" for address in _published(settings)],
        "healthcheck": _healthcheck(["CMD", "immich-healthcheck"]),
        "stop_grace_period": "30s",
    }


def _published(settings):
    """The addresses to publish at. Where a network has IPv6, 0.0.0.0 is :: too, and Podman cannot remove both."""
    addresses = settings["bind_address"]
    return ["0.0.0.0"] if "0.0.0.0" in addresses else addresses


def _machine_learning(settings):
    part = settings["machine_learning"]
    environment = {
        "TZ": settings["timezone"],
        # The image's own default, [::], ends it on a host without IPv6. Where its network has IPv6, its name has too.
        "IMMICH_HOST": "[::]" if "ipv6_subnet" in settings["network"] else "0.0.0.0",
        # A numeric user has no writable home in the image.
        "HF_XET_CACHE": "/cache/huggingface-xet",
        "MPLCONFIGDIR": "/cache/matplotlib",
        **part["environment"],
    }
    return {
        **_common(settings, MACHINE_LEARNING, part),
        "environment": _environment(environment),
        "volumes": [_bind(part["cache_location"], "/cache", False)],
        "healthcheck": _healthcheck(["CMD", "python3", "/usr/src/healthcheck.py"]),
        "stop_grace_period": "10s",
    }


def _environment(values):
    """Strings, with the `$` that compose would interpolate doubled."""
    return {name: _escaped(str(value)) for name, value in values.items()}


def _escaped(text):
    return text.replace("$", "$$")


def _bind(source, target, read_only):
    mount = {"type": "bind", "source": _escaped(source), "target": _escaped(target)}
    return {**mount, "read_only": True} if read_only else mount


def _bracketed(address):
    return f"[{address}]" if ":" in address else address


def _healthcheck(test):
    # Podman ignores what the images bring: an OCI manifest carries no health check.
    return {"test": test, "interval": "30s", "timeout": "10s", "retries": 3, "start_period": "60s"}


def _digest(service):
    return hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()[:16]


def deviations(settings, compose):
    """
    Return where a compose file is not what the settings want: ``{"by_hand": [services], "differences": [sentences]}``.

    A service that was changed by hand does not have the digest that its label says. One that only differs was written
    from other settings, and the next apply brings it up to date.

    settings
        The formula's settings.

    compose
        Text of the compose file.

    Raises CommandExecutionError if it is none of the formula's.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.deviations "$SETTINGS" "$(cat /opt/podman/immich/docker-compose.yml)"
    """
    current, desired = _current_and_desired(settings, compose)
    by_hand = [name for name, service in current["services"].items() if not _is_as_written(service)]
    differences = [f"{what} is {old}, not {new}" for what, old, new in _differences(current, desired)]
    return {"by_hand": by_hand, "differences": differences}


def changes(settings, compose):
    """
    Return what the settings change in a compose file, as a list of sentences with the old and the new value. Where
    anything of a container changes, that is all: what ``immich-stack`` reads follows from it.

    settings
        The formula's settings.

    compose
        Text of the compose file.

    Raises CommandExecutionError if it is none of the formula's.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.changes "$SETTINGS" "$(cat /opt/podman/immich/docker-compose.yml)"
    """
    current, desired = _current_and_desired(settings, compose)
    of_services = list(_differences(current["services"], desired["services"], ("services",)))
    found = of_services or _differences(current, desired)
    return [f"{what}: {old} becomes {new}" for what, old, new in found]


def _current_and_desired(settings, compose):
    try:
        current = salt.utils.yaml.safe_load(compose)
        vector = current["services"][SERVER]["environment"]["DB_VECTOR_EXTENSION"]
    except (KeyError, TypeError, AttributeError, salt.utils.yaml.YAMLError) as error:
        raise CommandExecutionError("The compose file is not the one that Salt wrote") from error
    return current, project(settings, vector)


def ping_url(compose):
    """
    Return the address of the server's ping that a compose file names, or None if it is none of the formula's.

    compose
        Text of the compose file.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.ping_url "$(cat /opt/podman/immich/docker-compose.yml)"
    """
    try:
        return salt.utils.yaml.safe_load(compose)["x-immich-stack"]["ping"]
    except (KeyError, TypeError, salt.utils.yaml.YAMLError):
        return None


def _is_as_written(service):
    return isinstance(service, dict) and service.get("labels") == {
        HASH_LABEL: _digest({k: v for k, v in service.items() if k != "labels"})
    }


def _differences(current, desired, path=()):
    if current == desired or path[-1:] == ("labels",):
        return
    if not (isinstance(current, dict) and isinstance(desired, dict)):
        yield ":".join(path), json.dumps(current), json.dumps(desired)
        return
    for key in sorted({*current, *desired}):
        yield from _differences(current.get(key), desired.get(key), (*path, key))


def upload_location(compose_file):
    """
    Return the path that an existing compose file mounts at ``/data``, or None if there is none.

    compose_file
        Path of ``docker-compose.yml``.

    Raises CommandExecutionError if the file is there and cannot be understood.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.upload_location /opt/podman/immich/docker-compose.yml
    """
    path = Path(compose_file)
    if not path.exists():
        return None
    try:
        mounts = salt.utils.yaml.safe_load(path.read_text(encoding="utf8"))["services"][SERVER]["volumes"]
        sources = [_mount_source(mount) for mount in mounts if _mount_target(mount) == "/data"]
    except (KeyError, TypeError, AttributeError, salt.utils.yaml.YAMLError) as error:
        raise CommandExecutionError(
            f"{compose_file} is there, but says nowhere which path is mounted at /data"
        ) from error
    return sources[0].replace("$$", "$") if sources else None


def users(compose_file):
    """
    Return the ``UID:GID`` of each service of a compose file that the formula wrote, by the service's name.

    A service that somebody else described is left out, and so is a file that is not there or is no compose file.

    compose_file
        Path of ``docker-compose.yml``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.users /opt/podman/immich/docker-compose.yml
    """
    try:
        services = salt.utils.yaml.safe_load(Path(compose_file).read_text(encoding="utf8"))["services"]
        return {
            name: service.get("user", IMAGES_OWN_USER)
            for name, service in services.items()
            if HASH_LABEL in service.get("labels", {})
        }
    except (OSError, KeyError, TypeError, AttributeError, salt.utils.yaml.YAMLError):
        return {}


def _mount_source(mount):
    return mount["source"] if isinstance(mount, dict) else mount.split(":")[0]


def _mount_target(mount):
    return mount["target"] if isinstance(mount, dict) else mount.split(":")[1]


def server_url(settings):
    """
    Return the address at which this host itself reaches the server, as in ``http://127.0.0.1:2283``.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_compose.server_url '{"bind_address": ["0.0.0.0"], "port": 2283}'
    """
    # Those of IPv4 first, and among these what is there whatever becomes of an interface.
    address = min(settings["bind_address"], key=lambda address: (":" in address, address != "0.0.0.0"))
    if address == "0.0.0.0":
        address = "127.0.0.1"
    elif address == "::":
        # Linux passes on nothing from ::1. This host's own address on Immich's bridge is there while a container is.
        address = str(ipaddress.ip_network(settings["network"]["ipv6_subnet"])[1])
    return f"http://{_bracketed(address)}:{settings['port']}"
