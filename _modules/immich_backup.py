"""
Backups of Immich's database: make one, list them, check them
=============================================================

The work is done by a program, ``immich-backup``, and its unit, ``immich-backup.service``, which the timer starts too.

:depends: - what the SLS ``immich.backup`` puts on the host
"""

import datetime
import json
import os
import re
import subprocess
import sys
import time

from salt.exceptions import CommandExecutionError

from host_core import unit_file
from immich_core import findings, lock, postgres_extensions, units

__virtualname__ = "immich"

FILES = {
    "program": "/usr/local/lib/immich-formula/immich-backup",
    "config": "/etc/immich-formula/backup.json",
    "passfile": "/etc/immich-formula/backup.pgpass",
    "hook": "/etc/immich-formula/backup-on-failure",
    "tmpfiles": "/etc/tmpfiles.d/immich-formula.conf",
    "service": units.file(units.BACKUP),
    "failed_service": units.file(units.BACKUP_FAILED),
    "timer": units.file(units.BACKUP_TIMER),
}
STATUS = "/run/immich-backup/status.json"
# What systemd touches whenever the timer has elapsed, because it is persistent.
STAMP = f"/var/lib/systemd/timers/stamp-{units.BACKUP_TIMER}"
NAME = re.compile(r"immich_([0-9]{8}T[0-9]{6}Z)_([0-9A-Za-z.-]+)(?:_([a-z0-9_-]+)(\.empty)?)?\.dump")
# A timer that has run without leaving a backup is told from one that has never run by this age, in seconds.
FIRST_BACKUP_AFTER = 2 * 86400
# How connection arguments of ``pgsql_server`` are called in libpq's environment.
LIBPQ = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


def __virtual__():
    return __virtualname__


def backup():
    """
    Make a backup of the database, and return what was made.

    ``{"path": …, "name": …, "time": ISO 8601 in UTC, "size": bytes, "version": Immich's, "database": its name,
    "empty": whether nobody has signed up in it, "tables": number, "seconds": …}``

    The backup has been read back when this returns. It appears under its name only then; older ones of the same
    database beyond what ``immich:backup:keep`` and ``keep_days`` want are removed after that. An empty database's takes
    the place of none that has a user. On a terminal its progress is shown; the
    journal has it too (``journalctl -u immich-backup``).

    Raises ``CommandExecutionError`` with the reason if there is no backup: no room, PostgreSQL not there, or another
    backup, a restore or an update under way.

    CLI Example:

    .. code-block:: bash

        salt '*' immich.backup
    """
    holder = lock.under_way()
    if holder and holder.get("what") == "restore drill":
        return _run_unit()  # to which a rehearsal lends its lock, however long it takes
    try:
        with lock.held("backup", lend=True):
            return _run_unit()
    except BlockingIOError as error:
        raise CommandExecutionError(str(error)) from error


def _run_unit():
    began = time.time()
    with subprocess.Popen(
        ["systemctl", "start", units.BACKUP],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as job:
        shown = False
        while job.poll() is None:
            time.sleep(0.2)
            shown = _show(_status(), began) or shown
        complaint = job.stderr.read().strip()
    if shown:
        sys.stderr.write("\n")
    status = _status()
    fresh = status.get("time", 0) >= began
    if job.returncode == 0 and fresh and status["state"] == "done":
        return status["result"]
    if fresh and status["state"] == "failed":
        raise CommandExecutionError(f"There is no new backup: {status['error']}. See `journalctl -u immich-backup`")
    if not os.path.exists(FILES["service"]):
        raise CommandExecutionError("This host has no immich-backup.service: apply immich.backup")
    reason = " ".join(complaint.split()) or "the program was killed"
    raise CommandExecutionError(f"There is no new backup: {reason} See `journalctl -u immich-backup`")


def _show(status, began):
    """Show a person how far the backup is. Return whether somebody saw it."""
    if not sys.stderr.isatty() or status.get("state") != "running" or status["time"] < began:
        return False
    done, expected = (f"{status[key] / 1e6:.1f} MB" for key in ("done", "expected"))
    seconds = round(time.time() - began)
    sys.stderr.write(f"\r\x1b[KBackup, {status['phase']}: {done} of about {expected}, {seconds} s ")
    sys.stderr.flush()
    return True


def _status():
    """What the last run of the program since the boot has said of itself."""
    try:
        with open(os.open(STATUS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def backups(verify=False):
    """
    Return the backups, newest first: ``path``, ``name``, ``time`` (ISO 8601 in UTC), ``size`` in bytes, ``version``
    (Immich's, or ``unknown``), ``database`` (``None`` if its name says none, and then it counts as the present one's)
    and ``empty`` (whether nobody has signed up in it) of each.

    verify
        Whether to read every one of them back, which takes its time. ``verified`` then says ``ok`` or what is wrong.
        Defaults to ``False``.

    Raises ``CommandExecutionError`` if the directory cannot be read, or the program is not there.

    CLI Example:

    .. code-block:: bash

        salt '*' immich.backups
        salt '*' immich.backups verify=True
    """
    if not os.path.exists(FILES["program"]):
        raise CommandExecutionError(f"This host has no {FILES['program']}: apply immich.backup")
    command = [FILES["program"], "list", *(["--verify"] if verify else [])]
    done = __salt__["cmd.run_all"](command, python_shell=False, ignore_retcode=True)
    if done["retcode"]:
        raise CommandExecutionError((done["stdout"] or done["stderr"]).strip()[-1500:])
    return json.loads(done["stdout"])


def backup_plan(settings):
    """
    Return what the files and states of ``immich.backup`` need, decided once.

    ``{"user": who dumps, "network": whether over TCP, "directory": as units write it, "after": [units],
    "on_failure": bool, "password_pillar": path or None, "config": text, "files": {what: path}}``

    settings
        The formula's settings, as of ``immich_settings.get``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich.backup_plan "$(salt-call --local --out=json immich_settings.get | jq .local)"
    """
    postgres, backup = settings["postgres"], settings["backup"]
    connection = postgres["connection"]
    local = connection["host"].startswith("/")
    # Over a socket the server knows the operating system's user; over TCP it asks for a password, which root keeps.
    user = connection.get("os_user", "postgres") if local else "root"
    environment = {LIBPQ[key]: str(value) for key, value in connection.items() if key in LIBPQ}
    environment["PGDATABASE"] = postgres["database"]
    if "password_pillar" in connection:
        environment["PGPASSFILE"] = FILES["passfile"]
    config = {
        "directory": backup["directory"],
        "user": user,
        "keep": backup["keep"],
        "keep_days": backup["keep_days"],
        "environment": environment,
        "compose_file": f"{settings['project_dir']}/docker-compose.yml",
        "extensions": postgres_extensions.known(),
    }
    return {
        "user": user,
        "network": not local,
        "directory": unit_file.quoted(backup["directory"]),
        "after": units.of_server(settings, "postgres"),
        "on_failure": bool(backup["on_failure"]),
        "password_pillar": connection.get("password_pillar"),
        "config": json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False),
        "files": FILES,
    }


def backup_warnings(settings):
    """
    Return what a person has to know about the backups, as findings (``immich_core.findings``): the last run failed, or
    left none. Starts no process.

    settings
        The formula's settings, as of ``immich_settings.get``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich.backup_warnings "$(salt-call --local --out=json immich_settings.get | jq .local)"
    """
    status, newest = _status(), _newest(settings["backup"]["directory"], settings["postgres"]["database"])
    if status.get("state") == "failed":
        return [_warning("backup-failed", f"The last backup of the database failed: {status['error']}", findings.ERROR)]
    if status.get("state") == "running" or not settings["backup"]["enabled"]:
        return []
    try:
        elapsed = os.stat(STAMP).st_mtime
    except OSError:
        return []  # a timer that has not been started yet
    newest, empty, used = newest
    if empty and used:
        database = settings["postgres"]["database"]
        seen = f"No user is in the newest backup of {database}, of {_iso(newest)}. Older ones have some, and are kept"
        return [_warning("backup-empty", seen)]
    if newest and newest < elapsed - 60:
        seen = f"The timer of the backups ran at {_iso(elapsed)}, and the newest backup is of {_iso(newest)}"
        return [_warning("backup-outdated", seen)]
    if not newest and elapsed < time.time() - FIRST_BACKUP_AFTER:
        seen = f"There is no backup of the database in {settings['backup']['directory']}"
        return [_warning("backup-missing", seen)]
    return []


def _warning(code, seen, severity=findings.WARNING):
    remedy = "journalctl -u immich-backup -n 50; salt-call immich.backup"
    return findings.finding(code, "backups", seen, remedy, severity=severity)


def _newest(directory, database):
    """When a database's newest backup was made, in seconds since the epoch, or None; if it is empty, if any is not."""
    try:
        names = [NAME.fullmatch(name) for name in os.listdir(directory)]
    except OSError:
        return None, False, False
    own = {_named_time(name[1]): bool(name[4]) for name in names if name and name[3] in (None, database)}
    moments = {moment: empty for moment, empty in own.items() if moment}
    if not moments:
        return None, False, False
    newest = max(moments)
    return newest.timestamp(), moments[newest], not all(moments.values())


def _named_time(stamp):
    """The time that a name says, or None if there is no such day."""
    try:
        return datetime.datetime.strptime(f"{stamp}+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None


def _iso(moment):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
