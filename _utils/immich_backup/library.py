"""
The library's backup: a run of its unit, and what is read from its repository
==============================================================================

What reads the repository runs as the user that writes it, in a unit of its own: root connects to no network and reads
no answer of the repository's server but as the output of that unit.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

from salt.exceptions import CommandExecutionError

from host_core import command, systemctl
from immich_backup import library_plan
from immich_backup.unit import watched
from immich_core import backups, units
from immich_io import library_backup_files, owners

# One at a time: a unit that a killed Salt has left is stopped by the next.
READER = "immich-library-read"
# A list of ten thousand snapshots has 2 MB.
LARGEST_LIST = 64 * 1024**2
LARGEST_COMPARISON = 256 * 1024**2
LIST_SECONDS = 600
# So long as a run may take.
LONGEST_SECONDS = 14 * 86400
WRITERS = ("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER")


def run():
    """Start the unit, or wait for the run that the dump has started, and return what it made."""
    began = time.time()
    started = library_backup_files.last_run().get("time", 0)
    complaint = watched(units.LIBRARY_BACKUP, library_backup_files.last_run, began, _sentence)
    last = library_backup_files.last_run()
    fresh = last.get("time", 0) > started
    if complaint is None and fresh and last["state"] == "done":
        return last["result"]
    reason = last["error"] if fresh and last.get("state") == "failed" else complaint or "the program was killed"
    reason = " ".join(reason.split())
    raise CommandExecutionError(
        f"The database is backed up, and the library is not: {reason}. See `journalctl -u immich-library-backup`"
    )


def _sentence(last, seconds):
    if last.get("state") != "running":
        return ""
    done, expected = (f"{last.get(key, 0) / 1e9:.2f} GB" for key in ("done", "expected"))
    left = "" if last.get("left") is None else f", {last['left']} s left"
    far = f": {done} of {expected}" if last.get("expected") else ""
    return f"Library, {last['phase']}{far}, {seconds} s{left}"


def snapshots(settings):
    """The snapshots of the repository, newest first."""
    return json.loads(_read(settings, ["list"], size=LARGEST_LIST, seconds=LIST_SECONDS))


def fetch_dump(settings, snapshot, directory, owner):
    """
    Write a snapshot's dump with its checksum into a directory, and return the dump's path.

    owner
        Number of the user and the group that may read it.
    """
    name = snapshot["dump"]
    for each in (name + backups.CHECKSUM, name):
        part = os.path.join(directory, f".{each}.fetched")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                _read(settings, ["dump", snapshot["id"], each], output=file)
                os.fchown(file.fileno(), *owner)
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, os.path.join(directory, each))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise
    return os.path.join(directory, name)


def restore(settings, snapshot, say):
    """
    Restore a snapshot's library to ``immich:upload_location``. What is there and not in the snapshot stays.

    say
        A function that tells a person a line.
    """
    upload = settings["upload_location"]
    say(f"Restoring the library of snapshot {snapshot['id'][:8]} to {upload}, while Immich serves")
    with contextlib.suppress(command.CommandError):
        # It would read what is being written.
        systemctl.run("stop", units.LIBRARY_BACKUP)
    answer = json.loads(_read(settings, ["restore", snapshot["id"]], writes=True))
    # The files of a library that another user of the container has had.
    changed = sum(owners.change_owner(path, settings["server"]["user"]) for path in library_plan.folders(settings))
    say(f"The library is restored, in {answer['seconds']:.0f} s")
    return {"snapshot": snapshot["id"][:8], "seconds": answer["seconds"], "owners_changed": changed}


def compare(settings, snapshot, assets, sample):
    """
    Compare a snapshot with the files of a database.

    assets
        Checksums, in hexadecimal, by paths below the library.
    sample
        How many files are read; ``None`` for all.
    """
    scratch = "/var/cache/immich-library-backup/drill"
    words = ["compare", snapshot["id"], scratch, *(["--sample", str(sample)] if sample is not None else [])]
    with tempfile.TemporaryFile() as request:
        request.write(json.dumps(sorted(assets.items())).encode())
        request.seek(0)
        try:
            return json.loads(_read(settings, words, given=request, size=LARGEST_COMPARISON))
        finally:
            command.run(["rm", "-rf", "--one-file-system", scratch])


def _read(settings, words, given=None, output=None, writes=False, size=LARGEST_LIST, seconds=LONGEST_SECONDS):
    """
    What the program prints, in a unit of its own.

    given, output
        Files for its standard input and output; none, and the output is returned.
    writes
        Whether it writes to the library.
    """
    program = library_plan.FILES["program"]
    if not os.path.exists(program):
        raise CommandExecutionError(f"This host has no {program}: apply immich.backup")
    with contextlib.suppress(command.CommandError):
        systemctl.run("stop", f"{READER}.service")
    properties = library_plan.sandbox(settings, json.dumps, capabilities=WRITERS if writes else WRITERS[:1])
    properties += library_plan.writing(settings, json.dumps) if writes else []
    call = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={READER}"]
    call += [f"--property={line}" for line in properties]
    call += [f"--property=RuntimeMaxSec={seconds}", program, *words]
    with tempfile.TemporaryFile() as complaints, tempfile.TemporaryFile() as printed:
        began = time.time()
        process = subprocess.Popen(
            call, stdin=given or subprocess.DEVNULL, stdout=output or printed, stderr=complaints, cwd="/"
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if writes:
                    _show_restore(began)
                if os.fstat(printed.fileno()).st_size > size:
                    raise CommandExecutionError(f"The repository's answer is larger than {size} bytes")
        except BaseException:
            process.kill()
            process.wait()
            with contextlib.suppress(command.CommandError):
                systemctl.run("stop", f"{READER}.service")
            raise
        if process.returncode:
            complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - 4096))
            reason = complaints.read(4096).decode(errors="replace").strip().rpartition("\n")[2]
            raise CommandExecutionError(reason or f"{program} {words[0]}: exit code {process.returncode}")
        printed.seek(0)
        return printed.read(size)


def _show_restore(began):
    """Show a person at a terminal how far a restore is that began then, in seconds since the epoch."""
    last = library_backup_files.last_restore() if sys.stderr.isatty() else {}
    if last.get("time", 0) > began:
        sys.stderr.write(f"\r\x1b[K{_sentence(last, last['seconds'])}")
        sys.stderr.flush()
