"""
Requirements that the schema cannot express: settings in, errors and warnings out
==================================================================================

Each check yields ``(path, message)``. An answer of the host is an argument.
"""

import itertools
import re
import shlex
import stringprep
import unicodedata

from immich_core import library_backups
from immich_core.gateway import HOST_NAME
from immich_core.settings.containers import check_containers
from immich_core.settings.derivation import FORMULA_USER, library_of, normal, project_dir
from immich_core.settings.environment import check_environment
from immich_core.settings.hardware import check_hardware, unused_image
from immich_core.settings.library_backup import check_library_backup
from immich_core.settings.metrics import check_metrics
from immich_core.settings.networks import check_addresses, check_bind_addresses, ip_address
from immich_core.settings.problems import likely, path_text
from immich_core.settings.proxy import check_proxy
from immich_core.settings.roles import check_roles, passwords
from immich_core.settings.schema import entries

_MIN_PASSWORD = 12
# An empty Valkey takes two; a few ten thousand jobs more than that.
_MIN_MAXMEMORY = 64
_LOOSE = (
    "is not strict, which Debian 12 and Ubuntu 24.04 do not support: Immich's containers can reach containers on "
    "Podman networks that are not isolated, such as the default network"
)
# What Linux holds in a name and in a path, in bytes, less room for what the formula puts below a directory.
_MAX_NAME = 255
_MAX_PATH = 3800
# The highest number of a user or group that Podman takes.
_MAX_ID = 2**31 - 1
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
_PASSWORD_RULES = ("nopass", "resetpass", "reset")
# What Immich itself asks for where a password is changed (ChangePasswordDto).
_MIN_ACCOUNT_PASSWORD = 8


def _check_passwords(settings):
    for path in passwords(settings):
        password = settings[path[0]][path[1]]
        if password is None:
            yield path, f"is required: a password of at least {_MIN_PASSWORD} characters"
        elif len(password) < _MIN_PASSWORD:
            yield path, f"is too short: at least {_MIN_PASSWORD} characters"
    if _has_other_forms(settings["postgres"]["password"] or ""):
        characters = "characters that clients convert, such as a no-break space, a ligature or a full-width letter"
        yield ("postgres", "password"), f"holds {characters}: Immich might not be able to log in"


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
    if postgres["tuning"] != "none" and not (postgres["managed"] and "postgres" in settings["roles"]):
        yield ("postgres", "tuning"), "has no effect: this pillar does not manage a PostgreSQL of this host"
    yield from _check_vectorchord(postgres)
    if postgres["managed"] and postgres["sslmode"]:
        yield (
            ("postgres", "sslmode"),
            "has no effect: a managed server is this host's, which the containers reach locally",
        )
    # node-postgres (pg/lib/connection.js, 8.x) hands TLS a name alone; without one Node compares with "localhost".
    if postgres["sslmode"] == "verify-full" and ip_address(postgres["host"] or ""):
        yield (
            ("postgres", "host"),
            "must be a name with sslmode verify-full: Immich compares no certificate with an address. See server:hosts",
        )
    if postgres["sslrootcert"] and postgres["sslmode"] != "verify-full":
        yield ("postgres", "sslrootcert"), "has no effect unless immich:postgres:sslmode is verify-full"
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


def _check_vectorchord(postgres):
    package, path = postgres["vectorchord"], ("postgres", "vectorchord")
    for given, missing in (("package", "hash"), ("hash", "package")):
        if package[given] and not package[missing]:
            yield (*path, missing), f"is missing: {given} and {missing} belong together"
    if package["package"] and not postgres["managed"]:
        yield (*path, "package"), "has no effect: this pillar does not manage that PostgreSQL"
    elif package["package"] and postgres["vector_extension"] == "pgvector":
        yield (*path, "package"), "has no effect while immich:postgres:vector_extension is pgvector"


def _mebibytes(size):
    return int(size[:-1]) * {"m": 1, "g": 1024}[size[-1]]


def _check_valkey(settings):
    valkey, admin = settings["valkey"], settings["valkey"]["admin"]
    if valkey["user"] in ("default", FORMULA_USER):
        yield ("valkey", "user"), f"must not be {valkey['user']}, which has another use"
    if valkey["maxmemory"] not in (None, "0") and _mebibytes(valkey["maxmemory"]) < _MIN_MAXMEMORY:
        yield ("valkey", "maxmemory"), f"must be at least {_MIN_MAXMEMORY}m: Immich's queues would soon fill less"
    yield from _check_managed(settings, "valkey")
    if not valkey["managed"] and admin["password"] is None:
        yield ("valkey", "admin", "password"), "is required where immich:valkey:managed is false"
    if valkey["managed"] and valkey["tls"]:
        yield ("valkey", "tls"), "has no effect: a managed server is this host's, which the containers reach locally"
    if valkey["tls_ca"] and not valkey["tls"]:
        yield ("valkey", "tls_ca"), "has no effect while immich:valkey:tls is false"
    for key in ("tls_ca", "tls_cert", "tls_key"):
        if admin[key] and not admin["tls"]:
            yield ("valkey", "admin", key), "has no effect while immich:valkey:admin:tls is false"
    yield from _check_certificate(("valkey", "admin"), admin, "tls_cert", "tls_key")


def _check_managed(settings, service):
    """A managed server is this host's; one that is not needs an address for the formula."""
    managed, host = settings[service]["managed"], settings[service]["host"]
    if not managed and settings[service]["admin"]["host"] is None:
        yield (service, "admin", "host"), f"is required where immich:{service}:managed is false"
    if managed and host not in (None, HOST_NAME):
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
    if user.get("name", user.get("username")) in ("default", FORMULA_USER):
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


def _check_paths(settings):
    paths = {
        ("upload_location",): settings["upload_location"],
        ("machine_learning", "cache_location"): settings["machine_learning"]["cache_location"],
        ("podman", "projects_dir"): settings["podman"]["projects_dir"],
        ("backup", "directory"): settings["backup"]["directory"],
        ("metrics", "textfile_directory"): settings["metrics"]["textfile_directory"],
    }
    if settings["upload_location_moved_from"]:
        paths[("upload_location_moved_from",)] = settings["upload_location_moved_from"]
    for key in ("storage", "storage_moved_from"):
        paths |= {(key, folder): path for folder, path in settings[key].items() if path}
    for path, value in paths.items():
        yield from _check_path(path, value, _PROJECTS_DIRS if path[0] == "podman" else _SYSTEM_DIRS)
    yield from _check_overlap(settings)
    moved_from = settings["upload_location_moved_from"]
    if moved_from and normal(moved_from) == normal(settings["upload_location"]):
        yield ("upload_location_moved_from",), "is the same as immich:upload_location"
    for folder, path in settings["storage_moved_from"].items():
        if path and normal(path) == normal(settings["storage"][folder] or f"{settings['upload_location']}/{folder}"):
            yield ("storage_moved_from", folder), f"is where immich:storage:{folder} has it: name the former path"


def _check_path(path, value, refused):
    if ".." in value.split("/"):
        yield path, "must not hold .."
    elif refused.fullmatch(normal(value)):
        yield path, f"must not be {normal(value)} itself: take a directory below it"
    elif max(map(_size, value.split("/"))) > _MAX_NAME or _size(value) > _MAX_PATH:
        yield path, f"is too long: {_MAX_NAME} bytes for each name, and {_MAX_PATH} for the whole"


def _check_overlap(settings):
    """Each of these needs a directory of its own."""
    places = {
        ("upload_location",): settings["upload_location"],
        **{("storage", folder): path for folder, path in settings["storage"].items() if path},
        ("podman", "projects_dir"): project_dir(settings),
        ("backup", "directory"): settings["backup"]["directory"],
        ("metrics", "textfile_directory"): settings["metrics"]["textfile_directory"],
    }
    if settings["machine_learning"]["enabled"]:
        places[("machine_learning", "cache_location")] = settings["machine_learning"]["cache_location"]
    for index, library in entries(settings["external_libraries"]):
        places[("external_libraries", index)] = library_of(library)["path"]
    for (first, one), (second, other) in itertools.combinations(places.items(), 2):
        if _contains(one, other) or _contains(other, one):
            yield second, f"overlaps immich:{path_text(first)}: each needs a directory of its own"


def _check_libraries(settings):
    mounts = {}
    for index, entry in entries(settings["external_libraries"]):
        path, library = ("external_libraries", index), library_of(entry)
        yield from _check_path(path, library["path"], re.compile("/"))
        yield from _check_mount(path, library["mount"])
        if library["mount"] in mounts:
            yield (
                path,
                f"is mounted at the same place as immich:external_libraries:{mounts[library['mount']]}",
            )
        mounts.setdefault(library["mount"], index)


def _check_accounts(settings):
    admin, names = settings["admin"], {}
    deleted = {user["email"].lower() for _, user in entries(settings["users"]) if "delete" in user}
    given = [key for key, value in admin.items() if value is not None]
    for key in admin if given else ():
        if admin[key] is None:
            yield ("admin", key), f"is missing: immich:admin:{given[0]} needs it"
    yield from _check_account_password(("admin", "password"), admin["password"])
    for index, user in entries(settings["users"]):
        path = ("users", index)
        yield from _check_account(path, user)
        if not given:
            yield path, "requires immich:admin, whose account the formula uses"
        name = user["email"].lower()
        if name == (admin["email"] or "").lower():
            yield (*path, "email"), "is that of immich:admin, which is the administrator's account"
        elif name in names:
            yield path, f"is the second entry for {name}; the first is number {names[name]}"
        names.setdefault(name, index)
    for index, library in entries(settings["external_libraries"]):
        owner = library.get("owner") if isinstance(library, dict) else None
        if owner and not given:
            yield ("external_libraries", index, "owner"), "requires immich:admin, whose account the formula uses"
        elif owner and owner.lower() in deleted:
            yield ("external_libraries", index, "owner"), f"is deleted by immich:users:{names[owner.lower()]}"


def _check_account(path, user):
    if "delete" in user:
        if user["delete"] != user["email"]:
            yield (*path, "delete"), f"must be {user['email']}, to confirm that the account is deleted"
        return
    for key in ("name", "password"):
        if key not in user:
            yield (*path, key), "is missing"
    yield from _check_account_password((*path, "password"), user.get("password"))


def _check_account_password(path, password):
    if password is not None and len(password) < _MIN_ACCOUNT_PASSWORD:
        yield path, f"is too short: at least {_MIN_ACCOUNT_PASSWORD} characters"


def _check_mount(path, mount):
    if ".." in mount.split("/"):
        yield path, "must not hold .."
    elif _CONTAINER_DIRS.fullmatch(mount):
        yield (
            path,
            f"cannot be mounted at {mount}, which the container needs itself: set its mount, as /mnt/photos",
        )


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


def _check_backup(settings):
    directory = settings["backup"]["directory"]
    for passing in _PASSING_DIRS:
        if _contains(passing, directory):
            yield ("backup", "directory"), f"must not be below {passing}, where files do not persist"


def _check_local_repository(settings):
    repository, path = settings["backup"]["library"]["repository"], ("backup", "library", "repository")
    repository = repository and library_backups.local_path(repository)
    if repository is None:
        return
    yield from _check_path(path, repository, _SYSTEM_DIRS)
    for passing in _PASSING_DIRS:
        if _contains(passing, repository):
            yield path, f"must not be below {passing}, where files do not persist"
    places = {
        ("upload_location",): settings["upload_location"],
        ("backup", "directory"): settings["backup"]["directory"],
        **{("storage", folder): place for folder, place in settings["storage"].items() if place},
        **{
            ("external_libraries", index): library_of(library)["path"]
            for index, library in entries(settings["external_libraries"])
        },
    }
    for other, value in places.items():
        if _contains(value, repository) or _contains(repository, value):
            yield path, f"overlaps immich:{path_text(other)}: each needs a directory of its own"


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
            yield ("clean", key), f"must be the value of immich:{path_text(path)}, as a confirmation"
    for index, path in entries(settings["clean"]["delete_storage"]):
        if path not in settings["storage"].values():
            yield ("clean", "delete_storage", index), "must be a value of immich:storage, as a confirmation"
        elif settings["clean"]["delete_uploads"] is None:
            yield ("clean", "delete_storage", index), "requires delete_uploads, as a part of the library"


def _moving_tags(settings):
    """Paths of settings that name a tag which moves."""
    for path, image in (
        (("version",), f":{settings['version']}"),
        (("server", "image"), settings["server"]["image"]),
        (("machine_learning", "image"), settings["machine_learning"]["image"]),
    ):
        if re.search(r":(latest|release|main|v[0-9]+(\.[0-9]+)?)(-[a-z]+)?$", image):
            yield path


def _check_pinned(settings):
    if settings["update"]["require_pinned"]:
        for path in _moving_tags(settings):
            yield path, "is a moving tag, which immich:update:require_pinned forbids: name a full version, as in v3.3.1"


def check_timezone(settings, timezones, on_host):
    """
    timezones
        What ``timezones.json`` holds.
    on_host
        Whether the host knows the zone: one that keeps its own up to date may know newer ones than the formula's list.
    """
    name = settings["timezone"]
    if name in timezones["legacy"]:
        meant = timezones["legacy"][name]
        yield ("timezone",), f"is a legacy name, which Immich's image treats as UTC: set {meant}"
    elif name not in timezones["zones"] and not on_host:
        yield ("timezone",), f"is not a time zone{likely(name, timezones['zones'], '; ')}"


def schedules_to_ask(backup, defaults):
    """Each schedule that systemd has to be asked about, by its key below ``backup``: the defaults are right."""
    return {key: backup[key] for key in ("schedule", "restore_drill") if backup[key] != defaults[key]}


def check_schedules(refused):
    """
    refused
        Keys below ``backup`` of schedules that systemd does not understand.
    """
    for key in refused:
        yield ("backup", key), "is not a calendar event of systemd.time(7), such as *-*-* 02:30:00 or daily"


def check_lookup(lookup, schema, grains):
    """Whether the formula knows, or the pillar says, all names of this system."""
    system = grains.get("osfinger", "this system")
    for part, described in schema["properties"]["lookup"]["properties"].items():
        for key in described["properties"]:
            if key not in lookup.get(part, {}):
                yield ("lookup", part, key), f"is required: the formula has no default for {system}"


_CHECKS = (
    check_roles,
    _check_passwords,
    _check_postgres,
    _check_valkey,
    _check_acl_users,
    _check_paths,
    _check_libraries,
    _check_accounts,
    check_bind_addresses,
    check_addresses,
    _check_ports,
    check_proxy,
    _check_container_users,
    check_environment,
    check_hardware,
    check_containers,
    _check_backup,
    check_library_backup,
    _check_local_repository,
    check_metrics,
    _check_clean,
    _check_pinned,
)


def errors(settings):
    """Errors of all checks that ask nothing of the host."""
    return itertools.chain.from_iterable(check(settings) for check in _CHECKS)


def warnings(settings, networks, isolation):
    """
    What is allowed but worth a second thought.

    isolation
        How Podman isolates Immich's network, or will.
    """
    for path in _moving_tags(settings):
        yield path, "is a moving tag: any pull may bring a version that cannot be downgraded; pin a full version"
    yield from unused_image(settings)
    for path, network in networks:
        if network["name"] == settings["network"] and isolation != "strict":
            yield (*path, "isolate"), _LOOSE
    valkey, passwords = settings["valkey"], {}
    for path, password in (
        (("postgres", "password"), settings["postgres"]["password"]),
        (("valkey", "password"), valkey["password"]),
        (("valkey", "admin_password"), valkey["admin_password"]),
    ):
        if password is not None and password in passwords:
            yield path, f"is the same as immich:{path_text(passwords[password])}: use a different one for each service"
        passwords.setdefault(password, path)
    for index, user in enumerate(valkey["acl_users"]):
        if len(user["password"]) < _MIN_PASSWORD:
            yield ("valkey", "acl_users", index, "password"), f"is shorter than {_MIN_PASSWORD} characters"


def open_folder_warnings(folders):
    """
    folders
        Pairs: a part of the settings, and a folder in which root of its container can leave a setuid program for other
        users of this host.
    """
    for part, folder in folders:
        closed = f"`chown root:root {shlex.quote(folder)} && chmod o-x {shlex.quote(folder)}`"
        yield (
            (part, "user"),
            (
                f"is root, and {folder} is open to other users of this host: a program that the container makes "
                f"setuid there runs with root's rights. Set it to own, or type {closed}"
            ),
        )


def _size(text):
    return len(text.encode())


def _contains(directory, path):
    directory, path = normal(directory), normal(path)
    return path == directory or path.startswith(directory.rstrip("/") + "/")
