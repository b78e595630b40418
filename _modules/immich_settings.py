"""
Settings of the formula: defaults, pillar, validation and what follows from them
=================================================================================

The one place that knows defaults. Reads ``defaults.yaml``, ``osfamilymap.yaml``, ``schema.json`` and
``timezones.json`` from ``salt://immich``, lays the pillar key ``immich`` over them, and says all at once what
is wrong with it. No text that it returns holds a password.

:depends: - ``jsonschema`` in Salt's own Python
"""

import difflib
import filecmp
import importlib.util
import ipaddress
import itertools
import json
import math
import os
import re
import shlex
import shutil
import stringprep
import unicodedata

import salt.utils.files
import salt.utils.yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "immich_settings"

_PILLAR_KEY = "immich"
# What the formula syncs to a minion. A minion with an older list has an older version of this file, which shows.
_OWN_FILES = {
    "modules": (
        "immich_app",
        "immich_backup",
        "immich_compose",
        "immich_doctor",
        "immich_gateway",
        "immich_identity",
        "immich_image",
        "immich_overview",
        "immich_postgres",
        "immich_preflight",
        "immich_restore",
        "immich_settings",
        "immich_update",
        "immich_user",
        "immich_valkey",
        "netns",
        "pgsql",
        "pgsql_hba",
        "podman_network",
        "systemd_unit",
        "valkey_acl",
        "valkey_config",
    ),
    "output": ("immich_doctor",),
    "states": (
        "immich",
        "immich_app",
        "immich_backup",
        "immich_gateway",
        "immich_identity",
        "immich_postgres",
        "immich_update",
        "immich_valkey",
        "pgsql_config",
        "pgsql_database",
        "pgsql_extension",
        "pgsql_hba",
        "pgsql_role",
        "podman_network",
        "systemd_unit",
        "valkey_acl",
        "valkey_config",
    ),
    "utils": (
        "immich_core/__init__",
        "immich_core/durable",
        "immich_core/file_tree",
        "immich_core/lock",
        "immich_core/progress",
        "immich_core/project",
        "immich_core/untrusted",
        "immich_core/versions",
        "systemd_looks",
    ),
}
_FILES = ("schema.json", "defaults.yaml", "osfamilymap.yaml", "timezones.json")
_MIN_PASSWORD = 12
# An empty Valkey takes two; a few ten thousand jobs more than that.
_MIN_MAXMEMORY = 64
# Before Podman is there, what it will have: default_subnet of containers.conf(5).
_PODMAN_GATEWAY = "10.88.0.1"
_HOST_NAME = "host.containers.internal"
_FORMULA_USER = "immich-formula"
_FORMULA_PASSWORD_FILE = "/etc/immich-formula/valkey.password"
_LOOSE = (
    "is not strict, for which Debian 12 and Ubuntu 24.04 are too old: Immich's containers reach those on networks of "
    "Podman that are not isolated, as its default network"
)
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, half surrogates, line and paragraph ends

_KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "nothing",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
# What Linux holds in a name and in a path, in bytes, less room for what the formula puts below a directory.
_MAX_NAME = 255
_MAX_PATH = 3800
# The highest number of a user or group that Podman takes.
_MAX_ID = 2**31 - 1
# What Linux takes as one argument of a command, in bytes: NAME=value, on its way to Podman.
_MAX_ARGUMENT = 131071
# The formula makes, owns and deletes nothing that is one of these itself, only what is below them.
_SYSTEM_DIRS = re.compile(
    "/(bin|boot|dev|etc|home|lib|lib64|opt|proc|root|run|sbin|srv|sys|tmp|usr|var|var/backups|var/lib|var/log)?"
)
# What is there is gone after a boot, and systemd shows services their own.
_PASSING_DIRS = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/run", "/var/tmp")
_PROJECTS_DIRS = re.compile("/(bin|boot|dev|etc|lib|lib64|proc|run|sbin|sys|tmp|usr|var)?")
# What is in Immich's images, and their volumes: neither these nor anything below them is free for a mount.
_CONTAINER_DIRS = re.compile(
    "/(bin|build|cache|data|dev|etc|lib|lib64|proc|root|run|sbin|sys|tmp|usr)(/.*)?|/(opt|var)?"
)
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
    ("OAUTH|OIDC|OPENID", "enter it in Immich, under Administration > Settings > Authentication Settings > OAuth"),
    ("SMTP|MAIL", "enter it in Immich, under Administration > Settings > Notification Settings"),
    ("POSTGRES|^PG|^DB_|DATABASE", "the database's password is immich:postgres:password"),
    ("REDIS|VALKEY", "Valkey's password is immich:valkey:password"),
    ("^HF_|HUGGING", "leave it out: Immich's models are public"),
)


def __virtual__():
    if importlib.util.find_spec("jsonschema"):
        return __virtualname__
    return False, "immich_settings needs jsonschema in Salt's own Python, which immich.bootstrap brings"


def get():
    """
    Return the settings: defaults under pillar, and what follows from both. Passwords are left out.

    Nothing is returned where the pillar is wrong; ``immich_settings.errors`` says why.

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.get
    """
    return _evaluated()["settings"]


def errors():
    """
    Return everything that is wrong with the pillar, as a list of ``path`` and ``message``.

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.errors
    """
    return _evaluated()["errors"]


def warnings():
    """
    Return what is allowed in the pillar but worth a second thought, as a list of ``path`` and ``message``.

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.warnings
    """
    return _evaluated()["warnings"]


def secret_paths():
    """
    Return the pillar paths of secrets, with ``*`` for every entry of a list.

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.secret_paths
    """
    return [_text(path) for path in _secrets(_files()["schema"])]


def up_to_date():
    """
    Tell whether the modules that this minion has synced are those of the formula on the file server.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_settings.up_to_date
    """
    # Every SLS of a run asks. Only a yes is kept: after a no the run syncs them.
    if __context__.get("immich_settings.up_to_date"):
        return True
    names = [(kind, name) for kind, names in _OWN_FILES.items() for name in names]
    # In one call: each of its own would make another client of the file server, 40 ms every time.
    offered = __salt__["cp.cache_files"]([f"salt://_{kind}/{name}.py" for kind, name in names])
    held = [os.path.join(__opts__["extension_modules"], kind, f"{name}.py") for kind, name in names]
    __context__["immich_settings.up_to_date"] = all(map(_same_content, offered, held))
    return __context__["immich_settings.up_to_date"]


def _same_content(path, other):
    try:
        return bool(path) and filecmp.cmp(path, other, shallow=False)
    except OSError:  # not there
        return False


# What the functions above share: read once, evaluated once for each pillar


def _evaluated():
    files = _files()
    problems = []
    pillar = _projected(__pillar__.get(_PILLAR_KEY, {}), files["schema"], (), problems)
    # Salt keeps __context__ for a run, in which state.sls may still be given another pillar.
    cached = __context__.get("immich_settings.evaluated")
    if not cached or cached["of"] != (pillar, problems):
        cached = {"of": (pillar, problems), **_evaluate(pillar, problems, files)}
        __context__["immich_settings.evaluated"] = cached
    return cached


def _evaluate(pillar, problems, files):
    problems = [*problems, *_schema_problems(files["schema"], pillar)]
    wrong = {path for path, _ in problems}
    right = _pruned(pillar, wrong)
    lookup = _lookup(files["osfamilymap"], __grains__, right.get("lookup", {}))
    defaults = _with_own_network(files["defaults"], lookup)
    settings = {**_merged(defaults, right), "lookup": lookup}
    networks = _networks(settings, defaults)

    found = list(itertools.chain.from_iterable(check(settings) for check in _CHECKS))
    found += _check_timezone(settings, files["timezones"])
    found += _check_networks(settings, networks)
    found += _check_lookup(settings["lookup"], files["schema"], __grains__)
    gateway, trouble = _gateway_address(settings)
    found += trouble
    found += _check_routes(networks, wrong | {path for path, _ in found})
    found += _check_schedules(settings["backup"], files["defaults"]["backup"], _systemd_understands)
    problems += [each for each in found if not _below(each[0], wrong)]

    if problems:
        return {"errors": _report(problems), "warnings": [], "settings": {}}
    derived = _derived(settings, networks, gateway, files["schema"])
    return {
        "errors": [],
        "warnings": _report([*_warnings(settings, networks), *_open_folders(derived)]),
        "settings": derived,
    }


def _files():
    if "immich_settings.files" not in __context__:
        # In one call: each of its own would make another client of the file server, 40 ms every time.
        sources = [f"salt://immich/{name}" for name in _FILES]
        cached = __salt__["cp.cache_files"](sources)
        schema, defaults, osfamilymap, timezones = map(_content, cached, sources)
        schema = json.loads(schema)
        __context__["immich_settings.files"] = {
            "schema": _inlined(schema, schema.pop("$defs")),
            "defaults": salt.utils.yaml.safe_load(defaults),
            "osfamilymap": salt.utils.yaml.safe_load(osfamilymap),
            "timezones": json.loads(timezones),
        }
    return __context__["immich_settings.files"]


def _content(path, source):
    if not path:
        raise CommandExecutionError(f"Salt's file server has no {source}: is the formula in file_roots or gitfs?")
    with salt.utils.files.fopen(path, encoding="utf-8") as handle:
        return handle.read()


def _inlined(schema, definitions):
    """The schema without ``$ref``, so that a walk along it needs no resolver."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    local = {key: _inlined(value, definitions) for key, value in schema.items() if key != "$ref"}
    if "$ref" not in schema:
        return local
    referred = definitions[schema["$ref"].rpartition("/")[2]]
    return {**_inlined(referred, definitions), **local}


# Pillar against schema


class _Foreign:
    """In the place of a value of another type than those of JSON, whatever it holds: a date, a tuple, bytes."""

    def __init__(self, kind):
        self.kind = kind


def _projected(value, schema, path, problems):
    """
    The pillar as far as the schema goes into it, in plain types.

    Whatever YAML or a renderer puts below a wrong key or type (secrets, loops, numbers without end) stays out
    of the validator, whose errors quote what they are about.
    """
    kinds = _kinds(schema)
    if value is None and path == ():
        return {}
    if isinstance(value, dict):
        return _projected_mapping(value, schema, path, problems) if "object" in kinds else {}
    if isinstance(value, list):
        items = enumerate(value) if "array" in kinds else ()
        return [_projected(each, schema["items"], (*path, index), problems) for index, each in items]
    if isinstance(value, str) and any(map(_is_unprintable, value)):
        problems.append((path, "holds a line break or another control character"))
        return value
    plain = _plain(value)
    whole = "integer" in kinds and isinstance(plain, float) and plain.is_integer()
    return int(plain) if whole else plain


def _is_unprintable(char):
    # The code points that are no characters, U+FFFE and their like, YAML and systemd refuse.
    code = ord(char)
    return unicodedata.category(char) in _UNPRINTABLE or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def _plain(value):
    """A scalar that can be compared, quoted and shown."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if not isinstance(value, (int, float)):
        return _Foreign(type(value).__name__)
    return math.inf if abs(value) >= 2**63 else value


def _projected_mapping(value, schema, path, problems):
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    plain = {}
    for key, item in value.items():
        if item is None and set(_kinds(properties.get(key, {}))) & {"array", "object"}:
            continue  # a section or list of which every line is commented out says nothing
        if not isinstance(key, str):
            problems.append(((*path, "?"), f"a key here is {_kind_of(_plain(key))}, not text: put it in quotes"))
        elif key in properties:
            plain[key] = _projected(item, properties[key], (*path, key), problems)
        elif isinstance(others, dict):
            plain[key] = _projected(item, others, (*path, key), problems)
        else:
            plain[key] = None
    return plain


def _schema_problems(schema, pillar):
    from jsonschema import Draft202012Validator

    problems = {}
    for error in Draft202012Validator(schema).iter_errors(pillar):
        for path, message in _explained(error):
            problems.setdefault(path, message)
    return problems.items()


def _explained(error):
    path = tuple(error.absolute_path)
    schema = error.schema
    if error.validator == "additionalProperties":
        known = list(schema["properties"])
        return [((*path, key), f"is no setting{_likely(key, known)}") for key in error.instance if key not in known]
    if error.validator == "required":
        return [((*path, key), "is missing") for key in schema["required"] if key not in error.instance]
    if error.validator == "enum":
        known = [each if isinstance(each, str) else json.dumps(each) for each in schema["enum"]]
        return [(path, f"must be one of {', '.join(known)}{_likely(error.instance, known, '; ')}")]
    if error.validator == "type":
        return [(path, _wrong_type(error.instance, schema))]
    if error.validator in ("minimum", "maximum"):
        return [(path, f"must be from {schema['minimum']} to {schema['maximum']}")]
    if error.validator == "minLength":
        return [(path, "must not be empty")]
    return [(path, f"must be {schema['x-expects']}")]


def _likely(word, known, prefix=": "):
    """Which of the known words somebody may have meant, as the end of a sentence."""
    close = difflib.get_close_matches(word[:100], known, n=1) if isinstance(word, str) else []
    if close:
        return f"{prefix}did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if prefix == ": " else ""


def _wrong_type(value, schema):
    kinds = [kind for kind in _kinds(schema) if kind != "null"]
    message = f"must be {' or '.join(_KINDS[kind] for kind in kinds)}, not {_kind_of(value)}"
    if "x-expects" in schema and "string" in kinds and "object" not in kinds:
        message += f": {schema['x-expects']}"
    elif "string" in kinds and isinstance(value, (int, float)):
        message += ": put it in quotes"
    elif isinstance(value, str) and kinds in (["integer"], ["boolean"]):
        message += ": leave the quotes out"
    return message


def _kinds(schema):
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def _kind_of(value):
    if value is None:
        return "nothing (an empty value)"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number" if math.isfinite(value) else "a number beyond all bounds"
    names = {str: "text", dict: "a mapping", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), None) or f"a {value.kind}"


def _pruned(pillar, wrong):
    """The pillar without what is wrong in it, so that the rest can be checked too."""
    for path in filter(None, wrong):
        pillar = _without(pillar, path)
    if not isinstance(pillar, dict):
        return {}
    return pillar


def _without(tree, path):
    key, rest = path[0], path[1:]
    if isinstance(tree, list):
        # An entry of a list is right as a whole or not at all; its place stays, for the paths of the others.
        return [None if index == key else each for index, each in enumerate(tree)]
    if not isinstance(tree, dict) or key not in tree:
        return tree
    if rest:
        return {**tree, key: _without(tree[key], rest)}
    return {each: value for each, value in tree.items() if each != key}


def _merged(lower, upper):
    if not isinstance(lower, dict) or not isinstance(upper, dict):
        return upper
    return {**lower, **{key: _merged(lower.get(key), value) for key, value in upper.items()}}


def _below(path, others):
    return any(path[:length] in others for length in range(1, len(path) + 1))


def _report(problems):
    """Each problem once, in the order of their paths."""
    unique = dict.fromkeys((_text((_PILLAR_KEY, *path)), message) for path, message in problems)
    return [{"path": path, "message": message} for path, message in sorted(unique)]


def _text(path):
    """A path as Salt writes it. Keys come from the pillar, so they may be anything."""
    return ":".join(str(part)[:60] if str(part).isprintable() else ascii(part)[:60] for part in path)


def _secrets(schema, path=(_PILLAR_KEY,)):
    if schema.get("writeOnly"):
        return [path]
    below = [_secrets(each, (*path, key)) for key, each in schema.get("properties", {}).items()]
    if "items" in schema:
        below.append(_secrets(schema["items"], (*path, "*")))
    return list(itertools.chain.from_iterable(below))


# Checks beyond the schema: settings → (path, message)


def _check_passwords(settings):
    required = [("postgres", "password"), ("valkey", "password")]
    if settings["valkey"]["managed"]:
        required.append(("valkey", "admin_password"))
    for path in required:
        password = settings[path[0]][path[1]]
        if password is None:
            yield path, f"is required: a password of at least {_MIN_PASSWORD} characters"
        elif len(password) < _MIN_PASSWORD:
            yield path, f"is too short: at least {_MIN_PASSWORD} characters"
    if _has_other_forms(settings["postgres"]["password"] or ""):
        characters = "characters that clients change, such as a no-break space, a ligature or a full-width letter"
        yield ("postgres", "password"), f"holds {characters}: Immich might not get in"


def _has_other_forms(text):
    """Whether SASLprep changes a text: libpq and PostgreSQL use that form, other libraries the text as it is."""
    dropped = any(stringprep.in_table_b1(char) or stringprep.in_table_c12(char) for char in text)
    return dropped or unicodedata.normalize("NFKC", text) != text


def _check_postgres(settings):
    postgres, admin = settings["postgres"], settings["postgres"]["admin"]
    if postgres["user"].startswith("pg_") or postgres["user"] in ("postgres", "public", "none"):
        yield ("postgres", "user"), "is a name of PostgreSQL's own: Immich needs a role for itself"
    if postgres["database"] in ("postgres", "template0", "template1"):
        yield ("postgres", "database"), "is a database of PostgreSQL's own: Immich needs one for itself"
    yield from _check_managed(settings, "postgres")
    socket = (admin["host"] or "").startswith("/")
    if not postgres["managed"] and not socket and admin["password"] is None and admin["sslcert"] is None:
        yield (
            ("postgres", "admin", "password"),
            "is required where immich:postgres:managed is false, without socket and sslcert",
        )
    if "/" in (admin["host"] or "") and not socket:
        yield (
            ("postgres", "admin", "host"),
            "must be a host name, an address, or the absolute path of a directory",
        )
    yield from _check_certificate(("postgres", "admin"), admin, "sslcert", "sslkey")


def _mebibytes(size):
    return int(size[:-1]) * {"m": 1, "g": 1024}[size[-1]]


def _check_valkey(settings):
    valkey, admin = settings["valkey"], settings["valkey"]["admin"]
    if valkey["user"] in ("default", _FORMULA_USER):
        yield ("valkey", "user"), f"must not be {valkey['user']}, which has another use"
    if valkey["maxmemory"] not in (None, "0") and _mebibytes(valkey["maxmemory"]) < _MIN_MAXMEMORY:
        yield ("valkey", "maxmemory"), f"must be at least {_MIN_MAXMEMORY}m: Immich's queues would soon fill less"
    yield from _check_managed(settings, "valkey")
    if not valkey["managed"] and admin["password"] is None:
        yield ("valkey", "admin", "password"), "is required where immich:valkey:managed is false"
    for key in ("tls_ca", "tls_cert", "tls_key"):
        if admin[key] and not admin["tls"]:
            yield ("valkey", "admin", key), "has no effect while immich:valkey:admin:tls is false"
    yield from _check_certificate(("valkey", "admin"), admin, "tls_cert", "tls_key")


def _check_managed(settings, service):
    """A managed server is this host's; one that is not needs an address for the formula."""
    managed, host = settings[service]["managed"], settings[service]["host"]
    if not managed and settings[service]["admin"]["host"] is None:
        yield (service, "admin", "host"), f"is required where immich:{service}:managed is false"
    if managed and host not in (None, _HOST_NAME):
        yield (
            (service, "host"),
            f"must be left out, or immich:{service}:managed false: this host's is managed",
        )


def _check_certificate(path, admin, certificate, key):
    if bool(admin[certificate]) != bool(admin[key]):
        missing = key if admin[certificate] else certificate
        yield (*path, missing), f"is missing: {certificate} and {key} belong together"


def _check_acl_users(settings):
    names = {}
    for index, user in enumerate(settings["valkey"]["acl_users"]):
        if user is None:
            continue
        path = ("valkey", "acl_users", index)
        yield from _check_acl_user(path, user, settings["valkey"])
        name = user.get("name", user.get("username"))
        if name in names:
            yield path, f"is the second entry for the user {name}; the first is number {names[name]}"
        names.setdefault(name, index)


def _check_acl_user(path, user, valkey):
    own, role = {"name", "rules"} & user.keys(), {"username", "keypattern", "commands"} & user.keys()
    if own and role:
        yield (
            path,
            "mixes two forms: use either name and rules, or username, keypattern and commands",
        )
        return
    for key in ("username", "keypattern", "commands") if role else ("name", "rules"):
        if key not in user:
            yield (*path, key), "is missing"
    if user.get("name", user.get("username")) in ("default", _FORMULA_USER):
        yield (
            path,
            "is a user with another use: default has immich:valkey:admin_password, and the formula its own",
        )
    if not user.get("password"):
        yield (*path, "password"), "is required"
    elif user.get("name", user.get("username")) == valkey["user"] and user["password"] != valkey["password"]:
        yield (*path, "password"), "differs from immich:valkey:password, which is the same user's"
    for key in ("rules", "commands", "keypattern"):
        if any(rule[0] in "><#!" or rule.lower() in _PASSWORD_RULES for rule in user.get(key, "").split()):
            yield (*path, key), "must not hold rules about passwords: there is password for it"


_PASSWORD_RULES = ("nopass", "resetpass", "reset")


def _check_paths(settings):
    paths = {
        ("upload_location",): settings["upload_location"],
        ("machine_learning", "cache_location"): settings["machine_learning"]["cache_location"],
        ("podman", "projects_dir"): settings["podman"]["projects_dir"],
        ("backup", "directory"): settings["backup"]["directory"],
    }
    if settings["upload_location_moved_from"]:
        paths[("upload_location_moved_from",)] = settings["upload_location_moved_from"]
    for path, value in paths.items():
        yield from _check_path(path, value, _PROJECTS_DIRS if path[0] == "podman" else _SYSTEM_DIRS)
    yield from _check_overlap(settings)
    moved_from = settings["upload_location_moved_from"]
    if moved_from and _normal(moved_from) == _normal(settings["upload_location"]):
        yield ("upload_location_moved_from",), "is the same as immich:upload_location"


def _check_path(path, value, refused):
    if ".." in value.split("/"):
        yield path, "must not hold .."
    elif refused.fullmatch(_normal(value)):
        yield path, f"must not be {_normal(value)} itself: take a directory below it"
    elif max(map(_size, value.split("/"))) > _MAX_NAME or _size(value) > _MAX_PATH:
        yield path, f"is too long: {_MAX_NAME} bytes for each name, and {_MAX_PATH} for the whole"


def _check_overlap(settings):
    """Uploads, compose project, backups, model cache and external libraries each need a directory of their own."""
    places = {
        ("upload_location",): settings["upload_location"],
        ("podman", "projects_dir"): _project_dir(settings),
        ("backup", "directory"): settings["backup"]["directory"],
    }
    if settings["machine_learning"]["enabled"]:
        places[("machine_learning", "cache_location")] = settings["machine_learning"]["cache_location"]
    for index, library in _entries(settings["external_libraries"]):
        places[("external_libraries", index)] = _library(library)["path"]
    for (first, one), (second, other) in itertools.combinations(places.items(), 2):
        if _contains(one, other) or _contains(other, one):
            yield second, f"overlaps immich:{_text(first)}: each needs a directory of its own"


def _check_libraries(settings):
    mounts = {}
    for index, entry in _entries(settings["external_libraries"]):
        path, library = ("external_libraries", index), _library(entry)
        yield from _check_path(path, library["path"], re.compile("/"))
        yield from _check_mount(path, library["mount"])
        if library["mount"] in mounts:
            yield (
                path,
                f"is mounted at the same place as immich:external_libraries:{mounts[library['mount']]}",
            )
        mounts.setdefault(library["mount"], index)


def _check_mount(path, mount):
    if ".." in mount.split("/"):
        yield path, "must not hold .."
    elif _CONTAINER_DIRS.fullmatch(mount):
        yield (
            path,
            f"cannot be mounted at {mount}, which the container needs itself: set its mount, as /mnt/photos",
        )


def _check_bind_addresses(settings):
    if settings["bind_address"] == []:
        yield ("bind_address",), "must hold an address, such as 0.0.0.0"
    taken = {}
    for path, text in _bind_addresses(settings):
        address = _ip_address(text)
        problem = _unbindable(address, text)
        if problem:
            yield path, problem
            continue
        for other, first in taken.items():
            if address == other:
                yield path, f"is the same address as immich:{_text(first)}"
            elif address.version == other.version and (address.is_unspecified or other.is_unspecified):
                every, single = sorted((address, other), key=lambda each: not each.is_unspecified)
                yield path, f"overlaps immich:{_text(first)}: {single} is one of {every}, so name one of the two"
        taken.setdefault(address, path)
    # Measured with Podman 5.4: where the network has IPv6, it publishes 0.0.0.0 at every address of IPv6 too, and
    # cannot remove the rules of two mappings that are alike: https://github.com/containers/netavark/issues/1338
    if any(str(address) == "0.0.0.0" for address in taken):
        for address, path in taken.items():
            if address.version == 6 and not address.is_unspecified:
                yield (
                    path,
                    'cannot stand beside 0.0.0.0, with which Podman publishes at every address: name "::" instead',
                )


def _unbindable(address, text):
    """Why Podman cannot publish a port at an address, or nothing."""
    link_local = text.lower().startswith("fe80:") if address is None else address.version == 6 and address.is_link_local
    if link_local:
        return "is link-local, which is good on one interface alone and cannot be published: take another address"
    if address is None:
        return 'must be an IP address, such as 0.0.0.0, "::" or 127.0.0.1'
    if getattr(address, "ipv4_mapped", None):
        return f"must be written as {address.ipv4_mapped}"
    if address.version == 6 and address.is_loopback:
        return "cannot be published: Linux passes nothing on from ::1 to a container; take 127.0.0.1"
    if address.is_multicast or str(address) == "255.255.255.255":
        return "is no address that a host can have"
    return None


def _bind_addresses(settings):
    """The addresses to publish at, as text, each with its place in the pillar."""
    given = settings["bind_address"]
    if isinstance(given, str):
        return [(("bind_address",), given)]
    return [(("bind_address", index), text) for index, text in _entries(given)]


def _wants_ipv6(settings):
    addresses = [_ip_address(text) for _, text in _bind_addresses(settings)]
    return any(address is not None and address.version == 6 for address in addresses)


def _check_addresses(settings):
    given = settings["host_gateway"]
    if given == "podman":
        return
    address = _ip_address(given)
    if address is None or address.version != 4:
        yield ("host_gateway",), "must be podman or an IPv4 address"
    elif address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved:
        yield ("host_gateway",), f"must be an address that containers can reach, which {address} is not"


def _check_ports(settings):
    for service in ("postgres", "valkey"):
        if settings[service]["managed"] and settings["port"] == settings[service]["port"]:
            yield ("port",), f"is the same as immich:{service}:port"
    managed = settings["postgres"]["managed"] and settings["valkey"]["managed"]
    if managed and settings["postgres"]["port"] == settings["valkey"]["port"]:
        yield ("valkey", "port"), "is the same as immich:postgres:port"


def _check_container_users(settings):
    for part in ("server", "machine_learning"):
        user = settings[part]["user"] or ""
        if ":" in user and max(map(int, user.split(":"))) > _MAX_ID:
            yield (part, "user"), f"holds a number above {_MAX_ID}, the last that Podman takes"
    for key, value in settings["server"]["own_user"].items():
        if settings["machine_learning"]["own_user"][key] == value:
            yield (
                ("machine_learning", "own_user", key),
                f"is the same as immich:server:own_user:{key}: each container needs a user of its own",
            )


def _check_environment(settings):
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
        yield "is no name of an environment variable: letters, digits and underscores, no digit first"
    elif setting:
        yield f"has a setting of its own; use {setting}"
    elif _is_secret(name, str(value)):
        yield f"means a secret, which everyone on this host could read in the compose file: {_secret_place(name)}"
    elif _SECRET_URL.search(str(value)):
        yield (
            "holds a URL with a password, which everyone on this host could read in the compose file: name a server "
            "that lets this host in without one"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"must be text or a number, not {_kind_of(value)}"
    elif _size(f"{name}={value}") > _MAX_ARGUMENT:
        yield f"is too long: {_MAX_ARGUMENT} bytes with its name"
    elif name in _CHOICES and value not in _CHOICES[name]:
        yield f"must be one of {', '.join(_CHOICES[name])}: Immich refuses to start with another"


def _is_secret(name, value):
    if name.endswith("_FILE"):  # the path of one
        return False
    return bool(_SECRET_NAME.search(name)) and value.lower() not in _SWITCHES


def _secret_place(name):
    places = (place for words, place in _SECRET_PLACES if re.search(words, name, re.IGNORECASE))
    return next(places, "Immich takes secrets on its own page, Administration > Settings, and none from here")


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


def _check_backup(settings):
    directory = settings["backup"]["directory"]
    for passing in _PASSING_DIRS:
        if _contains(passing, directory):
            yield ("backup", "directory"), f"must not be below {passing}, where nothing lasts"


def _check_clean(settings):
    for key, path in (
        ("delete_database", ("postgres", "database")),
        ("delete_uploads", ("upload_location",)),
        ("delete_model_cache", ("machine_learning", "cache_location")),
        ("delete_backups", ("backup", "directory")),
    ):
        confirmed, value = settings["clean"][key], settings
        for part in path:
            value = value[part]
        if confirmed is not None and confirmed != value:
            yield ("clean", key), f"must be the value of immich:{_text(path)}, to say that it is meant"


def _moving_tags(settings):
    """Paths of settings that name a tag which moves."""
    for path, image in (
        (("version",), f":{settings['version']}"),
        (("server", "image"), settings["server"]["image"]),
        (("machine_learning", "image"), settings["machine_learning"]["image"]),
    ):
        if re.search(r":(latest|release|main|v[0-9]+(\.[0-9]+)?)$", image):
            yield path


def _check_pinned(settings):
    if settings["update"]["require_pinned"]:
        for path in _moving_tags(settings):
            yield path, "is a moving tag, which immich:update:require_pinned forbids: name a full version, as in v3.3.1"


_CHECKS = (
    _check_passwords,
    _check_postgres,
    _check_valkey,
    _check_acl_users,
    _check_paths,
    _check_libraries,
    _check_bind_addresses,
    _check_addresses,
    _check_ports,
    _check_container_users,
    _check_environment,
    _check_backup,
    _check_clean,
    _check_pinned,
)


def _check_timezone(settings, timezones):
    name = settings["timezone"]
    if name in timezones["legacy"]:
        meant = timezones["legacy"][name]
        yield ("timezone",), f"is a legacy name, which Immich's image takes for UTC: write {meant}"
    elif name not in timezones["zones"] and not _zone_on_host(name):
        yield ("timezone",), f"is no time zone{_likely(name, timezones['zones'], '; ')}"


def _zone_on_host(name):
    """Zones newer than the formula's list are known to a host that keeps its own up to date."""
    if not re.fullmatch(r"[A-Z][A-Za-z]+(/[A-Z][A-Za-z0-9_+-]+){1,2}", name):
        return False
    return os.path.isfile(f"/usr/share/zoneinfo/{name}")


def _check_networks(settings, networks):
    names = {}
    for path, network in networks:
        name = network["name"]
        if name in names:
            yield (*path, "name"), f"is the name of two networks; the first is immich:{_text(names[name])}"
        elif name == "podman":
            yield (*path, "name"), "is the name of Podman's default network, which is not the formula's"
        names.setdefault(name, path)
        yield from _check_network(path, network)
    yield from _check_network_overlap(networks)
    if None in settings["podman"]["external_networks"]:
        return
    if settings["network"] not in names:
        yield (
            ("network",),
            f"names none of immich:podman:external_networks{_likely(settings['network'], list(names))}",
        )
        return
    path, own = next(each for each in networks if each[1]["name"] == settings["network"])
    subnet, gateway = _ip_network(own["subnet"]), _ip_address(settings["host_gateway"])
    if subnet and subnet.version != 4:
        yield (*path, "subnet"), "must be of IPv4: it is the way to PostgreSQL and Valkey"
    second = _ip_network(settings["ipv6_subnet"])
    if second is None or second.version != 6:
        yield ("ipv6_subnet",), "must be a subnet of IPv6 in CIDR notation, such as fd00:20::/64"
    else:
        yield from ((("ipv6_subnet",), message) for message in _unfit_subnet(second))
    if subnet and gateway and gateway in subnet:
        yield ("host_gateway",), f"must not be in the subnet of the network {own['name']}, which a bridge has"


def _check_network(path, network):
    subnet = _ip_network(network["subnet"])
    if subnet is None:
        yield (*path, "subnet"), f"is no subnet in CIDR notation{_mended(network['subnet'])}"
        return
    yield from (((*path, "subnet"), message) for message in _unfit_subnet(subnet))
    if subnet.num_addresses < 8:
        return
    gateway = _ip_address(network["gateway"])
    if gateway is None:
        yield (*path, "gateway"), "must be an IP address"
    elif gateway not in subnet:
        yield (*path, "gateway"), f"{gateway} is not in the subnet {subnet}"
    elif gateway in (subnet.network_address, subnet.broadcast_address):
        yield (
            (*path, "gateway"),
            f"{gateway} is the first or last address of {subnet}, which no host can have",
        )


def _unfit_subnet(subnet):
    if subnet.is_loopback or subnet.is_multicast or subnet.is_unspecified or subnet.is_link_local:
        yield f"{subnet} has another use in every network"
    if subnet.num_addresses < 8:
        yield f"{subnet} is too small: at least {'/29' if subnet.version == 4 else '/125'}"


def _mended(subnet):
    try:
        return f": did you mean {ipaddress.ip_network(subnet, strict=False)}?" if "/" in subnet else ": 172.20.0.0/16"
    except ValueError:
        return ", such as 172.20.0.0/16"


def _check_network_overlap(networks):
    every = [(network["name"], *each) for place, network in networks for each in _subnets(place, network)]
    known = [(path, name, _ip_network(subnet)) for name, path, subnet in every if _ip_network(subnet)]
    for (first, one, subnet), (path, name, other) in itertools.combinations(known, 2):
        if one != name and subnet.version == other.version and subnet.overlaps(other):
            yield path, f"{other} overlaps {subnet} of immich:{_text(first)}"


def _subnets(place, network):
    """The subnets of a network, each with its own place in the pillar."""
    yield (*place, "subnet"), network["subnet"]
    if "ipv6_subnet" in network:
        yield ("ipv6_subnet",), network["ipv6_subnet"]


def _check_lookup(lookup, schema, grains):
    system = grains.get("osfinger", "this system")
    for part, described in schema["properties"]["lookup"]["properties"].items():
        for key in described["properties"]:
            if key not in lookup.get(part, {}):
                yield ("lookup", part, key), f"is required: the formula knows none for {system}"


# What the host says. Each question is apart from what is made of its answer


def _check_routes(networks, wrong):
    for place, network in networks:
        for path, subnet in _subnets(place, network):
            if path not in wrong and not any(each[: len(place)] == place for each in wrong):
                yield from ((path, message) for message in _conflicts(subnet, network["name"]))


def _check_schedules(backup, defaults, understood):
    for key in ("schedule", "restore_drill"):
        if backup[key] != defaults[key] and not understood(backup[key]):
            yield ("backup", key), "is no calendar event of systemd.time(7), such as *-*-* 02:30:00 or daily"


def _systemd_understands(schedule):
    """Whether systemd finds a calendar event in a text. Where it is not, nothing can be said against it."""
    if not shutil.which("systemd-analyze"):
        return True
    command = ["systemd-analyze", "calendar", "--", schedule]
    return __salt__["cmd.retcode"](command, python_shell=False, ignore_retcode=True) == 0


def _conflicts(subnet, name):
    if "podman_network.conflicts" not in __salt__:
        return []
    try:
        found = __salt__["podman_network.conflicts"](subnet, ignore=[name, *_former_network()])
    except (CommandExecutionError, SaltInvocationError) as err:
        return [f"could not be compared with Podman's networks: {err}"]
    return [f"{subnet} overlaps {conflict}" for conflict in found]


def _former_network():
    """Immich's network on this host, which makes room where the pillar has another."""
    if "immich_identity.known" not in __salt__:
        return []
    try:
        return [name for name in [__salt__["immich_identity.known"]().get("network")] if name]
    except CommandExecutionError:
        return []  # the first state of immich.app says why


def _container_users(settings):
    """Each container's UID:GID on this host, by its part of the settings."""
    there = {}
    if "immich_identity.known" in __salt__:
        try:
            there = __salt__["immich_identity.known"](_project_dir(settings))
        except CommandExecutionError:
            pass  # the first state of immich.app says why
    folders = {
        "server": settings["upload_location"],
        "machine_learning": settings["machine_learning"]["cache_location"],
    }
    return {
        part: __salt__["immich_user.decided"](
            settings[part]["user"], settings[part]["own_user"]["id"], _normal(folder), there.get(f"{part}_user")
        )
        for part, folder in folders.items()
    }


def _open_folders(derived):
    """Warnings of folders in which root of a container can leave a setuid program for other users of this host."""
    for part, folder in __salt__["immich_user.folders"](derived).items():
        if 0 in map(int, derived[part]["user"].split(":")) and __salt__["immich_user.open_to_others"](folder):
            closed = f"`chmod o-x {shlex.quote(folder)}`"
            yield (
                (part, "user"),
                (
                    f"is root, and {folder} is open to every user of this host: a program that the container makes "
                    f"setuid there runs with root's rights. Set it to own, or type {closed}"
                ),
            )


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


# What follows from valid settings


def _derived(settings, networks, gateway, schema):
    described = [network for _, network in networks]
    own = next(network for network in described if network["name"] == settings["network"])
    users = _container_users(settings)
    derived = {
        "upload_location": _normal(settings["upload_location"]),
        "external_libraries": [_library(entry) for entry in settings["external_libraries"]],
        "bind_address": [str(_ip_address(text)) for _, text in _bind_addresses(settings)],
        "gateway_address": gateway,
        "network": own,
        "project_dir": _project_dir(settings),
        "server": {
            "user": users["server"],
            "image": _image(settings["server"]["image"], settings["version"]),
            "environment": _variables(settings["server"]["environment"]),
        },
        "machine_learning": {
            "user": users["machine_learning"],
            "image": _image(settings["machine_learning"]["image"], settings["version"]),
            "environment": _variables(settings["machine_learning"]["environment"]),
            "cache_location": _normal(settings["machine_learning"]["cache_location"]),
        },
        "podman": {"external_networks": described},
        "backup": {"directory": _normal(settings["backup"]["directory"])},
        "postgres": {
            "host": settings["postgres"]["host"] or _HOST_NAME,
            "connection": _postgres_connection(settings["postgres"], settings["lookup"]["postgres"]),
        },
        "valkey": {
            "host": settings["valkey"]["host"] or _HOST_NAME,
            "connection": _valkey_connection(settings["valkey"]),
            "acl_users": [_acl_user(index, user) for index, user in enumerate(settings["valkey"]["acl_users"])],
        },
    }
    return _public(_merged(settings, derived), schema)


def _public(settings, schema):
    """Settings without what the schema marks as writeOnly."""
    if not isinstance(settings, dict):
        return settings
    properties = schema.get("properties", {})
    return {
        key: _public(value, properties.get(key, {}))
        for key, value in settings.items()
        if not properties.get(key, {}).get("writeOnly")
    }


def _postgres_connection(postgres, lookup):
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
        "username": _FORMULA_USER,
        "password_file": _FORMULA_PASSWORD_FILE,
    }


def _admin_connection(service, settings):
    """What is said about an administrator's connection. Its password stays in the pillar."""
    said = {key: value for key, value in settings["admin"].items() if value is not None and key != "password"}
    if settings["admin"]["password"] is not None:
        said["password_pillar"] = f"{_PILLAR_KEY}:{service}:admin:password"
    return {"port": settings["port"], **said}


def _acl_user(index, user):
    """Either form of an entry as name, rules and the place of its password."""
    rules = user.get("rules")
    if rules is None:
        rules = " ".join([*(f"~{pattern}" for pattern in user["keypattern"].split()), *user["commands"].split()])
    return {
        "name": user.get("name", user.get("username")),
        "rules": rules,
        "password_pillar": f"{_PILLAR_KEY}:valkey:acl_users:{index}:password",
    }


def _with_own_network(defaults, lookup):
    """The defaults with a network of Immich's that this system's Podman can make."""
    podman = defaults["podman"]
    own = {**podman["external_networks"][0], **lookup.get("podman", {}).get("network", {})}
    own = {key: value for key, value in own.items() if value is not None}
    return {**defaults, "podman": {**podman, "external_networks": [own]}}


def _networks(settings, defaults):
    """Each external network with its place in the pillar; Immich's own is among them without being listed."""
    default = defaults["podman"]["external_networks"][0]
    listed = _entries(settings["podman"]["external_networks"])
    if settings["network"] == default["name"] and all(entry["name"] != default["name"] for _, entry in listed):
        listed.insert(0, (len(settings["podman"]["external_networks"]), default))
    # The default entry's interface name and isolation hold for whatever subnet that network is given.
    kept = {key: value for key, value in default.items() if key not in ("subnet", "gateway")}
    second = _ip_network(settings["ipv6_subnet"])
    return [
        (
            ("podman", "external_networks", index),
            _network(
                {**kept, **entry} if entry["name"] == default["name"] else entry,
                # What is sent to an address of IPv6 is passed on to one of the container.
                second if entry["name"] == settings["network"] and _wants_ipv6(settings) else None,
            ),
        )
        for index, entry in listed
    ]


def _network(entry, second):
    """A network with the gateway that Podman would take by itself, and its addresses in their usual form."""
    subnet = _ip_network(entry["subnet"])
    if second is not None:
        entry = {**entry, "ipv6_subnet": str(second)}
    if subnet is None:
        return {"gateway": "", **entry}
    gateway = entry.get("gateway", str(subnet.network_address + 1) if subnet.num_addresses > 1 else "")
    return {**entry, "subnet": str(subnet), "gateway": str(_ip_address(gateway) or gateway)}


def _lookup(osfamilymap, grains, pillar):
    found = {}
    for grain in ("os_family", "os", "osfinger"):
        found = _merged(found, osfamilymap.get(grains.get(grain), {}))
    return _merged(found, pillar)


def _project_dir(settings):
    return _normal(f"{settings['podman']['projects_dir']}/immich")


def _library(entry):
    if isinstance(entry, str):
        entry = {"path": entry}
    path = _normal(entry["path"])
    return {"path": path, "mount": _normal(entry.get("mount", path))}


def _image(image, version):
    """An image with its tag. The port of a registry also follows a colon."""
    tagged = "@" in image or ":" in image.rpartition("/")[2]
    return image if tagged else f"{image}:{version}"


def _variables(environment):
    return {name: str(value) for name, value in environment.items()}


def _warnings(settings, networks):
    for path in _moving_tags(settings):
        yield path, "is a moving tag: any pull may bring a version that cannot be left again; pin a full one"
    for path, network in networks:
        if network["name"] == settings["network"] and _isolation(network) != "strict":
            yield (*path, "isolate"), _LOOSE
    valkey, passwords = settings["valkey"], {}
    for path, password in (
        (("postgres", "password"), settings["postgres"]["password"]),
        (("valkey", "password"), valkey["password"]),
        (("valkey", "admin_password"), valkey["admin_password"]),
    ):
        if password is not None and password in passwords:
            yield path, f"is the same as immich:{_text(passwords[password])}: each service wants its own"
        passwords.setdefault(password, path)
    for index, user in enumerate(valkey["acl_users"]):
        if len(user["password"]) < _MIN_PASSWORD:
            yield ("valkey", "acl_users", index, "password"), f"is shorter than {_MIN_PASSWORD} characters"


def _isolation(network):
    """How a network is isolated, or will be: by Podman's own default where the pillar does not say."""
    declared = network.get("isolate")
    if declared is not None or not shutil.which("podman") or "podman_network.default_isolation" not in __salt__:
        return declared
    return __salt__["podman_network.default_isolation"]()


# Small things


def _entries(items):
    """The right entries of a list, with their places in the pillar."""
    return [(index, entry) for index, entry in enumerate(items) if entry is not None]


def _normal(path):
    """A path with single slashes and none at the end."""
    return os.path.normpath(re.sub("/+", "/", path))


def _size(text):
    return len(text.encode())


def _contains(directory, path):
    directory, path = _normal(directory), _normal(path)
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _ip_address(text):
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address


def _ip_network(text):
    try:
        return ipaddress.ip_network(text) if "/" in text else None
    except ValueError:
        return None
