"""
Immich's compose project, as settings declare it
================================================

``settings`` is what ``immich_settings.get`` returns. What is read back from a compose file is ``compose_file``'s.

Sources of the rules: Immich's documentation of its environment variables, and what was measured with its server v3.0.3.
"""

import hashlib
import ipaddress
import json

import yaml  # PyYAML: a dependency of Salt

from immich_core import labels, pillar_paths, sign_up, storage
from immich_core.gateway import HOST_NAME

SERVER = "immich-server"
MACHINE_LEARNING = "immich-machine-learning"
IMAGES_OWN_USER = "0:0"
# The files below `secrets/`, and where the pillar has what they hold.
SECRETS = {"db_password": pillar_paths.POSTGRES_PASSWORD, "redis_password": pillar_paths.VALKEY_PASSWORD}
# More of them, where the pillar declares what they hold.
SERVER_SETTINGS = "server_settings"
CA_CERTIFICATES = "ca_certificates"
# By which Immich connects to Valkey by TLS, on the host and in the container.
VALKEY_TLS = "/usr/local/lib/immich-formula/valkey-tls.cjs"


def project(settings, vector_extension, selinux=False):
    """
    Return the compose project as data, without any secret.

    settings
        The formula's settings.
    vector_extension
        The one that Immich is configured to use, ``vectorchord`` or ``pgvector``.
    selinux
        Whether this host has SELinux enabled. Defaults to ``False``.

    .. code-block:: python

        compose.project(settings, "pgvector")
    """
    services = {SERVER: _server(settings, vector_extension, selinux)}
    if settings["machine_learning"]["enabled"]:
        services[MACHINE_LEARNING] = _machine_learning(settings, selinux)
    for service in services.values():
        service["labels"] = {labels.DEFINITION: digest(service)}
    return {
        "name": "immich",
        "services": services,
        "networks": {"immich": {"external": True, "name": settings["network"]["name"]}},
        "secrets": {name: {"file": f"./secrets/{name}"} for name in secrets(settings)},
        # For immich-stack, the program that runs the project.
        "x-immich-stack": {
            "compose": settings["lookup"]["podman"]["compose_command"],
            "main": SERVER,
            "ping": ping_url(settings),
            "timeout": settings["service"]["start_timeout"],
        },
        # One container, one name: a pod would tie the life of both together.
        "x-podman": {"in_pod": False},
    }


def text(settings, vector_extension, selinux=False):
    """
    Return the text of ``docker-compose.yml``.

    settings, vector_extension, selinux
        As for :py:func:`project`.

    .. code-block:: python

        compose.text(settings, "pgvector")
    """
    head = "# This file is managed by Salt (immich-formula). It holds no secret.\n"
    declared = project(settings, vector_extension, selinux)
    return head + yaml.safe_dump(declared, default_flow_style=False, allow_unicode=True)


def server_url(settings):
    """
    Return the address at which this host itself reaches the server, as in ``http://127.0.0.1:2283``.

    settings
        The formula's settings.

    .. code-block:: python

        compose.server_url({"bind_address": ["0.0.0.0"], "port": 2283})
    """
    # Those of IPv4 first, and among these what is there whatever becomes of an interface.
    address = min(settings["bind_address"], key=lambda address: (":" in address, address != "0.0.0.0"))
    if address == "0.0.0.0":
        address = "127.0.0.1"
    elif address == "::":
        # Linux passes on nothing from ::1. This host's own address on Immich's bridge is there while a container is.
        address = str(ipaddress.ip_network(settings["network"]["ipv6_subnet"])[1])
    return f"http://{_bracketed(address)}:{settings['port']}"


def ping_url(settings):
    """
    Return the address of the server's ping, as :py:func:`server_url` does.

    settings
        The formula's settings.

    .. code-block:: python

        compose.ping_url({"bind_address": ["0.0.0.0"], "port": 2283})
    """
    return f"{server_url(settings)}/api/server/ping"


def secrets(settings):
    """
    Return the names of the files below ``secrets/`` that the server gets.

    settings
        The formula's settings.

    .. code-block:: python

        compose.secrets(settings)
    """
    declared = {
        SERVER_SETTINGS: settings["server"]["settings_managed"],
        CA_CERTIFICATES: settings["server"]["trusted"],
    }
    return [*SECRETS, *(name for name, there in declared.items() if there)]


def _common(settings, name, part, selinux):
    service = {
        "image": part["image"],
        "container_name": name,
        "networks": ["immich"],
        "extra_hosts": [
            f"{HOST_NAME}:{settings['gateway_address']}",
            *(f"{host}:{address}" for host, address in sorted(part["hosts"].items())),
        ],
        # podman-compose 1.0 knows no DNS servers: immich-stack hands them on to Podman.
        **({"dns": part["dns"]} if part["dns"] else {}),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        # The journal has the lines too (immich.service follows them); this is for `podman compose logs`, and bounded.
        "logging": {"driver": "k8s-file", "options": {"max-size": "20mb"}},
    }
    if selinux:
        # The alternative, a `:z` on the mount, relabels every photo.
        service["security_opt"].append("label=disable")
    if part["user"] != IMAGES_OWN_USER:
        service["user"] = part["user"]
    if part["read_only"]:
        service |= {"read_only": True, "tmpfs": _tmpfs(part["tmp_size"])}
    given = part["hardware"]
    if given:
        service["devices"] = list(map(_escaped, given["devices"]))
        service["security_opt"] += given["security_opt"]
        # podman-compose 1.0 knows no groups: immich-stack hands them on to Podman.
        service |= {"group_add": given["group_add"]} if given["group_add"] else {}
    # podman-compose 1.3 knows no limit of processes: immich-stack hands that one on to Podman.
    limits = {"mem_limit": part["memory_limit"], "pids_limit": part["pids_limit"]}
    return {**service, **{key: limit for key, limit in limits.items() if limit}}


def _tmpfs(size):
    """What can be written, with sizes: Podman mounts /run and /var/tmp anyhow, each with half of the host's memory."""
    return [f"/tmp:size={size},mode=1777", "/run:size=16m,mode=0755", "/var/tmp:size=64m,mode=1777"]


def _server(settings, vector_extension, selinux):
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
        **({sign_up.VARIABLE: "false"} if settings["sign_up"] == sign_up.CLOSED else {}),
        **({"DB_SSL_MODE": postgres["sslmode"]} if postgres["sslmode"] else {}),
        **settings["server"]["hardware"].get("environment", {}),
        **settings["server"]["environment"],
    }
    if settings["server"]["settings_managed"]:
        environment["IMMICH_CONFIG_FILE"] = f"/run/secrets/{SERVER_SETTINGS}"
    if settings["server"]["trusted"]:
        environment["NODE_EXTRA_CA_CERTS"] = f"/run/secrets/{CA_CERTIFICATES}"
    program = [_bind(VALKEY_TLS, VALKEY_TLS, True)] if valkey["tls"] else []
    if valkey["tls"]:
        environment["NODE_OPTIONS"] = f"--require={VALKEY_TLS}"
    folders = [_bind(path, f"{storage.MEDIA}/{folder}", False) for folder, path in storage.elsewhere(settings).items()]
    libraries = [_bind(library["path"], library["mount"], True) for library in settings["external_libraries"]]
    return {
        **_common(settings, SERVER, settings["server"], selinux),
        "environment": _environment(environment),
        "volumes": [
            _bind(settings["upload_location"], storage.MEDIA, False),
            *folders,
            *libraries,
            *_volumes(settings["server"]),
            *program,
        ],
        "secrets": secrets(settings),
        "ports": [f"{_bracketed(address)}:{settings['port']}:2283" for address in _published(settings)],
        "healthcheck": _healthcheck(["CMD", "immich-healthcheck"]),
        "stop_grace_period": "30s",
    }


def _published(settings):
    """The addresses to publish at. Where a network has IPv6, 0.0.0.0 is :: too, and Podman cannot remove both."""
    addresses = settings["bind_address"]
    return ["0.0.0.0"] if "0.0.0.0" in addresses else addresses


def _machine_learning(settings, selinux):
    part = settings["machine_learning"]
    environment = {
        "TZ": settings["timezone"],
        # The image's own default, [::], ends it on a host without IPv6. Where its network has IPv6, its name has too.
        "IMMICH_HOST": "[::]" if "ipv6_subnet" in settings["network"] else "0.0.0.0",
        # A numeric user has no writable home in the image.
        "HF_XET_CACHE": "/cache/huggingface-xet",
        "MPLCONFIGDIR": "/cache/matplotlib",
        **part["hardware"].get("environment", {}),
        **part["environment"],
    }
    return {
        **_common(settings, MACHINE_LEARNING, part, selinux),
        "environment": _environment(environment),
        "volumes": [_bind(part["cache_location"], "/cache", False), *_volumes(part)],
        "healthcheck": _healthcheck(["CMD", "python3", "/usr/src/healthcheck.py"]),
        "stop_grace_period": "10s",
    }


def _volumes(part):
    """What the pillar lists, and libraries of a driver and the like, at the same path as on this host."""
    listed = [_bind(volume["path"], volume["mount"], volume["read_only"]) for volume in part["volumes"]]
    return [*listed, *(_bind(path, path, True) for path in part["hardware"].get("mounts", []))]


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


def digest(service):
    """Return what a service is labelled with: a hash of all else in it."""
    service = {key: value for key, value in service.items() if key != "labels"}
    return hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()[:16]
