"""
Devices of this host: nodes of ``/dev``, devices of CDI, groups
================================================================

What stands in a file of CDI is read with limits: administrators and vendors' programs write it.
"""

import contextlib
import grp
import os
import re
import shutil
import stat
from pathlib import Path

import yaml  # PyYAML: a dependency of Salt

from host_core import command, podman
from immich_io.project import parsed

# Where Podman looks for files of CDI: cdi.DefaultSpecDirs.
CDI_FOLDERS = ("/etc/cdi", "/run/cdi")
LARGEST_FILE, MOST_FILES, MOST_NODES = 1024**2, 64, 256


def seen(asked):
    """
    Return what this host has of devices, files and groups.

    ``{"nodes": {device: {path: {"owner": number, "group": number, "mode": number}}}, "cdi": {name: version of CDI},
    "podman": (number, number) or None, "files": [paths], "groups": {name: number}}``; what is not there is left out. Of
    CDI and Podman nothing is known where no device of CDI is asked for.

    asked
        As ``immich_core.hardware.asked`` returns it.

    .. code-block:: python

        devices.seen({"devices": ["/dev/dri"], "files": [], "groups": ["video"]})
    """
    paths = [device for device in asked["devices"] if device.startswith("/")]
    by_cdi = len(paths) < len(asked["devices"])
    return {
        "nodes": {path: nodes for path in paths if (nodes := _nodes(path))},
        "cdi": _cdi_devices() if by_cdi else {},
        "podman": _podman_version() if by_cdi else None,
        "files": [path for path in asked["files"] if os.path.exists(path)],
        "groups": _groups(asked["groups"]),
    }


def _nodes(path):
    """The character devices at a path, or directly in the folder there."""
    paths = [path]
    if os.path.isdir(path):
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path))[:MOST_NODES]]
    found = {}
    for each in paths:
        with contextlib.suppress(OSError):
            held = os.stat(each)
            if stat.S_ISCHR(held.st_mode):
                found[each] = {"owner": held.st_uid, "group": held.st_gid, "mode": stat.S_IMODE(held.st_mode)}
    return found


def _groups(names):
    found = {}
    for name in names:
        with contextlib.suppress(KeyError):
            found[name] = grp.getgrnam(name).gr_gid
    return found


def _cdi_devices():
    """Devices that files of CDI describe, with the version of their file. One that cannot be read describes none."""
    files = [path for folder in CDI_FOLDERS for path in sorted(Path(folder).glob("*"))[:MOST_FILES]]
    return {name: version for path in files if path.suffix in (".json", ".yaml") for name, version in _described(path)}


def _podman_version():
    """None where Podman is not installed yet, or does not say."""
    if not shutil.which("podman"):
        return None
    try:
        found = re.match(r"podman version (\d+)\.(\d+)", podman.run("--version", seconds=10))
    except command.CommandError:
        return None
    return found and tuple(map(int, found.groups()))


def _described(path):
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return []
            text = file.read(LARGEST_FILE + 1)
        # JSON is YAML. A file that was cut would describe less than Podman reads.
        described = parsed(text) if len(text) <= LARGEST_FILE else {}
        version = str(described["cdiVersion"])
        return [(f"{described['kind']}={device['name']}", version) for device in described["devices"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return []
