"""
Which process holds a socket
============================

By proc_pid_fd(5), which root alone sees of all processes.
"""

import contextlib
import os
import re

from host_core import files


class Listeners:
    """
    The sockets that listen on this host. Who holds one is looked for when it is asked, and no further than needed.

    sockets
        As ``netns.listening`` returns them.
    """

    def __init__(self, sockets):
        self._sockets = sockets
        self._processes = iter(list(filter(str.isdigit, os.listdir("/proc"))))
        self._holders = {}

    def with_holders(self, ports):
        """
        Return all sockets, those on some ports with ``holder``: the process, as ``{"number": …, "arguments": [words],
        "unit": name}``, or None if it cannot be seen.

        ports
            Set of port numbers.
        """
        return [
            {**each, "holder": self._holder(f"socket:[{each['inode']}]") if each["port"] in ports else None}
            for each in self._sockets
        ]

    def _holder(self, name):
        while name not in self._holders:
            process = next(self._processes, None)
            if process is None:
                return None
            self._holders.update(dict.fromkeys(_open_files(process), process))
        return _described(self._holders[name])


def _open_files(process):
    """What the files are that a process has open. Those closed in the meantime, or not ours to see, are none."""
    found = set()
    with contextlib.suppress(OSError):
        for each in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{process}/fd/{each}"))
    return found


def _described(process):
    arguments = files.text(f"/proc/{process}/cmdline").rstrip("\0").split("\0")
    # The last part of a cgroup's path, of either version, is the unit: proc_pid_cgroup(5), systemd.
    units = re.findall(r"[^/\n]+\.(?:service|scope)$", files.text(f"/proc/{process}/cgroup"), re.MULTILINE)
    return {"number": int(process), "arguments": arguments, "unit": units[-1] if units else ""}
