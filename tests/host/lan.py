"""A network of test hosts: one network namespace of its own with a bridge, cut off from everything else."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.host import cgroup
from tests.host.cache import CACHE, run

RUN = CACHE / "run"
# TEST-NET-2 of RFC 5737: an address range that no real host has.
PREFIX = "198.51.100"
CABLE_PREFIX = "203.0.113"


class Lan:
    """Network namespace, bridge, and a folder for everything its hosts write.

    With ``uplink`` its hosts reach the outside through this machine, for images from a real registry.

    The folder's lock is held while this process lives. What a killed process left is swept by the next one.
    """

    def __init__(self, uplink=False):
        sweep()
        self.uplink = uplink
        self.name = f"if{os.getpid()}x{time.monotonic_ns() % 100000}"
        self.folder, self._lock = claim(self.name)
        self._next_address = 10
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "add", "br0", "type", "bridge")
        self.run("ip", "address", "add", f"{PREFIX}.1/24", "dev", "br0")
        self.run("ip", "link", "set", "br0", "up")
        self.run("ip", "link", "set", "lo", "up")
        if uplink:
            self._connect_outside()

    def _connect_outside(self):
        """A cable between the namespace and this machine, and address translation at both ends of the way out."""
        near, far = f"{CABLE_PREFIX}.1", f"{CABLE_PREFIX}.2"
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "uplink", "netns", self.name)
        run("ip", "address", "add", f"{near}/30", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        self.run("ip", "address", "add", f"{far}/30", "dev", "uplink")
        self.run("ip", "link", "set", "uplink", "up")
        self.run("ip", "route", "add", "default", "via", near)
        for prefix, enter in ((f"{PREFIX}.0/24", self.enter), (f"{CABLE_PREFIX}.0/30", [])):
            run(*enter, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            chain = f"chain out {{ type nat hook postrouting priority 100; ip saddr {prefix} masquerade; }}"
            run(*enter, "nft", f"table ip {self.name} {{ {chain}; }}")

    @property
    def enter(self):
        """Command prefix that runs a program in this network. (`ip netns exec` would hide the cgroups.)"""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def run(self, *command):
        return run(*self.enter, *command)

    def address(self):
        """The next free address."""
        self._next_address += 1
        return f"{PREFIX}.{self._next_address}"

    def close(self):
        _remove(self.folder)
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@contextlib.contextmanager
def _nobody_sweeps():
    RUN.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "run.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def claim(name, kind=fcntl.LOCK_EX):
    """A folder below RUN, made if it is not there, and its open lock: while somebody holds that, nobody sweeps it."""
    folder = RUN / name
    with _nobody_sweeps():
        folder.mkdir(exist_ok=True)
        lock = open(folder / "lock", "w", encoding="ascii")  # noqa: SIM115 (held by whoever claims)
        fcntl.flock(lock, kind)
    return folder, lock


def sweep():
    """Remove what processes that were killed left behind."""
    with _nobody_sweeps():
        for folder in RUN.iterdir():
            with contextlib.suppress(OSError), open(folder / "lock", "a", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)


def _remove(folder):
    for pid in _processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for _ in range(1200):
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf8").splitlines()]
        left = [mount for mount in mounts if mount.startswith(f"{folder}/")]
        if not left:
            break
        for mount in reversed(left):
            subprocess.run(["umount", mount], capture_output=True, check=False)
        time.sleep(0.1)
    else:
        raise RuntimeError(f"still mounted below {folder}")
    cgroup.remove(f"{folder.name}-")
    subprocess.run(["ip", "netns", "delete", folder.name], capture_output=True, check=False)
    subprocess.run(["nft", "delete", "table", "ip", folder.name], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _processes_of(folder):
    """PIDs of the nspawn processes (and, first, of their PID 1) whose root is below this folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[0].endswith(b"systemd-nspawn") and any(
                part.startswith(f"{folder}/".encode()) for part in command
            ):
                yield from (int(pid) for pid in (entry / "task" / entry.name / "children").read_text().split())
                yield int(entry.name)
