"""
Whether the users of a running server are the same after a restart
==================================================================
"""

import os
import time

from valkey_core import acl_file, acl_reading, acl_users, addresses

# After this time no file system gives a changed file the time stamp that it had before.
FILE_STAMP_SECONDS = 2


def unsaved(session, lines, current, names):
    """
    Whether the file from which the server takes its users at its next start differs from its memory, in
    some users or, if names is None, in any; only then the lines of memory are looked at.

    Only a file on this host can be read; of a server elsewhere nothing is claimed.
    """
    path = session["aclfile"] or session["config_file"]
    if not path or not is_local(session):
        return False
    try:
        in_file = file_lines(session, path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if names is None and set(in_file["users"].values()) == set(lines):
        return False
    saved = acl_file.users_of(in_file, names, bool(session["aclfile"]))
    names = set(saved) | set(current) if names is None else names
    if any((name in saved) != (name in current) for name in names):
        return True
    saved = {name: saved[name] for name in names if name in saved}
    return bool(acl_users.changed(saved, current, lambda: acl_reading.command_table(session)))


def file_lines(session, path):
    """
    The lines of a file that are about users, as of ``acl_file.lines_of``.

    They are kept as long as the file is the one that was read. A file that has changed just now could change again
    without its time stamps moving, and is not kept.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        status = os.fstat(stream.fileno())
        stamp = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        stamp_known, lines = session.get("file", (None, None))
        if stamp == stamp_known:
            return lines
        lines = acl_file.lines_of(stream)
    if time.time() - status.st_ctime > FILE_STAMP_SECONDS:
        session["file"] = stamp, lines
    return lines


def is_local(session):
    """Whether the server runs on this host and sees the same files."""
    if "local" not in session:
        session["local"] = _runs_here(session)
    return session["local"]


def _runs_here(session):
    if not session["unix_socket"] and not addresses.is_own(session["host"]):
        return False
    try:
        with open(f"/proc/{session['process_id']}/comm", encoding="utf-8") as stream:
            command = stream.read().strip()
    except OSError:
        return False
    return command == os.path.basename(session["executable"])[:15]
