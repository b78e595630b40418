"""
What is wrong with Immich on this host, and what mends it
==========================================================

``immich.doctor`` looks at every part that Immich stands on, in the order in which they stand on each other, so that the
first line that failed is the cause and what follows from it stands below. It changes nothing.

It works when little else does: this file needs no library and no other module of the formula, and asks those that are
there. Without a pillar that can be used it goes by what was deployed: ``docker-compose.yml`` and ``immich.service``.
Groups of checks run side by side, each in a process of its own (``pgsql_core`` changes the user of the process
to connect). Each check has the same time, and more of it on a busy host: a service that hangs costs no more than that.

Sources of the rules: Immich's documentation, and what was measured with its server v3.0.3.
"""

import calendar
import importlib.util
import json
import os
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import stat
import time
import traceback
from collections import namedtuple
from pathlib import Path

import salt.utils.data
import salt.utils.yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import file_tree, lock

__virtualname__ = "immich"
__outputter__ = {"doctor": "immich_doctor"}

Check = namedtuple("Check", "part function gate")
OK, WARNING, FAILED = "ok", "warning", "failed"

LIBRARIES = ("redis", "psycopg2", "jsonschema")
# A function of each module that the checks ask.
MODULES = {
    "immich_settings": "errors",
    "immich_app": "verify",
    "immich_compose": "deviations",
    "immich_image": "missing",
    "immich_gateway": "verify",
    "immich_postgres": "verify",
    "immich_valkey": "verify",
    "immich_update": "why_not",
    "immich_user": "decided",
    "netns": "http_get",
    "podman_network": "diff",
    "pgsql_server": "version",
    "systemd_unit": "status",
    "valkey_acl": "get",
}
DEPLOYED = "/opt/podman/immich"
UNIT_FILE = "/etc/systemd/system/immich.service"
# Where the program that makes backups finds its directory.
BACKUP_CONFIG = "/etc/immich-formula/backup.json"
BACKUP_PROGRAM = "/usr/local/lib/immich-formula/immich-backup"
SERVER = "immich-server"
MACHINE_LEARNING = "immich-machine-learning"
SECRETS = {"db_password": "immich:postgres:password", "redis_password": "immich:valkey:password"}
# The folders in which Immich keeps a marker file, without which it does not start.
FOLDERS = ("encoded-video", "library", "upload", "profile", "thumbs", "backups")
# x86-64-v2, by the names in /proc/cpuinfo: x86-64 psABI, table "Micro-Architecture Levels".
CPU_FLAGS = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
# What a container can leave for other users of the host. The remedies contain no name that it chose, and stop it, since
# chmod follows a link that has taken a file's place.
PLANTED = {
    "setuid": ("setuid or setgid", "-type f -perm /6000 -exec chmod ug-s {} +"),
    "device": ("a device", r"\( -type b -o -type c \) -delete"),
}
# Paths in a row.
MOST_PLANTED = 3
NETWORK_SHARES = re.compile(r"nfs\d?|cifs|smb\d|smbfs|9p|afs|ceph|glusterfs|lustre|davfs|fuse\..*")
MIB, GIB = 1024**2, 1024**3
# Milliseconds for which a script may keep Valkey from answering at all; its default is 5000.
LONGEST_SCRIPT = 60000
# So much of a log's end is read.
LOG_BYTES = 65536
# Of maxmemory; and in MiB, what is not advised to be its half.
NEARLY_FULL, LEAST_MEMORY = 0.8, 64
BACKUP_NAME = re.compile("immich_[0-9]{8}T[0-9]{6}Z_")
BACKUP_HOURS = 48
# Work that takes longer than that, in seconds, is looked at for so many seconds: does it go on?
LONGEST_WORK = 12 * 3600
WORK_SECONDS = 2
# On a host whose load is this many times its CPUs, or more, a check has so many times as long.
LONGEST_FACTOR = 6
# What a check's process, and each that it starts, may fill with data, in bytes: what it is answered, others have
# written.
LARGEST_CHECK = GIB
# While one of these is under way, Immich and its database are not as they will be, and nobody should start Immich.
DISTURBING = ("restore", "update", "removal")
DISTURBED = (
    "database",
    "compose file",
    "version",
    "secrets",
    "images",
    "immich.service",
    "containers",
    "DNS between containers",
    "way to PostgreSQL",
    "way to Valkey",
    "Immich",
    "machine learning",
    "exposure",
)

# What stands in Immich's log or in the unit's status, and what mends it. The first that is found counts.
MESSAGES = (
    (r"NOPERM", "salt-call state.apply immich.valkey"),
    (r"NOAUTH", "salt-call state.apply immich.app"),
    (r"WRONGPASS|password authentication failed", "salt-call state.apply immich"),
    (r"no pg_hba\.conf entry", "salt-call state.apply immich.postgres"),
    (r"must be owner of|permission denied to create extension", "salt-call state.apply immich.postgres"),
    (r"vchord must be loaded|shared_preload_libraries", "salt-call state.apply immich.postgres"),
    (r"Failed to (read|write|create) .*\.immich", "mount what is missing below immich:upload_location; make no marker"),
    (r"a volume of .*, is not there", "mount it, then: systemctl restart immich"),
    (r"manifest unknown|initializing source|pinging container registry", "set immich:version to one that exists"),
    (r"Illegal instruction|x86-64-v2", "immich:machine_learning:enabled: false"),
    (r"Address family not supported|[Cc]annot assign requested address", "salt-call state.apply immich.app"),
    (
        r"[Pp]ermission denied.*/cache|/cache.*[Pp]ermission denied",
        "give immich:machine_learning:cache_location to the user",
    ),
    (
        r"EN(OTFOUND|ETUNREACH)|EAI_AGAIN|ECONNREFUSED|EHOSTUNREACH|ETIMEDOUT|host\.containers\.internal",
        "salt-call state.apply immich.gateway",
    ),
    (r"is not the one that Salt wrote", "salt-call state.apply immich.app"),
)


def __virtual__():
    return __virtualname__


def doctor(timeout=5):
    """
    Look at every part of Immich on this host, and say of each whether it is well, what was seen, and what mends it.

    Returns a list of ``{"part": …, "result": "ok" | "warning" | "failed", "seen": …, "do": …}``, causes first. ``do``
    is a command, a pillar line or a sentence, and empty where nothing is to be done. salt-call shows it as a table,
    and as data with ``--out=json``; its exit code is not 0 if something failed. Changes nothing.

    timeout
        Seconds that each check may take, 5 by default, and up to six times as long on a busy host.

    CLI Example:

    .. code-block:: bash

        salt-call immich.doctor
        salt-call immich.doctor --out=json
    """
    seconds = timeout * max(1, min(os.getloadavg()[0] / os.cpu_count(), LONGEST_FACTOR))
    rows, told = _run_groups((FORMULA,), {}, seconds)
    working = _working()
    here = {**_here(told.get("settings")), "working": working, "seconds": seconds}
    rest, _ = _run_groups(GROUPS, here, seconds)
    rows += [_meanwhile(row, working) for row in rest]
    if any(row["result"] == FAILED for row in rows):
        __context__["retcode"] = 1
    return rows


# -- running the checks ----------------------------------------


def _run_groups(groups, here, seconds):
    """Rows of all groups in their order, and what the checks left in ``here["told"]``; ``seconds`` are for each."""
    children = [_fork(group, here) for group in groups]
    _read(children, seconds)
    rows, told = [], {}
    for group, child in zip(groups, children):
        _end(child)
        messages = [json.loads(line) for line in child["text"].decode().split("\n")[:-1]]
        for message in messages:
            told.update(message["told"])
        rows += _group_rows(group, [message["rows"] for message in messages], seconds)
    return rows, told


def _group_rows(group, answers, seconds):
    """The answers of a group's checks; what did not answer in time, and what was behind it."""
    rows = [_row(check.part, *found) for check, answer in zip(group, answers) for found in answer]
    silent = group[len(answers) :]
    if silent and not (answers and _stops(group[len(answers) - 1], answers[-1])):
        # The first of them took too long; a check behind it never had its turn.
        rows.append(_row(silent[0].part, *_silence(group, seconds)))
        cause, silent = f"{silent[0].part} took longer than {seconds:.0f} s", silent[1:]
    elif silent:
        cause = f"needs {group[len(answers) - 1].part}"
    return rows + [_row(check.part, WARNING, f"not checked: {cause}", "") for check in silent]


def _silence(group, seconds):
    """What a check says that did not end in time. On a busy host that proves nothing."""
    load, cpus = os.getloadavg()[0], os.cpu_count()
    advice = f"salt-call immich.doctor timeout={max(20, seconds * 3):.0f}"
    if load > 2 * cpus:
        busy = f"this host is busy, with a load of {load:.0f} on {cpus} CPUs"
        return WARNING, f"not checked: took longer than {seconds:.0f} s; {busy}", advice
    # The formula's own checks ask Podman and the file server, and what hangs of these is told below.
    return WARNING if group is FORMULA else FAILED, f"no answer within {seconds:.0f} s", advice


def _working():
    """Who holds the lock of backup, restore, update and removal, or an empty dictionary."""
    return lock.under_way() or {}


def _meanwhile(row, working):
    """A row of what is not well while a restore or an update is under way: that is why, and it is to be waited for."""
    what = working.get("what")
    if what not in DISTURBING or row["result"] == OK or row["part"] not in DISTURBED:
        return row
    seen = f"{row['seen']}: {what} under way since {working['since']}"
    return _row(row["part"], WARNING, seen, f"wait until it has ended (process {working['pid']}); do not start Immich")


def _row(part, result, seen, do=""):
    return {"part": part, "result": result, "seen": _plain(seen), "do": _plain(do)}


def _stops(check, answer):
    return check.gate and any(result == FAILED for result, *_ in answer)


def _fork(group, here):
    """Run a group in a process of its own, which writes a line of JSON for each check."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return {"pid": pid, "reader": reader, "text": b""}
    try:
        os.setsid()  # one signal ends it with all that it started
        _limit_data()
        os.close(reader)
        for check in group:
            message = _checked(check, here)
            os.write(writer, (json.dumps(message) + "\n").encode())
            if _stops(check, message["rows"]):
                break
    finally:
        os._exit(0)


def _limit_data():
    """For each of them, so that an answer without end fails one check, and not what else runs on this host."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = LARGEST_CHECK + int(_text("/proc/self/statm").split()[5]) * resource.getpagesize()
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _checked(check, here):
    here = {**here, "told": {}}
    try:
        rows = [tuple(found) for found in check.function(here)]
    except _NotCheckedError as error:
        rows = [(WARNING, f"not checked: needs {error}")]
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        rows = [(FAILED, _one_line(error), _advice(str(error)))]
    except MemoryError:
        seen = f"not checked: what it was answered takes more than {LARGEST_CHECK // 1024**2} MiB"
        rows = [(WARNING, seen, "see who fills what it asks for: a log, a list, an answer")]
    except Exception as error:  # noqa: BLE001 (one check that breaks must not hide the others)
        place = traceback.extract_tb(error.__traceback__)[-1]
        broken = f"this check broke: {type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}"
        rows = [(WARNING, f"not checked: {broken}", "report it, with the output of `salt-call -l debug immich.doctor`")]
    return {"rows": rows, "told": here["told"]}


def _read(children, seconds):
    """Read what the groups write, until each has ended or one of its checks has taken longer than its time."""
    for child in children:
        child["deadline"] = time.monotonic() + seconds
    waiting = {child["reader"]: child for child in children}
    while waiting:
        left = min(child["deadline"] for child in waiting.values()) - time.monotonic()
        for reader in select.select(list(waiting), [], [], max(0, left))[0]:
            chunk = os.read(reader, 65536)
            waiting[reader]["text"] += chunk
            if b"\n" in chunk:
                waiting[reader]["deadline"] = time.monotonic() + seconds
            if not chunk:
                del waiting[reader]
        waiting = {reader: child for reader, child in waiting.items() if child["deadline"] > time.monotonic()}


def _end(child):
    """A process that waits for a dead network share cannot be ended: then it is left to init."""
    os.close(child["reader"])
    try:
        os.killpg(child["pid"], signal.SIGKILL)
    except ProcessLookupError:
        pass
    for _ in range(20):
        if os.waitpid(child["pid"], os.WNOHANG)[0]:
            return
        time.sleep(0.01)


class _NotCheckedError(Exception):
    """A check lacks what it needs; the text says what."""


def _call(function, *arguments, **kwargs):
    if function not in __salt__:
        raise _NotCheckedError(f"the module {function.partition('.')[0]}")
    return __salt__[function](*arguments, **kwargs)


def _promises(sentences, sls):
    """Rows of what a `verify` returned: the sentences name what mends them."""
    return [(FAILED, *_split(sentence, f"salt-call state.apply {sls}")) for sentence in sentences]


def _split(sentence, default):
    """What a sentence says, and what it advises: to apply an SLS, or a command that shows more."""
    applied = re.search(r":? apply (immich(?:\.\w+)?)\.?$", sentence)
    if applied:
        return sentence[: applied.start()], f"salt-call state.apply {applied.group(1)}"
    return _one_line(sentence), _advice(sentence) or default


def _advice(text):
    return next((cure for pattern, cure in MESSAGES if re.search(pattern, text)), "")


def _one_line(text):
    """A text as one line of at most 600 characters, without what a terminal would act on."""
    return " ".join(_plain(str(text)[-6000:]).split())[-600:]


def _plain(text):
    """A text without what a terminal would act on. Who wrote it, a check need not know."""
    text = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)", "", text)
    return "".join(char if char.isprintable() else " " for char in text)


# -- what the checks go by ----------------------------------------


def _here(settings):
    """What is to be looked at: by the settings, or without them by what was deployed."""
    directory = settings["project_dir"] if settings else DEPLOYED
    text = _text(f"{directory}/docker-compose.yml")
    compose = _parsed(text)
    server = compose["services"].get(SERVER, {})
    learning = compose["services"].get(MACHINE_LEARNING, {})
    here = {
        "settings": settings,
        "directory": directory,
        "compose_text": text,
        "compose": compose,
        "uploads": _source(server, "/data"),
        "cache": _source(learning, "/cache"),
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
        "cache": learning["cache_location"] if learning["enabled"] else None,
        "libraries": [library["path"] for library in settings["external_libraries"]],
        "socket_dir": postgres.get("socket_dir", "/var/run/postgresql"),
        **{
            part: {"units": units[part], "port": settings[part]["port"], "managed": settings[part]["managed"]}
            for part in units
        },
    }


def _settings_of(here):
    if not here["settings"]:
        raise _NotCheckedError("a pillar that is right")
    return here["settings"]


def _compose_of(here):
    if not here["compose"]["services"]:
        raise _NotCheckedError(f"{here['directory']}/docker-compose.yml")
    return here["compose"]


def _text(path):
    try:
        return Path(path).read_text(encoding="utf8", errors="replace")
    except OSError:
        return ""


def _end_of(path):
    """The last lines of a log, of whatever size; nothing where there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - LOG_BYTES))
            return stream.read(LOG_BYTES).decode(errors="replace")
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


def _source(service, target):
    return next((_unescaped(mount["source"]) for mount in _mounts(service) if mount["target"] == target), None)


def _unescaped(text):
    return text.replace("$$", "$")


def _port(service, name, default):
    return int(service.get("environment", {}).get(name, default))


def _ordered_after(*names):
    """Units of a service that the deployed immich.service waits for; the last one is the server itself."""
    found = re.findall(r"^After=(.*)$", _text(UNIT_FILE), re.MULTILINE)
    units = [unit for line in found for unit in line.split() if unit.startswith(names)]
    return [unit[: -len(".service")] for unit in units[-1:]]


# -- the formula itself ----------------------------------------


def _libraries(here):
    missing = [name for name in LIBRARIES if not importlib.util.find_spec(name)]
    if missing:
        yield FAILED, f"Salt's Python lacks {', '.join(missing)}", "salt-call state.apply immich.bootstrap"
        return
    yield OK, f"{', '.join(LIBRARIES)} are there"


def _modules(here):
    missing = [module for module, function in MODULES.items() if f"{module}.{function}" not in __salt__]
    if missing:
        yield FAILED, f"not loaded: {', '.join(missing)}", "salt-call saltutil.sync_all"
        return
    yield OK, "all are loaded"


def _pillar(here):
    for error in __pillar__.get("_errors", []):
        yield FAILED, f"Salt cannot render the pillar: {_one_line(error)}", "mend the file that it names"
    if not __pillar__.get("immich"):
        yield (
            FAILED,
            "this minion's pillar has no key `immich`",
            "assign it in the pillar's top file, see pillar.example",
        )
        return
    for error in _call("immich_settings.errors"):
        path, message = error["path"], error["message"]
        yield FAILED, f"{path} {message}", f"mend {path} in the pillar"
    for warning in _call("immich_settings.warnings"):
        yield WARNING, f"{warning['path']} {warning['message']}", f"see {warning['path']} in the pillar"
    settings = here["told"]["settings"] = _call("immich_settings.get")
    for obstacle in _call("immich_preflight.obstacles", settings) if settings else []:
        yield FAILED, f"{obstacle['path']}: {obstacle['message']}", f"see {obstacle['path']} in the pillar"
    if settings:
        yield OK, "it is valid"


# -- the host ----------------------------------------


def _cpu(here):
    if not here["cache"]:
        return [(OK, "machine learning is off")]
    return _cpu_rows(_text("/proc/cpuinfo"), os.uname().machine)


def _cpu_rows(cpuinfo, machine):
    if machine != "x86_64":
        return [(OK, machine)]
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    missing = CPU_FLAGS - set(flags.group(1).split() if flags else CPU_FLAGS)
    if not missing:
        return [(OK, "x86-64-v2")]
    seen = f"machine learning needs x86-64-v2, and this CPU lacks {', '.join(sorted(missing))}"
    return [(FAILED, seen, "immich:machine_learning:enabled: false")]


def _time_zone(here):
    zone = _settings_of(here)["timezone"]
    return _time_zone_rows(zone, os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2])


def _time_zone_rows(zone, of_host):
    utc = ("Etc/UTC", "UTC", "Etc/UCT", "Universal", "")
    if zone in utc and of_host not in utc:
        seen = f"Immich takes {zone}, and this host is in {of_host}: dates of photos will be off by hours"
        return [(WARNING, seen, f"immich:timezone: {of_host}")]
    return [(OK, zone)]


def _paths(here):
    return [path for path in (here["uploads"], *here["libraries"], here["cache"]) if path]


def _mounted(here):
    if not _paths(here):
        raise _NotCheckedError("a pillar or a deployment, to know the paths")
    for path in _paths(here):
        point = _call("immich_app.mount_missing", path)
        if point:
            yield FAILED, f"{point} stands in /etc/fstab and is not mounted", f"mount {point}"
        elif not os.path.isdir(path):
            yield FAILED, f"{path} is not there", _missing_advice(here, path)
        else:
            yield OK, path


def _missing_advice(here, path):
    if path == here["cache"] or not here["compose_text"]:
        return "salt-call state.apply immich.app"
    return "mount what is missing there. Only if it is to start empty: make the directory by hand"


def _space(here):
    places = {os.path.realpath(path): None for path in (*_paths(here), "/var/lib/containers", "/var/lib", "/var/log")}
    devices = {}
    for path in filter(os.path.isdir, places):
        devices.setdefault(os.stat(path).st_dev, path)
    for path in devices.values():
        held = os.statvfs(path)
        yield _space_row(
            path, held.f_bavail * held.f_frsize, held.f_blocks * held.f_frsize, held.f_favail, held.f_files
        )
        if held.f_flag & os.ST_RDONLY:
            yield FAILED, f"{path} is on a file system that is mounted read-only", "see `dmesg`; mount it writable"


def _space_row(path, free, size, inodes_free, inodes):
    """Where little is left PostgreSQL stops first. A file system may be small, but not smaller than a gigabyte."""
    seen = f"{path} has {free / GIB:.1f} of {size / GIB:.1f} GiB free"
    if inodes and inodes_free < 1000:
        return FAILED, f"{path} has {inodes_free} inodes left", _space_advice(path)
    if free < GIB:
        return FAILED, seen, _space_advice(path)
    if free < min(size / 20, 20 * GIB):
        return WARNING, seen, _space_advice(path)
    return OK, seen


def _space_advice(path):
    if path.startswith("/var/lib"):
        return "podman image prune --all --force"
    return f"make room on the file system of {path}, or enlarge it"


def _uploads(here):
    path = here["uploads"]
    if not path or not os.path.isdir(path):
        raise _NotCheckedError("mounts")
    deployed = _source(here["compose"]["services"].get(SERVER, {}), "/data")
    if deployed not in (None, path):
        seen = f"the installation's library is {deployed}, and immich:upload_location is {path}"
        return [(FAILED, seen, f"move the files, then immich:upload_location_moved_from: {deployed}")]
    missing = [name for name in FOLDERS if not os.path.exists(f"{path}/{name}/.immich")]
    if missing == list(FOLDERS):
        return [_empty_library(here, path)]
    if missing:
        seen = f"{path} lacks the marker file .immich in {', '.join(missing)}"
        return [(FAILED, seen, f"mount what is missing below {path}. Do not create the markers by hand")]
    inner = [f"{path}/{name}" for name in FOLDERS] + [f"{path}/{name}/.immich" for name in FOLDERS]
    return _may_use([path, *inner], here["users"][SERVER], "immich:server:user") or [
        (OK, f"{path} is as Immich left it")
    ]


def _empty_library(here, path):
    """Nothing is there before the first start. Whether that was, the database knows: it has Immich's indexes."""
    seen = f"{path} has no marker file of Immich"
    if not here["compose_text"]:
        return OK, f"{seen}: nothing is deployed yet"
    try:
        postgres = _settings_of(here)["postgres"]
        connection = {**postgres["connection"], "connect_timeout": 2}
        used = _call("pgsql_extension.indexes", "vector", postgres["database"], connection)
    except (_NotCheckedError, CommandExecutionError):
        return (
            WARNING,
            f"{seen}, and the database cannot be asked whether it ever had",
            f"see whether {path} is mounted",
        )
    if used:
        advice = f"mount what belongs at {path}, then: systemctl restart immich. Do not create the markers by hand"
        return FAILED, f"{seen}, though Immich has run before: a mount is missing", advice
    return OK, f"{seen}: it has not started yet"


def _cache(here):
    path = here["cache"]
    if not path:
        return [(OK, "machine learning is off")]
    if not os.path.isdir(path):
        raise _NotCheckedError("mounts")
    paths = [path, *(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))]
    user = here["users"][MACHINE_LEARNING]
    if _may_use(paths, user, ""):
        uid, gid = _ids(user)
        seen = f"{path} is not machine learning's to write, which runs as {uid}:{gid}"
        return [(FAILED, seen, f"chown -R {uid}:{gid} {path}")]
    return [(OK, path)]


def _planted(here):
    """Setuid and setgid files, and devices, in the folders that containers write. Immich itself creates none."""
    folders = [path for path in (here["uploads"], here["cache"]) if path and os.path.isdir(path)]
    if not folders:
        raise _NotCheckedError("mounts")
    # Large folders take longer than a check may.
    until, seen, rows = time.monotonic() + here["seconds"] / 2, 0, []
    for folder in folders:
        found = {kind: [] for kind in PLANTED}
        for _, _, path, held in file_tree.below(folder):
            seen += 1
            kind = _kind_of_planted(held)
            if kind:
                found[kind].append(path)
            if time.monotonic() > until or any(len(paths) > MOST_PLANTED for paths in found.values()):
                break
        rows += [_planted_row(kind, paths, folder) for kind, paths in found.items() if paths]
    if rows or time.monotonic() < until:
        return rows or [(OK, f"none among {seen} files")]
    return [
        (OK, f"none among {seen} files; the rest was not checked for lack of time: salt-call immich.doctor timeout=600")
    ]


def _kind_of_planted(held):
    if stat.S_ISREG(held.st_mode) and held.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "setuid"
    return "device" if stat.S_ISBLK(held.st_mode) or stat.S_ISCHR(held.st_mode) else None


def _planted_row(kind, paths, folder):
    what, remedy = PLANTED[kind]
    more = " and more" if len(paths) > MOST_PLANTED else ""
    named = ", ".join(_one_line(path)[-120:] for path in paths[:MOST_PLANTED])
    seen = f"{named}{more}: {what}, which Immich never creates. Find out where it comes from"
    return FAILED, seen, f"systemctl stop immich; find {shlex.quote(folder)} -xdev {remedy}"


def _may_use(paths, user, setting):
    """Rows of the first path that a container's user cannot write. It has no capabilities: root is no exception."""
    for path in paths:
        held = os.stat(path)
        if not _may(held, *_ids(user), 7 if os.path.isdir(path) else 6):
            owner = f"{held.st_uid}:{held.st_gid}"
            seen = (
                f"{path} belongs to {owner}, mode {held.st_mode & 0o7777:04o}, and the container's user is {user or 0}"
            )
            return [(FAILED, seen, f"{setting}: '{owner}'")]
    return []


def _ids(user):
    uid, _, gid = str(user or "0:0").partition(":")
    return int(uid), int(gid or uid)


def _may(held, uid, gid, wanted):
    """Whether the mode of a file gives a user all of read (4), write (2) and search (1)."""
    shift = 6 if held.st_uid == uid else 3 if held.st_gid == gid else 0
    return held.st_mode >> shift & wanted == wanted


def _selinux(here):
    return _selinux_rows(_text("/sys/fs/selinux/enforce"), here["compose"])


def _selinux_rows(enforce, compose):
    if enforce.strip() != "1":
        return [(OK, "does not enforce")]
    bound = [name for name, each in compose["services"].items() if "label=disable" not in each.get("security_opt", [])]
    if bound:
        seen = f"SELinux enforces, and keeps {' and '.join(bound)} from their volumes"
        return [(FAILED, seen, "salt-call saltutil.refresh_grains && salt-call state.apply immich.app")]
    return [(OK, "enforces, and the containers are exempt")]


# -- Podman ----------------------------------------


def _podman(here):
    if not shutil.which("podman"):
        return [(FAILED, "Podman is not installed", "salt-call state.apply immich.podman")]
    networks = _call("podman_network.list")
    return [(OK, f"answers, with {len(networks)} networks")]


def _network(here):
    settings = _settings_of(here)
    changes = _call("podman_network.diff", **settings["network"])
    if not changes:
        return [(OK, f"{settings['network']['name']}, {settings['network']['subnet']}")]
    name = settings["network"]["name"]
    if name in changes:
        return [(FAILED, f"Podman has no network {name}", "salt-call state.apply immich.podman")]
    seen = "; ".join(f"{what} is {change['old']}, not {change['new']}" for what, change in changes.items())
    advice = "systemctl stop immich && salt-call state.apply immich"
    return [(FAILED, f"the network {name} is not as specified: {seen}", advice)]


def _gateway(here):
    settings = _settings_of(here)
    broken = _promises(_call("immich_gateway.verify", settings), "immich.gateway")
    return broken or [(OK, f"{settings['gateway_address']} is held, its firewall is loaded")]


# -- PostgreSQL and Valkey ----------------------------------------


def _service(part):
    def check(here):
        if not here[part]["managed"]:
            return [(OK, "is managed elsewhere")]
        _known_units(part, here)
        rows = []
        for unit in here[part]["units"]:
            status = _call("systemd_unit.status", f"{unit}.service")
            if status["active"] != "active":
                seen = f"{unit} is {status['active']} {status['text']}".strip()
                start = f"systemctl start {unit} || journalctl -n 20 -u {unit}"
                rows.append(_acl_file_row(unit, here) if _acl_file_gone(part, here) else (FAILED, seen, start))
        return rows or [(OK, f"{', '.join(here[part]['units'])} is active")]

    return check


def _known_units(part, here):
    if not here[part]["units"]:
        raise _NotCheckedError(f"a pillar or {UNIT_FILE}, to know the service")


def _acl_file_gone(part, here):
    settings = here["settings"]
    return part == "valkey" and settings and not os.path.exists(settings["lookup"]["valkey"]["acl_file"])


def _acl_file_row(unit, here):
    """Valkey does not start without it, and an apply needs Valkey: an empty one holds until that has written it."""
    valkey = here["settings"]["lookup"]["valkey"]
    path = valkey["acl_file"]
    made = f"install -o {valkey['user']} -g {valkey['group']} -m 0640 /dev/null {path}"
    again = f"systemctl reset-failed {unit}; systemctl start {unit} && salt-call state.apply immich"
    return FAILED, f"{unit} does not start without its ACL file, and {path} is gone", f"{made}; {again}"


def _postgres_answers(here):
    if not here["postgres"]["managed"]:
        return [(OK, f"PostgreSQL {_call('pgsql_server.version', _postgres(here)) // 10000}")]
    port = here["postgres"]["port"]
    # SSLRequest of the protocol, which every server answers with one letter before anybody logs in.
    answer = _ask((socket.AF_UNIX, f"{here['socket_dir']}/.s.PGSQL.{port}"), b"\0\0\0\x08\x04\xd2\x16\x2f")
    if answer[:1] not in (b"S", b"N"):
        return [(FAILED, f"what listens at port {port} is not PostgreSQL", f"ss -lptn 'sport = :{port}'")]
    return [(OK, f"answers at port {port}")]


def _valkey_answers(here):
    if not here["valkey"]["managed"]:
        return [(OK, _call("valkey_acl.server", _valkey(here))["version"])]
    port = here["valkey"]["port"]
    answer = _ask((socket.AF_INET, ("127.0.0.1", port)), b"PING\r\n")
    # A server that a script keeps busy is reported by the next check.
    if not answer.startswith((b"+PONG", b"-NOAUTH", b"-DENIED", b"-BUSY")):
        words = answer.decode(errors="replace").strip() or "nothing"
        return [(FAILED, f"Valkey says {_one_line(words)}", f"journalctl -n 20 -u {here['valkey']['units'][-1]}")]
    return [(OK, f"answers at port {port}")]


def _ask(where, question, seconds=2):
    family, address = where
    place = address if family == socket.AF_UNIX else ":".join(map(str, address))
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect(address)
            client.sendall(question)
            return client.recv(64)
        except socket.timeout as error:
            raise CommandExecutionError(f"{place} takes connections and does not answer: it hangs") from error
        except OSError as error:
            raise CommandExecutionError(f"nothing answers at {place}: {error.strerror}") from error


def _answering(question, part):
    """A check that comes after systemd said that the service is active."""

    def check(here):
        if here[part]["managed"]:
            _known_units(part, here)
        try:
            return question(here)
        except CommandExecutionError as error:
            if not here[part]["managed"]:
                return [(FAILED, _one_line(error), f"see immich:{part}:host and immich:{part}:admin")]
            unit = here[part]["units"][-1]
            advice = f"see `journalctl -n 50 -u {unit}` for what it waits for, then: systemctl restart {unit}"
            return [(FAILED, str(error), advice)]

    return check


def _listens(part, sls):
    """Checked without logging in: at the address by which containers know the host."""

    def check(here):
        settings = _settings_of(here)
        if not settings[part]["managed"]:
            return [(OK, "is managed elsewhere")]
        address, port = settings["gateway_address"], settings[part]["port"]
        sockets = _call("netns.listening")
        if any(each["port"] == port and each["address"] in (address, "0.0.0.0", "::") for each in sockets):
            return [(OK, f"listens at {address}:{port}")]
        return [(FAILED, f"does not listen at {address}:{port}, where containers look", f"salt-call state.apply {sls}")]

    return check


def _postgres(here):
    return {**_settings_of(here)["postgres"]["connection"], "connect_timeout": 2}


def _database(here):
    settings = _settings_of(here)
    broken = _promises(_call("immich_postgres.verify", settings, _postgres(here)), "immich.postgres")
    postgres = settings["postgres"]
    return broken or [(OK, f"{postgres['database']}, its role, extensions and record are as promised")]


def _database_storage(here):
    if not here["postgres"]["managed"]:
        return [(OK, "is managed elsewhere")]
    held = _call("pgsql_config.get", ["data_directory"], _postgres(here))["data_directory"]["running"]
    return _storage_rows(held, _text("/proc/self/mountinfo"))


def _storage_rows(directory, mountinfo):
    kind = _file_system(os.path.realpath(directory), mountinfo)
    if NETWORK_SHARES.fullmatch(kind):
        advice = "move PostgreSQL's data directory to a local disk: on a share it gets damaged"
        return [(FAILED, f"{directory} is on a network share ({kind})", advice)]
    return [(OK, f"{directory} is on {kind}")]


def _file_system(path, mountinfo):
    """Type of the file system that holds a path, by the format of proc_pid_mountinfo(5)."""
    best = ("", "unknown")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        # The last of equals is on top.
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, after.split()[0])
    return best[1]


def _leftovers(here):
    """What restores have left, and an update that was interrupted: not while somebody is at work."""
    settings = _settings_of(here)
    left = _call("immich.restore_leftovers", settings)
    if here["working"]:
        return [_working_row(here["working"], time.time())]
    rows = [_killed_row(left)] if left["drop"] or left["keep"] or left["record"] else []
    where = "" if settings["postgres"]["managed"] else f" connection='{json.dumps(settings['postgres']['connection'])}'"
    for name in left["kept"]:
        seen = f"{name} is the database that Immich had before a restore, and takes its room"
        rows.append((WARNING, seen, f"when nobody needs it any more: salt-call pgsql_database.drop {name}{where}"))
    update = _call("immich_update.unfinished", settings)
    if update:
        seen = f"the update from {update['from']} to {update['to']} has not come to its end"
        rows.append((WARNING, seen, "salt-call state.apply immich"))
    return rows or [(OK, "nothing is left of restores and updates")]


def _working_row(holder, now):
    """A lock needs no mending: it goes with the process that holds it. But that may hang."""
    seen = f"{holder.get('what', 'something')} under way since {holder.get('since', 'a moment ago')}"
    began = holder.get("since") and calendar.timegm(time.strptime(holder["since"], "%Y-%m-%dT%H:%M:%SZ"))
    if not began or now - began < LONGEST_WORK:
        return OK, seen
    before = _work_done(holder["pid"])
    time.sleep(WORK_SECONDS)
    return _progress_row(seen, holder["pid"], before, _work_done(holder["pid"]), _last_line_of_work())


def _progress_row(seen, pid, before, after, last_line):
    """Whether long work goes on, by the CPU time and the bytes of its processes at two moments."""
    seconds = sum(after[each][0] - before.get(each, (0, 0))[0] for each in after)
    moved = sum(after[each][1] - before.get(each, (0, 0))[1] for each in after)
    if seconds > 0 or moved > 0:
        return OK, f"{seen}; it goes on, with {moved / 1e6:.1f} MB read and written in the last {WORK_SECONDS} s"
    still = f"for {WORK_SECONDS} s its processes used no CPU time and moved no data"
    told = f"; its last line in the journal is of {last_line}" if last_line else ""
    advice = f"look again in ten minutes. If that is still so: ps -fp {pid} shows what it waits for, kill {pid} ends it"
    return WARNING, f"{seen}, by process {pid}: {still}{told}", advice


def _work_done(pid):
    """
    CPU seconds and bytes of each process that works for a holder of the lock, by process.

    That is its descendants, the program that makes backups, which systemd starts, with its own, and what PostgreSQL
    does for a superuser.
    """
    parents, roots = {}, {pid}
    for path in Path("/proc").glob("[0-9]*"):
        process, title = int(path.name), _text(path / "cmdline").replace("\0", " ")
        parents[process] = int((_fields(process) or ["", "0"])[1])
        if BACKUP_PROGRAM in title or re.match(r"postgres: (\S+: )?postgres \S+ ", title):
            roots.add(process)
    return {process: _used(process) for process in parents if _descends(process, roots, parents)}


def _descends(process, roots, parents):
    while process and process not in roots:
        process = parents.get(process)
    return bool(process)


def _used(process):
    """CPU seconds, and bytes read and written, by proc_pid_stat(5) and proc_pid_io(5)."""
    moved = re.findall(r"^[rw]char: (\d+)$", _text(f"/proc/{process}/io"), re.MULTILINE)
    ticks = sum(map(int, _fields(process)[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK"), sum(map(int, moved))


def _fields(process):
    """Of proc_pid_stat(5), from the state on: the name before it may hold anything. Empty for a process that ended."""
    return _text(f"/proc/{process}/stat").rpartition(") ")[2].split()


def _last_line_of_work():
    """When the formula's programs have last said how far they are, as ISO 8601; empty if the journal has nothing."""
    tags = [word for tag in ("immich-backup", "immich-restore", "immich-apply") for word in ("-t", tag)]
    command = ["journalctl", *tags, "-n", "1", "-q", "-o", "short-iso"]
    return _call("cmd.run_stdout", command, python_shell=False).partition(" ")[0]


def _killed_row(left):
    names = ", ".join((*left["drop"], *left["keep"])) or "a record in pg_hba.conf"
    return WARNING, f"a restore or drill that was killed has left {names}", "salt-call immich.restore_recover"


def _refusals(module, connection):
    """What a server has refused to Immich since it was started: a new release may need what is not granted yet."""

    def check(here):
        answer = _call(f"{module}.refusals", _settings_of(here), connection(here))
        rows = [(FAILED if each["grant"] else WARNING, each["seen"], each["do"]) for each in answer["found"]]
        known = f"not known: {answer['unknown']}" if answer["unknown"] else "nothing of late"
        return rows or [(OK, known)]

    return check


def _valkey(here):
    return [{**login, "timeout": 2} for login in _call("immich_valkey.logins", _settings_of(here))]


def _scripts(here):
    try:
        held = _call("immich_valkey.limits", _valkey(here))
    except CommandExecutionError as error:
        if not getattr(error, "remedy", None):
            raise _NotCheckedError("Valkey user") from error
        return [_busy_row(here, error.remedy, _end_of(_valkey_log(here)))]
    return _scripts_rows(held["busy_reply_threshold"])


def _busy_row(here, remedy, log):
    """The server says so, and SCRIPT KILL ends a script that has written nothing; a restart ends the others."""
    begun = re.findall(r"(\d+ \w{3} \d{4} \d\d:\d\d:\d\d)\S* \S Slow script detected", log)
    seen = "Valkey is busy with a script that does not end, and answers nobody"
    if begun:
        seen = f"{seen}: since {begun[-1]}"
    if not here["valkey"]["managed"]:
        return FAILED, seen, f"on that server: valkey-cli {remedy}; if it replies UNKILLABLE: SHUTDOWN NOSAVE"
    return FAILED, seen, f"{_valkey_cli(here)} {remedy} || systemctl restart {here['valkey']['units'][-1]}"


def _valkey_log(here):
    """The log file that the server's configuration names, by the last such directive."""
    if not here["valkey"]["managed"]:
        return ""
    config = _text(_settings_of(here)["lookup"]["valkey"]["config_file"])
    named = re.findall(r"^logfile\s+\"?([^\"\n]+)", config, re.MULTILINE)
    return named[-1] if named else ""


def _valkey_cli(here):
    """The client as the formula's own user, which fails where the server replies an error."""
    connection = _settings_of(here)["valkey"]["connection"]
    program = "redis-cli" if here["valkey"]["units"][-1].startswith("redis") else "valkey-cli"
    password = f"REDISCLI_AUTH=$(cat {connection['password_file']})"
    return f"{password} {program} -e -p {connection['port']} --user {connection['username']}"


def _scripts_rows(threshold):
    """From which time on the server takes SCRIPT KILL, in milliseconds: with 0 or less, never."""
    if 0 < threshold <= LONGEST_SCRIPT:
        return [(OK, f"none is at work for long; SCRIPT KILL ends one after {threshold} ms")]
    seen = f"busy-reply-threshold is {threshold}: a script that does not end cannot be ended with SCRIPT KILL"
    return [(WARNING, seen, "set busy-reply-threshold to 5000 in Valkey's configuration and with CONFIG SET")]


def _memory(here):
    held = _call("immich_valkey.limits", _valkey(here))
    valkey = _settings_of(here)["valkey"]
    return [_memory_row(held, valkey["managed"], valkey["maxmemory"])]


def _memory_row(held, managed, setting):
    """A full server refuses writes, BullMQ's own among them: nothing gets out of the queues by itself then."""
    used, limit = held["used"] / MIB, held["limit"] / MIB
    if not limit and managed and setting != "0":
        return WARNING, "has no limit: Immich can take all of the host's", "salt-call state.apply immich.valkey"
    if not limit:
        return OK, f"{used:.0f} MiB are used, without a limit"
    larger = f"immich:valkey:maxmemory: {2 * max(limit, used, LEAST_MEMORY):.0f}m"
    advice = larger if managed else "raise maxmemory on that server"
    seen = f"{used:.0f} of {limit:.0f} MiB (maxmemory) are used"
    if used >= limit:
        return FAILED, f"{seen}: Valkey refuses every write, and Immich's queues stand still", advice
    if held["policy"] != "noeviction":
        advice = f"immich:valkey:maxmemory: {limit:.0f}m" if managed else "set maxmemory-policy to noeviction there"
        return WARNING, f"maxmemory-policy is {held['policy']}: where Valkey is full, it evicts Immich's jobs", advice
    if used >= limit * NEARLY_FULL:
        return WARNING, f"{seen}: where it is full, Valkey refuses every write", advice
    return OK, seen


def _acl(here):
    settings = _settings_of(here)
    broken = _promises(_call("immich_valkey.verify", settings, _valkey(here)), "immich.valkey")
    return broken or [(OK, f"the user {settings['valkey']['user']} is as promised")]


# -- the application ----------------------------------------


def _compose_file(here):
    settings, path = _settings_of(here), f"{here['directory']}/docker-compose.yml"
    if not here["compose_text"]:
        return [(FAILED, f"{path} is not there: nothing is deployed", "salt-call state.apply immich")]
    try:
        found = _call("immich_compose.deviations", settings, here["compose_text"])
    except CommandExecutionError as error:
        # An apply refuses it as it is: it would have to guess which library the installation had.
        return [(FAILED, f"{path}: {error}", f"mv {path} {path}.broken && salt-call state.apply immich")]
    seen = "; ".join(found["differences"][:3])
    if found["by_hand"]:
        # Its containers carry the label that the file will have again: only a new start makes them anew.
        advice = "salt-call state.apply immich.app && systemctl restart immich"
        return [(FAILED, f"{path} was changed by hand: {seen or ', '.join(found['by_hand'])}", advice)]
    if seen:
        return [(WARNING, f"the pillar was not applied yet: {seen}", "salt-call state.apply immich")]
    return [(OK, f"{path} is as the pillar says")]


def _version(here):
    image = _compose_of(here)["services"].get(SERVER, {}).get("image", "")
    settings, remedy = _settings_of(here), None
    try:
        plan = _call("immich_update.plan", _asking(here))
        refused, remedy = plan.get("refusal"), plan.get("remedy")
    except CommandExecutionError:  # PostgreSQL is away, which stands above: the compose file knows less, but something
        versions = (_call("immich_update.version", each) for each in (image, settings["server"]["image"]))
        refused = _call("immich_update.why_not", *versions)
    if refused:
        remedy = remedy or f"immich:version: {re.search('[Ss]et (v[0-9.]+[0-9])', refused).group(1)}"
        return [(FAILED, refused, remedy)]
    refused = _start_refused(here)
    if refused:
        return [(FAILED, refused["why"], refused["remedy"])]
    return [(OK, image.partition("@")[0].rpartition(":")[2])]


def _asking(here):
    """The settings, for those who ask PostgreSQL themselves: with its deadline."""
    settings = _settings_of(here)
    return {**settings, "postgres": {**settings["postgres"], "connection": _postgres(here)}}


def _secrets(here):
    _settings_of(here)
    for name, path in SECRETS.items():
        file = Path(here["directory"], "secrets", name)
        wanted = salt.utils.data.traverse_dict_and_list(__pillar__, path, None)
        if not file.is_file() or not file.read_bytes():
            yield FAILED, f"{file} is missing or empty", "salt-call state.apply immich.app"
        elif wanted is not None and file.read_bytes() != str(wanted).encode():
            yield FAILED, f"{file} does not hold {path}", "salt-call state.apply immich"
        elif not _may(file.stat(), *_ids(here["users"][SERVER]), 4):
            yield FAILED, f"{file} cannot be read by the container's user", "salt-call state.apply immich.app"
        else:
            yield OK, str(file)


def _images(here):
    images = [service["image"] for service in _compose_of(here)["services"].values()]
    missing = _call("immich_image.missing", images)
    if missing:
        return [(FAILED, f"not on this host: {', '.join(missing)}", "salt-call state.apply immich.app")]
    return [(OK, ", ".join(image.rpartition("/")[2] for image in images))]


def _unit(here):
    status = _call("systemd_unit.status", "immich.service")
    text = status["text"]
    if status["active"] == "active":
        if status["outdated"]:
            yield WARNING, "systemd has read another unit file than the one on the disk", "systemctl daemon-reload"
        if status["enabled"] != "enabled":
            yield WARNING, "is not started at boot", "systemctl enable immich"
        if "exited" in text:
            yield _exited(here, text)
        elif not text.startswith("Serving"):
            yield WARNING, _one_line(text), "systemctl restart immich"
        else:
            yield OK, text
        return
    reason = _why_down(status)
    seen, cure = _explained(reason) if reason else ("", None)
    refused = _start_refused(here)
    if refused:
        seen, cure = refused["why"], refused["remedy"]
    yield FAILED, ": ".join(filter(None, (f"is {status['active']}", seen))), cure or "systemctl start immich"


def _why_down(status):
    """Why the unit does not run. What systemd keeps of one that was stopped is what it reported before that."""
    stopped = status["active"] == "inactive"
    if "exited" in status["text"] and not stopped:
        return _one_line(status["text"])
    return _one_line(_call("immich_app.last_words") or ("" if stopped else status["text"]))


def _start_refused(here):
    """Why Immich must not be started as it is: an update has changed its database, and the version before is back."""
    try:
        return _call("immich_update.start_refusal", _asking(here))
    except (CommandExecutionError, _NotCheckedError):  # which stands above
        return None


def _exited(here, text):
    """The unit remembers for a minute that a container exited. It is failed as long as the container does not run."""
    down = _call("immich_app.plan", {"project_dir": here["directory"]}, here["compose_text"])["recreate"]
    if not any(name in text for name in down):
        return WARNING, f"runs again: {_one_line(text)}", "salt-call immich.doctor, in a minute"
    seen, cure = _explained(text)
    return FAILED, seen, cure or "journalctl -u immich -n 100"


def _explained(reason):
    """A reason and its cure. Last words are often the end of a stack trace: then the log says more above it."""
    if _advice(reason):
        return _one_line(reason), _advice(reason)
    log = _call("cmd.run_stdout", ["journalctl", "-u", "immich", "-n", "60", "-o", "cat"], python_shell=False)
    told = next((line for line in reversed(log.splitlines()) if _advice(line)), "")
    return _one_line(f"{reason} {told}"), _advice(told)


def _containers(here):
    compose = _compose_of(here)
    there = _call("immich_app.plan", {"project_dir": here["directory"]}, here["compose_text"])
    for name, why in there["recreate"].items():
        yield FAILED, f"{name}: {why}", "systemctl restart immich"
    for name in there["remove"]:
        yield WARNING, f"{name} is not part of the project any more", "systemctl reload immich"
    if not there["recreate"]:
        yield OK, f"{' and '.join(compose['services'])} run"


# -- from inside, and from outside ----------------------------------------


def _names(here):
    services = list(_compose_of(here)["services"])
    if len(services) < 2:
        return [(OK, "machine learning is off")]
    asker, other = _asker(services)
    target = f"{other}:{3003 if other == MACHINE_LEARNING else 2283}"
    reason = _call("immich_app.reach", asker, [target])[target]
    if not reason:
        return [(OK, f"{asker} reaches {target}")]
    if "ENOTFOUND" in reason:
        seen = f"{asker} does not find the name {other}: aardvark-dns does not run, or a firewall drops UDP port 53"
        return [(FAILED, seen, _dns_advice(here))]
    return [(FAILED, f"{asker} does not reach {target}: {reason}", f"podman logs --tail 20 {other}")]


def _asker(services):
    """A container that runs, the server rather than the other, and one that it is to find."""
    for asker in (SERVER, *services):
        try:
            if _call("immich_app.reach", asker, []) == {}:
                return asker, next((name for name in services if name != asker), None)
        except CommandExecutionError:
            continue
    raise _NotCheckedError("a container that runs")


def _dns_advice(here):
    firewall = _firewall_program(here)
    if firewall or not _runs("aardvark-dns"):
        return firewall or "systemctl restart immich"
    return "let UDP port 53 in from the Immich network: see `nft list ruleset`"


def _runs(program):
    return any(_text(path / "comm").strip() == program for path in Path("/proc").glob("[0-9]*"))


def _firewall_program(here):
    """How the firewall that people use is told to let the Immich network in, if one of them is active."""
    if shutil.which("ufw") and "Status: active" in _call("cmd.run", ["ufw", "status"], python_shell=False):
        return f"ufw allow in on {_interface(here)}"
    if shutil.which("firewall-cmd") and _runs("firewalld"):
        interface = _interface(here)
        return f"firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload"
    return ""


def _interface(here):
    """The host's interface in the Immich network, which Podman names where the settings do not."""
    network = here["settings"]["network"] if here["settings"] else {}
    name = network.get("name") or here["compose"].get("networks", {}).get("immich", {}).get("name", "immich")
    return network.get("interface_name") or _call("podman_network.inspect", name)["interface_name"]


def _way(part, host_name, port_name):
    def check(here):
        services = _compose_of(here)["services"]
        environment = services.get(SERVER, {}).get("environment", {})
        target = f"{environment.get(host_name)}:{environment.get(port_name)}"
        asker, _ = _asker(list(services))
        reason = _call("immich_app.reach", asker, [target])[target]
        if not reason:
            return [(OK, f"{asker} reaches {target}")]
        if "ENOTFOUND" in reason and target.startswith("host.containers.internal:"):
            return [(FAILED, f"{asker}: {reason}", "systemctl restart immich")]
        if "ENOTFOUND" in reason:
            return [(FAILED, f"{asker}: {reason}", f"immich:{part}:host: a name or address that containers find")]
        advice = _firewall_program(here) or "let the Immich network in: see `nft list ruleset` for what drops it"
        return [(FAILED, f"{asker} does not reach {target}: {reason}", advice)]

    return check


def _answers(here):
    if not here["ping"]:
        raise _NotCheckedError(f"{here['directory']}/docker-compose.yml")
    broken = _call("immich_app.server_silent", here["ping"], 2)
    if broken:
        return [(FAILED, _one_line(broken[0]), "systemctl restart immich")]
    return [(OK, f"{here['ping']} says pong")]


def _learning(here):
    if MACHINE_LEARNING not in _compose_of(here)["services"]:
        return [(OK, "is off")]
    broken = _call("immich_app.machine_learning_silent")
    return (
        [(FAILED, _one_line(broken[0]), f"podman logs --tail 20 {MACHINE_LEARNING}")] if broken else [(OK, "says pong")]
    )


def _exposure(here):
    settings = _settings_of(here)
    sockets = _call("netns.listening")
    for sentence in _call("immich_app.listens_wider", settings, sockets):
        yield FAILED, sentence, "salt-call state.apply immich.app"
    for sentence in _call("immich_app.listens_everywhere", settings, sockets):
        yield WARNING, sentence, "see the listen addresses in its configuration"
    for warning in _call("immich_app.server_warnings", settings, 2):
        yield WARNING if warning["serves"] else FAILED, warning["seen"], warning["do"]


# -- backups ----------------------------------------


def _backups(here):
    """The formula's dumps; a database that is managed elsewhere wants them too."""
    settings = here["settings"]
    drill = _call("systemd_unit.status", "immich-restore-drill.service")
    if drill["loaded"] == "loaded" and drill["active"] == "failed":
        seen = "the last rehearsal of a restore failed: the backup, or the database beside it, is not as it should be"
        yield FAILED, seen, "journalctl -u immich-restore-drill -n 50; salt-call immich.restore_drill"
    if here["working"].get("what") == "backup":
        yield OK, f"one is under way since {here['working']['since']}"
    status = _call("systemd_unit.status", "immich-backup.service")
    sentences = _call("immich.backup_warnings", settings) if settings else []
    if status["active"] == "failed" and not sentences:
        sentences = [f"The last backup of the database failed: {status['text']}"]
    for sentence in sentences:
        seen = sentence.partition(". Make one")[0]
        yield (
            FAILED if "failed" in seen else WARNING,
            seen,
            "journalctl -u immich-backup -n 50; salt-call immich.backup",
        )
    if not sentences:
        directory = settings["backup"]["directory"] if settings else _deployed_backups()
        point = _call("immich_app.mount_missing", directory)
        if point:
            yield WARNING, f"not checked: {directory} is below {point}, which is not mounted", f"mount {point}"
            return
        yield _backups_row(directory, time.time())


def _deployed_backups():
    try:
        return json.loads(_text(BACKUP_CONFIG))["directory"]
    except (ValueError, KeyError, TypeError) as error:
        raise _NotCheckedError(f"a pillar or {BACKUP_CONFIG}, to know the directory") from error


def _backups_row(directory, now):
    """
    What there is in the formula's own directory, which Immich cannot write to; that there is none is said only of a
    directory that was read. Immich's own backups lie where its container can put any file: they do not count.
    """
    try:
        with os.scandir(directory) as entries:
            found = [
                entry for entry in entries if entry.name.endswith(".dump") and entry.is_file(follow_symlinks=False)
            ]
            written = {entry.name: entry.stat(follow_symlinks=False).st_mtime for entry in found}
    except FileNotFoundError:
        written = {}
    except OSError as error:
        return WARNING, f"not checked: {directory} cannot be read: {error.strerror}", ""
    # Which one is the newest, for a rehearsal and for what is kept, goes by the time in the name.
    soon = time.strftime("immich_%Y%m%dT%H%M%SZ_", time.gmtime(now + 60))
    named = {name for name in written if BACKUP_NAME.match(name) and name > soon}
    ahead = sorted(named | {name for name, time_ in written.items() if time_ > now + 60})
    if ahead:
        return FAILED, f"{ahead[0]} in {directory} is of the future: is the clock right?", "timedatectl"
    return _newest_row(list(written.values()), now, directory)


def _newest_row(times, now, directory):
    command = "salt-call immich.backup"
    if not times:
        return WARNING, f"there is no backup of the database in {directory}", command
    hours = (now - max(times)) / 3600
    seen = f"the newest is {hours:.0f} hours old"
    return (OK, seen) if hours < BACKUP_HOURS else (WARNING, seen, command)


# In the order of causes. Behind a gate that fails, the rest of its group is not checked.
FORMULA = (
    Check("Python libraries", _libraries, False),
    Check("modules of the formula", _modules, False),
    Check("pillar", _pillar, False),
)
GROUPS = (
    (
        Check("CPU", _cpu, False),
        Check("time zone", _time_zone, False),
        Check("SELinux", _selinux, False),
    ),
    (Check("mounts", _mounted, False),),
    (Check("disk space", _space, False),),
    (Check("uploads", _uploads, False), Check("model cache", _cache, False)),
    (Check("planted files", _planted, False),),
    (
        Check("Podman", _podman, True),
        Check("network", _network, True),
        Check("gateway and firewall", _gateway, False),
    ),
    (
        Check("PostgreSQL service", _service("postgres"), True),
        Check("PostgreSQL", _answering(_postgres_answers, "postgres"), True),
        Check("database", _database, False),
        Check("PostgreSQL's address", _listens("postgres", "immich.postgres"), False),
        Check("database storage", _database_storage, False),
        Check("refused by PostgreSQL", _refusals("immich_postgres", _postgres), False),
        Check("leftovers", _leftovers, False),
    ),
    (
        Check("Valkey service", _service("valkey"), True),
        Check("Valkey", _answering(_valkey_answers, "valkey"), True),
        Check("Valkey scripts", _scripts, True),
        Check("Valkey memory", _memory, False),
        Check("Valkey user", _acl, False),
        Check("refused by Valkey", _refusals("immich_valkey", _valkey), False),
        Check("Valkey's address", _listens("valkey", "immich.valkey"), False),
    ),
    (
        Check("compose file", _compose_file, False),
        Check("version", _version, False),
        Check("secrets", _secrets, False),
        Check("images", _images, False),
    ),
    (
        Check("immich.service", _unit, True),
        Check("containers", _containers, False),
    ),
    (
        Check("DNS between containers", _names, False),
        Check("way to PostgreSQL", _way("postgres", "DB_HOSTNAME", "DB_PORT"), False),
        Check("way to Valkey", _way("valkey", "REDIS_HOSTNAME", "REDIS_PORT"), False),
    ),
    (
        Check("Immich", _answers, True),
        Check("machine learning", _learning, False),
        Check("exposure", _exposure, False),
    ),
    (Check("backups", _backups, False),),
)
