"""Run a shell command on a test host, and print what it took as one JSON object, the last line of standard error.

    python3 meter.py COMMAND

``seconds`` and ``cpu_seconds`` are those of the command and of everything that it waited for, ``peak_mib`` is the peak
of the largest of these processes, and ``processes`` says how many it started, by name. Standard library only.
"""

import collections
import ctypes
import json
import os
import struct
import sys
import tempfile
import time

# struct acct_v3 of linux/acct.h; what is read of it: pid, parent, name.
RECORD = struct.Struct("=16x2I24x16s")


def main():
    with tempfile.NamedTemporaryFile() as accounts:
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            # Only from here on: what else the host does in the meantime is told apart by its parents.
            _account(accounts.name.encode())
            os.execvp("sh", ["sh", "-c", sys.argv[1]])
        _, status, usage = os.wait4(pid, 0)
        seconds = time.monotonic() - began
        _account(None)
        processes = _started(pid, list(RECORD.iter_unpack(accounts.read())))
    spent = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "processes": processes,
    }
    print(f"\n{json.dumps(spent)}", file=sys.stderr)
    return os.waitstatus_to_exitcode(status)


def _account(path):
    """Let the kernel note every process of this PID namespace that ends from now on, or no more."""
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.acct(path):
        raise OSError(ctypes.get_errno(), "the kernel keeps no accounts of processes")


def _started(root, ended):
    """How many processes a process started, directly or not, by name. Children end before those that wait for them."""
    family, names = {root}, collections.Counter()
    for pid, parent, name in reversed(ended):
        if parent in family:
            family.add(pid)
            names[name.rstrip(b"\0").decode(errors="replace")] += 1
    return dict(names.most_common())


if __name__ == "__main__":
    sys.exit(main())
