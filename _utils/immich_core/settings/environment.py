"""
The environment of Immich's containers: which variables a pillar may set
=========================================================================
"""

import math
import re

from immich_core.settings.derivation import authorities
from immich_core.settings.schema import kind_of

# What Linux takes as one argument of a command, in bytes: NAME=value, on its way to Podman.
_MAX_ARGUMENT = 131071
_LOG_LEVELS = ("verbose", "debug", "log", "warn", "error", "fatal")
_CHOICES = {
    "IMMICH_LOG_LEVEL": _LOG_LEVELS,
    "DB_SSL_MODE": ("disable", "allow", "prefer", "require", "verify-full"),
}
# Variables with a setting of their own. Immich reads each also as NAME_FILE where it is about a connection.
_OWN_VARIABLES = {
    "TZ": "immich:timezone",
    "PATH": "nothing: the image needs its own",
    "CREDENTIALS_DIRECTORY": "immich:postgres:password and immich:valkey:password",
}
_CONNECTION_VARIABLES = {
    "DB_URL": "immich:postgres",
    "DB_HOSTNAME": "immich:postgres:host",
    "DB_PORT": "immich:postgres:port",
    "DB_DATABASE_NAME": "immich:postgres:database",
    "DB_USERNAME": "immich:postgres:user",
    "DB_PASSWORD": "immich:postgres:password",
    "DB_VECTOR_EXTENSION": "immich:postgres:vector_extension",
    "REDIS_URL": "immich:valkey",
    "REDIS_SOCKET": "immich:valkey:host",
    "REDIS_HOSTNAME": "immich:valkey:host",
    "REDIS_PORT": "immich:valkey:port",
    "REDIS_DBINDEX": "immich:valkey:database",
    "REDIS_USERNAME": "immich:valkey:user",
    "REDIS_PASSWORD": "immich:valkey:password",
}
_SERVER_VARIABLES = {
    "IMMICH_HOST": "immich:bind_address",
    "IMMICH_PORT": "immich:port",
    "IMMICH_MEDIA_LOCATION": "immich:upload_location",
    "IMMICH_ALLOW_SETUP": "immich:setup",
}
_ML_VARIABLES = {
    "IMMICH_HOST": "nothing: the formula sets it",
    "IMMICH_PORT": "nothing: the formula sets it",
    "MACHINE_LEARNING_CACHE_FOLDER": "immich:machine_learning:cache_location",
}
# The environment stands in a compose file that every user of the host can read, and in `podman inspect`.
_SECRET_NAME = re.compile(
    "SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|(_PASS|_KEY|APIKEY|PRIVATEKEY)(_(PEM|B64|BASE64))?$", re.IGNORECASE
)
# Between the colon and the @ stands a password, which may have a slash, or a port and a path that has an @.
_SECRET_URL = re.compile(r"://[^/\s:@\[]*:(?!\d+([/,;]|$))[^\s@]+@")
# HF_HUB_DISABLE_IMPLICIT_TOKEN and TOKENIZERS_PARALLELISM are switches.
_SWITCHES = ("0", "1", "true", "false", "yes", "no", "on", "off")
_SECRET_PLACES = (
    ("OAUTH|OIDC|OPENID", "set immich:settings:oauth:clientSecret, or enter it on Immich's page"),
    ("SMTP|MAIL", "set immich:settings:notifications:smtp:transport:password, or enter it on Immich's page"),
    ("POSTGRES|^PG|^DB_|DATABASE", "the database's password is immich:postgres:password"),
    ("REDIS|VALKEY", "Valkey's password is immich:valkey:password"),
    ("^HF_|HUGGING", "leave it out: Immich's models are public"),
)


def check_environment(settings):
    set_by_formula = {
        "IMMICH_CONFIG_FILE": settings["settings"] is not None and "immich:settings",
        "DB_SSL_MODE": settings["postgres"]["sslmode"] and "immich:postgres:sslmode",
        "NODE_OPTIONS": settings["valkey"]["tls"] and "immich:valkey:tls",
        "NODE_EXTRA_CA_CERTS": authorities(settings) and "immich:server:ca_certificates",
    }
    for name, setting in set_by_formula.items():
        if setting and name in settings["server"]["environment"]:
            yield ("server", "environment", name), f"has a setting of its own; use {setting}"
    for component, own in (
        ("server", {**_OWN_VARIABLES, **_CONNECTION_VARIABLES, **_SERVER_VARIABLES}),
        ("machine_learning", {**_OWN_VARIABLES, **_CONNECTION_VARIABLES, **_ML_VARIABLES}),
    ):
        for name, value in settings[component]["environment"].items():
            path = (component, "environment", name)
            yield from ((path, message) for message in _check_variable(name, value, own))
    yield from _check_workers(settings["server"]["environment"])


def _check_variable(name, value, own):
    # Immich reads what is about a connection from NAME_FILE too.
    setting = own.get(name, own.get(name[: -len("_FILE")]) if name.endswith("_FILE") else None)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        yield "is not the name of an environment variable: letters, digits and underscores, no digit first"
    elif setting:
        yield f"has a setting of its own; use {setting}"
    elif _is_secret(name, str(value)):
        yield f"means a secret, which everyone on this host could read in the compose file: {_secret_place(name)}"
    elif _SECRET_URL.search(str(value)):
        yield (
            "holds a URL with a password, which everyone on this host could read in the compose file: use a server "
            "that needs no password from this host"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"must be text or a number, not {kind_of(value)}"
    elif len(f"{name}={value}".encode()) > _MAX_ARGUMENT:
        yield f"is too long: {_MAX_ARGUMENT} bytes with its name"
    elif name in _CHOICES and value not in _CHOICES[name]:
        yield f"must be one of {', '.join(_CHOICES[name])}: Immich refuses to start with another"


def _is_secret(name, value):
    if name.endswith("_FILE"):  # the path of one
        return False
    return bool(_SECRET_NAME.search(name)) and value.lower() not in _SWITCHES


def _secret_place(name):
    places = (place for words, place in _SECRET_PLACES if re.search(words, name, re.IGNORECASE))
    return next(places, "set it in immich:settings, or in Immich, under Administration > Settings")


def _check_workers(environment):
    include, exclude = (
        str(environment.get(f"IMMICH_WORKERS_{which}", "")).replace(" ", "").split(",")
        for which in ("INCLUDE", "EXCLUDE")
    )
    if include != [""] and "api" not in include:
        yield (
            ("server", "environment", "IMMICH_WORKERS_INCLUDE"),
            "must include api: nothing listens without it",
        )
    if "api" in exclude:
        yield (
            ("server", "environment", "IMMICH_WORKERS_EXCLUDE"),
            "must not exclude api: nothing listens without it",
        )
