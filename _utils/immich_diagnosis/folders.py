"""
Part: the folders of the containers, and the file systems that hold them
========================================================================
"""

import os
import shlex
import stat
import time

from salt.exceptions import CommandExecutionError

from host_core import mounts
from immich_core import storage
from immich_core.storage import FOLDERS, MARKER
from immich_diagnosis.check import FAILED, OK, WARNING, Check, NotCheckedError, call
from immich_diagnosis.facts import MACHINE_LEARNING, SERVER, settings_of, source
from immich_diagnosis.permissions import may_use, user_ids
from immich_diagnosis.words import one_line
from immich_io import file_tree

GIB = 1024**3
# What a container can leave for other users of the host. The remedies contain no name that it chose, and stop it, since
# chmod follows a link that has taken a file's place.
PLANTED = {
    "setuid": ("setuid or setgid", "-type f -perm /6000 -exec chmod ug-s {} +"),
    "device": ("a device", r"\( -type b -o -type c \) -delete"),
}
# Paths in a row.
MOST_PLANTED = 3


def _paths(here):
    listed = (*here["libraries"], *(volume["path"] for volume in here["volumes"]))
    return [path for path in (here["uploads"], *here["storage"].values(), *listed, here["cache"]) if path]


def _mounted(here):
    if not _paths(here):
        raise NotCheckedError("a pillar or a deployment, to know the paths")
    for path in _paths(here):
        point = mounts.missing(path)
        if point:
            yield FAILED, f"{point} is in /etc/fstab and is not mounted", f"mount {point}"
        elif not os.path.exists(path):
            yield FAILED, f"{path} is not there", _missing_advice(here, path)
        else:
            yield OK, path


def _missing_advice(here, path):
    if path == here["cache"] or not here["compose_text"]:
        return "salt-call state.apply immich.app"
    return "mount what is missing there. To start empty instead, create the directory by hand"


def _space(here):
    places = {os.path.realpath(path): None for path in (*_paths(here), "/var/lib/containers", "/var/lib", "/var/log")}
    devices = {}
    for path in filter(os.path.exists, places):
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
    return f"free space on the file system of {path}, or enlarge it"


def _uploads(here):
    path = here["uploads"]
    if not path or not os.path.isdir(path):
        raise NotCheckedError("mounts")
    deployed = source(here["compose"]["services"].get(SERVER, {}), "/data")
    if deployed not in (None, path):
        seen = f"the installation's library is {deployed}, and immich:upload_location is {path}"
        return [(FAILED, seen, f"move the files, then immich:upload_location_moved_from: {deployed}")]
    places = storage.places(path, here["storage"])
    missing = [name for name in FOLDERS if not os.path.exists(f"{places[name]}/{MARKER}")]
    if missing == list(FOLDERS):
        return [_empty_library(here, path)]
    if missing:
        apart = "".join(f", {places[name]}" for name in missing if name in here["storage"])
        seen = f"{path}{apart} lacks the marker file {MARKER} in {', '.join(missing)}"
        return [(FAILED, seen, f"mount what is missing below {path}{apart}. Do not create the markers by hand")]
    inner = [*places.values(), *(f"{place}/{MARKER}" for place in places.values())]
    return may_use([path, *inner], here["users"][SERVER], "immich:server:user") or [
        (OK, f"{path} is as Immich left it")
    ]


def _empty_library(here, path):
    """Nothing is there before the first start. Whether that was, the database knows: it has Immich's indexes."""
    seen = f"{path} has no marker file of Immich"
    if not here["compose_text"]:
        return OK, f"{seen}: nothing is deployed yet"
    try:
        postgres = settings_of(here)["postgres"]
        connection = {**postgres["connection"], "connect_timeout": 2}
        used = call(here, "pgsql_extension.indexes", "vector", postgres["database"], connection)
    except (NotCheckedError, CommandExecutionError):
        return (
            WARNING,
            f"{seen}, and without the database it is not known whether it ever had one",
            f"check that {path} is mounted",
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
        raise NotCheckedError("mounts")
    paths = [path, *(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))]
    user = here["users"][MACHINE_LEARNING]
    if may_use(paths, user, ""):
        uid, gid = user_ids(user)
        seen = f"machine learning, which runs as {uid}:{gid}, cannot write to {path}"
        return [(FAILED, seen, f"chown -R {uid}:{gid} {path}")]
    return [(OK, path)]


def _planted(here):
    """Setuid and setgid files, and devices, in the folders that containers write. Immich itself creates none."""
    writable = (volume["path"] for volume in here["volumes"] if not volume["read_only"])
    written = (here["uploads"], *here["storage"].values(), *writable, here["cache"])
    folders = [path for path in written if path and os.path.isdir(path)]
    if not folders:
        raise NotCheckedError("mounts")
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
    named = ", ".join(one_line(path)[-120:] for path in paths[:MOST_PLANTED])
    seen = f"{named}{more}: {what}, which Immich never creates. Find out where it comes from"
    return FAILED, seen, f"systemctl stop immich; find {shlex.quote(folder)} -xdev {remedy}"


GROUPS = (
    (Check("mounts", _mounted),),
    (Check("disk space", _space, everywhere=True),),
    (Check("uploads", _uploads), Check("model cache", _cache)),
    (Check("planted files", _planted),),
)
