"""
Snapshots of Immich's library together with a dump of its database, made by restic
====================================================================================

What a snapshot holds and says, the command lines, what of it is kept, and how the library in it compares with a
database. The backup's program and Salt's modules go by this. Needs nothing but Python.

The two halves of a snapshot are ``/library`` and ``/database``, wherever they are on the host, so that a snapshot can
be restored to any place. On request ``/external`` is beside them, with external libraries as Immich's container sees
them. Its tags are ``TAG`` and the name of the dump, which is the id of both halves.
"""

import calendar
import posixpath
import re
import time

from immich_core import backups

# The program's configuration, and what of it is secret: only root reads these, and who has CAP_DAC_READ_SEARCH.
CONFIG = "/etc/immich-formula/library-backup.json"
PASSWORD = "/etc/immich-formula/library-backup.password"
ENVIRONMENT = "/etc/immich-formula/library-backup.environment.json"
SSH_CONFIG = "/etc/immich-formula/library-backup.ssh"
SSH_KEY = "/etc/immich-formula/library-backup.key"
SSH_KNOWN_HOSTS = "/etc/immich-formula/library-backup.known_hosts"
# Who makes them, which is the only one to write into a repository on this host.
USER, USER_ID = "immich-backup", 60885
# Where the unit sees the two halves, under their names in a snapshot.
TREE = "/run/immich-library"
LIBRARY, DATABASE, EXTERNAL = "library", "database", "external"
TAG = "immich-formula"
# Immich's folders for what has been uploaded, and what lies there beside it.
ORIGINALS = ("upload", "library")
BESIDE_ORIGINALS = (".immich", ".xmp")
# Where the container has the library, now and before v1.136.
MEDIA = ("/data/", "/usr/src/app/upload/")
# Seconds between two checks of the repository, each with another part of its data.
WEEK = 7 * 86400
# No row of Immich's has a longer path, and no library has more files.
LONGEST_PATH, MOST_FILES = 4096, 20_000_000
# Variables that would make restic another program, or take it to another repository.
OWN_VARIABLES = re.compile(r"RESTIC_(REPOSITORY|PASSWORD|CACHE_DIR|KEY_HINT|HOST).*|PATH|HOME|LD_.*|XDG_.*")
_SFTP_URL = re.compile(r"sftp://(?P<host>(?:[^@/]+@)?(?:\[[0-9a-fA-F:.]+\]|[^:/]+))(?::(?P<port>[0-9]+))?/(?P<path>.+)")
_SFTP = re.compile(r"sftp:(?P<host>[^/:][^:]*):(?P<path>.*)")
_IDENTIFIER = re.compile("[0-9a-f]{64}")


# -- where ----------------------------------------


def local_path(repository):
    """
    Return the path of a repository on this host, or ``None`` if it is elsewhere.

    repository
        As restic names it.

    .. code-block:: python

        library_backups.local_path("/mnt/usb/immich")
    """
    path = repository.removeprefix("local:")
    return posixpath.normpath(path) if path.startswith("/") else None


def sftp_command(repository):
    """
    Return the command with which restic reaches a repository over SSH, or ``None`` if it is not one.

    repository
        As restic names it: ``sftp:USER@HOST:PATH`` or ``sftp://USER@HOST:PORT/PATH``.

    .. code-block:: python

        library_backups.sftp_command("sftp:backup@nas.example.org:/immich")
    """
    found = _SFTP_URL.fullmatch(repository) or _SFTP.fullmatch(repository)
    if not found:
        return None
    host, port = found["host"].replace("[", "").replace("]", ""), found.groupdict().get("port")
    return f"ssh -F {SSH_CONFIG} {f'-p {port} ' if port else ''}{host} -s sftp"


def ssh_config(key, known_hosts):
    """
    Return the text of the configuration with which ssh goes to the repository: it asks nobody, and trusts no unknown
    host.

    key, known_hosts
        Whether the pillar has them; if not, ssh's own are used.

    .. code-block:: python

        library_backups.ssh_config(key=True, known_hosts=True)
    """
    lines = [
        "# This file is managed by Salt (immich-formula).",
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "ServerAliveInterval 30",
        "ServerAliveCountMax 4",
    ]
    lines += [f"IdentityFile {SSH_KEY}", "IdentitiesOnly yes"] if key else []
    lines += [f"UserKnownHostsFile {SSH_KNOWN_HOSTS}"] if known_hosts else []
    return "\n".join(lines) + "\n"


def with_login(repository, environment):
    """
    Return a repository of a REST server with the login that is in the environment: restic before 0.16 knows no other
    way. Any other is returned as it is.

    repository
        As restic names it.
    environment
        The declared variables.

    .. code-block:: python

        library_backups.with_login("rest:https://nas.example.org/", {"RESTIC_REST_USERNAME": "a"})
    """
    found = re.fullmatch(r"(rest:https?://)([^@/]+)(.*)", repository)
    user, password = (environment.get(f"RESTIC_REST_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if not found or not user:
        return repository
    return f"{found[1]}{_quoted(user)}:{_quoted(password)}@{found[2]}{found[3]}"


def _quoted(text):
    return "".join(char if re.fullmatch("[A-Za-z0-9._~-]", char) else f"%{_bytes(char)}" for char in text)


def _bytes(char):
    """The bytes of a character as a URL has them, without the first percent sign."""
    return "%".join(f"{each:02X}" for each in char.encode())


# -- command lines ----------------------------------------


def excludes(declared):
    """
    Return the patterns of what is left out of a snapshot: the content of folders of the library, and not the files by
    which Immich knows at its start that they are there.

    declared
        Folders below ``immich:upload_location``.

    .. code-block:: python

        library_backups.excludes(["thumbs"])
    """
    # From the root: "library/thumbs" would also be the folder of an account whose storage label is "thumbs".
    folders = [f"{TREE}/{LIBRARY}/{folder.strip('/')}" for folder in declared]
    return [
        line.replace("$", "$$")
        for folder in folders
        for line in (f"{literal(folder)}/*", f"!{literal(folder)}/.immich")
    ]


def literal(path):
    """
    Return a path as restic's patterns have it, with a backslash before what has another meaning there.

    path
        The path.

    .. code-block:: python

        library_backups.literal("/library/upload/a[1].jpg")
    """
    return re.sub(r"([\\*?\[\]])", r"\\\1", path)


def backup_words(config, dump, parent):
    """
    Return the words with which restic makes a snapshot.

    config
        The program's configuration.
    dump
        Name of the dump.
    parent
        Id of the snapshot that this one is compared with, or ``None``: restic's own choice goes by paths, and those of
        dumps are new each time.

    .. code-block:: python

        library_backups.backup_words(config, "immich_20261124T203000Z_v3.3.1_immich.dump", None)
    """
    words = ["backup", "--json", "--host", config["host"], "--tag", TAG, "--tag", dump]
    words += ["--parent", parent] if parent else ["--force"]
    words += ["--limit-upload", str(config["bandwidth"])] if config["bandwidth"] else []
    # The dump comes first: it is removed earlier than any photo.
    return [*words, f"{DATABASE}/{dump}", f"{DATABASE}/{dump}{backups.CHECKSUM}", LIBRARY, *config["external"]]


def forget_words(config):
    """
    Return the words with which restic forgets what is no longer to be kept, or ``None`` if everything is: then the
    repository may be one that takes no removal.

    config
        The program's configuration.

    .. code-block:: python

        library_backups.forget_words({"host": "photos.example.org", "keep": {"daily": 7}})
    """
    kept = [word for unit, count in config["keep"].items() if count for word in (f"--keep-{unit}", str(count))]
    if not kept:
        return None
    return ["forget", "--quiet", "--host", config["host"], "--tag", TAG, "--group-by", "", "--keep-last", "1", *kept]


def is_check_due(record, now):
    """
    Return whether the repository has to be checked, and what is no longer used removed from it.

    record
        What the program has noted.
    now
        Seconds since the epoch.

    .. code-block:: python

        library_backups.is_check_due({}, time.time())
    """
    checked = record.get("checked", 0)
    return not now - WEEK < checked <= now


def check_words(weeks, now):
    """
    Return the words with which restic checks the repository, and reads a part of its data: all of it in some weeks.

    weeks
        In how many.
    now
        Seconds since the epoch.

    .. code-block:: python

        library_backups.check_words(26, time.time())
    """
    return ["check", f"--read-data-subset={int(now // WEEK) % weeks + 1}/{weeks}"]


# -- what restic says ----------------------------------------


def snapshots(listed):
    """
    Return the formula's snapshots, newest first: ``id``, ``dump`` (its name), ``time`` (ISO 8601 in UTC), ``host``,
    and, if restic is new enough to note them, ``size`` in bytes and ``files``.

    listed
        What ``restic snapshots --json`` prints, parsed.

    .. code-block:: python

        library_backups.snapshots(json.loads(printed))
    """
    found = []
    for each in listed or ():
        dumps = [tag for tag in each.get("tags") or () if backups.parsed(tag)]
        if TAG in (each.get("tags") or ()) and dumps and _IDENTIFIER.fullmatch(each["id"]):
            summary = each.get("summary", {})
            found.append(
                {
                    "id": each["id"],
                    "dump": dumps[0],
                    "time": backups.iso(_moment(each["time"])),
                    "host": each.get("hostname"),
                    "size": summary.get("total_bytes_processed"),
                    "files": summary.get("total_files_processed"),
                }
            )
    return sorted(found, key=lambda snapshot: (snapshot["dump"], snapshot["time"]), reverse=True)


def _moment(text):
    """Seconds since the epoch of a time as Go writes it, with the offset of a time zone."""
    found = re.match(r"([0-9-]{10}T[0-9:]{8})(?:\.[0-9]+)?(?:Z|([+-])([0-9]{2}):([0-9]{2}))", text)
    seconds = calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S"))
    if not found[2]:
        return seconds
    offset = int(found[3]) * 3600 + int(found[4]) * 60
    return seconds - offset if found[2] == "+" else seconds + offset


def find(there, backup):
    """
    Return one of some snapshots by its id or the name of its dump, or ``None``.

    there
        As of :py:func:`snapshots`.
    backup
        Eight digits of the id or more, or the name.

    .. code-block:: python

        library_backups.find(there, "immich_20261124T203000Z_v3.3.1_immich.dump")
    """
    short = bool(re.fullmatch("[0-9a-f]{8,64}", backup))
    return next((each for each in there if each["dump"] == backup or (short and each["id"].startswith(backup))), None)


def of_database(there, database):
    """
    Return those of some snapshots whose dump is of a database that has users, newest first.

    there
        As of :py:func:`snapshots`.
    database
        Its name.

    .. code-block:: python

        library_backups.of_database(there, "immich")
    """
    said = [(each, backups.parsed(each["dump"])) for each in there]
    return [each for each, dump in said if dump["database"] in (None, database) and not dump["empty"]]


def listed_with(local, there, record, now):
    """
    Return backups with both of their halves, newest first: each of ``immich.backups``, with its snapshot as
    ``library``, or ``None`` if there is none; and those of which only the repository has the dump, with no ``path``.

    local
        Backups in their directory.
    there
        As of :py:func:`snapshots`.
    record
        What the program has noted: ``rate``, the bytes per second of the last larger snapshot, and ``last``.
    now
        Seconds since the epoch.

    .. code-block:: python

        library_backups.listed_with(local, there, {}, time.time())
    """
    noted = (record.get("last") or {}, record.get("rate"), now)
    halves = {each["dump"]: each for each in reversed(there)}
    found = [{**backup, "library": _half(halves.pop(backup["name"], None), *noted)} for backup in local]
    for name, snapshot in halves.items():
        said = backups.parsed(name)
        only = {"path": None, "name": name, "time": backups.iso(said["moment"]), "size": None}
        only.update({key: said[key] for key in ("version", "database", "empty")})
        found.append({**only, "library": _half(snapshot, *noted)})
    return sorted(found, key=lambda backup: backup["name"], reverse=True)


def _half(snapshot, last, rate, now):
    if snapshot is None:
        return None
    size, files = snapshot["size"], snapshot["files"]
    if size is None and last.get("snapshot") == snapshot["id"][:8]:
        size, files = last["bytes"], last["files"]  # restic before 0.17 does not note them
    seconds = round(size / rate) if rate and size else None
    age = round((now - backups.parsed(snapshot["dump"])["moment"]) / 3600, 1)
    return {"snapshot": snapshot["id"][:8], "age": age, "size": size, "files": files, "seconds": seconds}


# -- library and database ----------------------------------------


def in_library(path):
    """
    Return where the library has a file of the database's, as a path below it, or ``None`` if it is elsewhere: in an
    external library.

    path
        ``asset."originalPath"``, which Immich's role can set to anything.

    .. code-block:: python

        library_backups.in_library("/data/upload/a/b.jpg")
    """
    for prefix in MEDIA:
        if path.startswith(prefix):
            below = posixpath.normpath(path[len(prefix) :])
            return below if below.split("/")[0] in ORIGINALS else None
    return None


def in_external(path, folders):
    """
    Return where a snapshot has a file of an external library, or ``None`` if none of those that it holds has it.

    path
        ``asset."originalPath"``.
    folders
        ``external`` of the program's configuration.

    .. code-block:: python

        library_backups.in_external("/mnt/photos/a.jpg", ["external/mnt/photos"])
    """
    place = posixpath.normpath(f"{EXTERNAL}/{path}")
    return place if any(place.startswith(f"{folder}/") for folder in folders) else None


def is_original(path):
    """
    Return whether a file of the library is one that the database has to know.

    path
        Below the library.

    .. code-block:: python

        library_backups.is_original("upload/a/b.jpg")
    """
    return path.split("/")[0] in ORIGINALS and not path.endswith(BESIDE_ORIGINALS)


def missing_and_orphaned(assets, files):
    """
    Return which files of a database a snapshot lacks, and which of its originals the database does not know, as two
    sorted lists of paths below the library.

    assets
        Checksums of the database's files, by their paths.
    files
        Paths of the snapshot's.

    .. code-block:: python

        library_backups.missing_and_orphaned({"upload/a.jpg": "…"}, {"upload/a.jpg"})
    """
    missing = sorted(path for path in assets if path not in files)
    return missing, sorted(path for path in files if path not in assets and is_original(path))


def explained(missing, assets, now, orphaned):
    """
    Return which of some missing files are lost, and how many were deleted or moved between the dump and the snapshot.

    missing
        Paths that the snapshot lacks.
    assets
        Checksums by paths in the dump.
    now
        ``[[path below the library, checksum], …]`` of Immich's database for these checksums.
    orphaned
        Paths of the snapshot's files that the dump does not know.

    .. code-block:: python

        library_backups.explained(missing, assets, now, orphaned)
    """
    places, orphaned = {}, set(orphaned)
    for path, checksum in now:
        places.setdefault(checksum, set()).add(path)
    lost, deleted, moved = [], 0, 0
    for path in missing:
        current = places.get(assets[path], set())
        if not current:
            deleted += 1
        elif current & orphaned:
            moved += 1
        else:
            lost.append(path)
    return lost, deleted, moved
