"""
A cgroup of its own for each host.

nspawn puts what it boots into ``payload`` below the cgroup in which it was started. Hosts started in the same one
would share that of each service: systemd in one host would count, wait for and kill the processes of the others.
"""

import contextlib
from pathlib import Path


def _own():
    """The cgroup (version 2) of this process, as a folder."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf8").splitlines()]
    top = next(folder for folder, kind in mounts if kind == "cgroup2")
    lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    path = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    return Path(top) / path.strip("/")


def enter(name):
    """Command prefix that runs a program in a cgroup of its own."""
    script = 'mkdir -p "$0" && echo $$ >"$0/cgroup.procs" && exec "$@"'
    return ["/bin/sh", "-c", script, str(_own() / name)]


def remove(prefix):
    """Remove the cgroups whose names begin with this, now that nothing runs in them."""
    for top in _own().glob(f"{prefix}*"):
        folders = []
        with contextlib.suppress(OSError):  # gone meanwhile
            folders = [folder for folder in top.rglob("*") if folder.is_dir()]
        for folder in (*sorted(folders, key=lambda each: -len(each.parts)), top):
            with contextlib.suppress(OSError):
                folder.rmdir()
