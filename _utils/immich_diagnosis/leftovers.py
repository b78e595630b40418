"""
Part: work that is under way, and what was left of work that was interrupted
============================================================================

It asks PostgreSQL, and comes behind the checks of that.
"""

import calendar
import json
import os
import re
import time
from pathlib import Path

from host_core import terminal
from immich_diagnosis.check import FAILED, OK, WARNING, Check, need
from immich_diagnosis.facts import read_text, settings_of
from immich_host import identity
from immich_io import backup_files, untrusted, update_record
from immich_restore import leftovers as restores
from immich_restore.reporting import TAG
from immich_restore.target import Target

BACKUP_PROGRAM = "/usr/local/lib/immich-formula/immich-backup"
# Work that takes longer than that, in seconds, is looked at for so many seconds: does it go on?
LONGEST_WORK = 12 * 3600
WORK_SECONDS = 2


def _leftovers(here):
    """What restores have left, and an update that was interrupted: not while somebody is at work."""
    settings = settings_of(here)
    need(here, "pgsql_database.list", "pgsql_hba.get")
    left = restores.found(Target(settings, here["salt"], here["pillar"], None))
    if here["working"]:
        return [_with_progress(here, _working_row(here, here["working"], time.time()))]
    rows = [_killed_row(left)] if left["drop"] or left["keep"] or left["record"] else []
    where = "" if settings["postgres"]["managed"] else f" connection='{json.dumps(settings['postgres']['connection'])}'"
    for name in left["kept"]:
        seen = f"{name} is the database that Immich had before a restore, and uses disk space"
        rows.append((WARNING, seen, f"once it is not needed any more: salt-call pgsql_database.drop {name}{where}"))
    directory = identity.project_dir(settings)
    try:
        update = update_record.of_update(update_record.read(directory))
    except update_record.DamagedError as error:
        return [*rows, (FAILED, str(error), "")]
    if update:
        seen = f"the update from {update['from']} to {update['to']} has not been completed"
        rows.append((WARNING, seen, "salt-call state.apply immich"))
    return rows or [(OK, "nothing is left of restores and updates")]


def _with_progress(here, row):
    """What the work says of how far it is, beside that it is under way."""
    result, seen, *remedy = row
    far = backup_files.how_far(backup_files.last_run())
    if not far and here["working"].get("what", "").startswith("restore"):
        told = ["journalctl", "-t", TAG, "--since", here["working"]["since"].replace("T", " ").replace("Z", " UTC")]
        far = untrusted.output([*told, "-n", "1", "-q", "-o", "cat"], seconds=here["seconds"] / 4).strip()
    return (result, f"{seen}; {terminal.one_line(far, 200)}" if far else seen, *remedy)


def _working_row(here, holder, now):
    """A lock needs no remedy: it ends with the process that holds it. But that may hang."""
    seen = f"{holder.get('what', 'something')} under way since {holder.get('since', 'a moment ago')}"
    began = holder.get("since") and calendar.timegm(time.strptime(holder["since"], "%Y-%m-%dT%H:%M:%SZ"))
    if not began or now - began < LONGEST_WORK:
        return OK, seen
    before = _work_done(holder["pid"])
    time.sleep(WORK_SECONDS)
    return _progress_row(seen, holder["pid"], before, _work_done(holder["pid"]), _last_line_of_work(here))


def _progress_row(seen, pid, before, after, last_line):
    """Whether long work goes on, by the CPU time and the bytes of its processes at two moments."""
    seconds = sum(after[each][0] - before.get(each, (0, 0))[0] for each in after)
    moved = sum(after[each][1] - before.get(each, (0, 0))[1] for each in after)
    if seconds > 0 or moved > 0:
        return OK, f"{seen}; it makes progress, with {moved / 1e6:.1f} MB read and written in the last {WORK_SECONDS} s"
    still = f"for {WORK_SECONDS} s its processes used no CPU time and moved no data"
    told = f"; its last line in the journal is of {last_line}" if last_line else ""
    advice = (
        f"check again in ten minutes. If nothing has changed: ps -fp {pid} shows what it waits for, kill {pid} ends it"
    )
    return WARNING, f"{seen}, by process {pid}: {still}{told}", advice


def _work_done(pid):
    """
    CPU seconds and bytes of each process that works for a holder of the lock, by process.

    That is its descendants, the program that makes backups, which systemd starts, with its own, and what PostgreSQL
    does for a superuser.
    """
    parents, roots = {}, {pid}
    for path in Path("/proc").glob("[0-9]*"):
        process, title = int(path.name), read_text(path / "cmdline").replace("\0", " ")
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
    moved = re.findall(r"^[rw]char: (\d+)$", read_text(f"/proc/{process}/io"), re.MULTILINE)
    ticks = sum(map(int, _fields(process)[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK"), sum(map(int, moved))


def _fields(process):
    """Of proc_pid_stat(5), from the state on: the name before it may hold anything. Empty for a process that ended."""
    return read_text(f"/proc/{process}/stat").rpartition(") ")[2].split()


def _last_line_of_work(here):
    """When the formula's programs have last said how far they are, as ISO 8601; empty if the journal has nothing."""
    tags = [word for tag in ("immich-backup", "immich-restore", "immich-apply") for word in ("-t", tag)]
    command = ["journalctl", *tags, "-n", "1", "-q", "-o", "short-iso"]
    return untrusted.output(command, seconds=here["seconds"] / 4).partition(" ")[0]


def _killed_row(left):
    names = ", ".join((*left["drop"], *left["keep"])) or "a record in pg_hba.conf"
    return WARNING, f"a restore or drill that was killed has left {names}", "salt-call immich.restore_recover"


CHECKS = (Check("leftovers", _leftovers),)
