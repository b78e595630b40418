"""
Immich on this host: what a person types
========================================

What is wrong and the remedy, where Immich answers, backups of the database and their restore.

Backups are made by a program, ``immich-backup``, and its unit, ``immich-backup.service``, which the timer starts too:
they need what the SLS ``immich.backup`` puts on the host. Restores need psycopg2 in Salt's Python.

A backup is a file of ``pg_dump --format=custom``. What is in it is under the control of the application, and it runs
when it is restored: so a superuser makes an empty database with its owner and its extensions, and the rest is restored
as a role that owns this database alone and is dropped afterwards. The database that Immich uses is always a whole one:
a backup is restored into another, and both swap their names in one transaction. Databases beside Immich's are called
``DATABASE_KIND_TIME``:

restore, drill
    Not complete: dropped by the next run.
before
    What Immich used before. It is dropped after the restored database has been verified; of a restore that was killed
    in between it is kept, as ``kept``.
drop
    Was about to be dropped.
"""

import contextlib
import os
import sys

from salt.exceptions import CommandExecutionError

from host_core import unit_file
from immich_backup import listing, plan, problems, unit
from immich_core import api, compose, findings, lock, units
from immich_core import overview as in_few_words
from immich_diagnosis import examination
from immich_diagnosis.check import FAILED
from immich_host import api_key
from immich_restore import backup_file, drill, leftovers, restoring
from immich_restore.target import Target

__outputter__ = {"doctor": "immich_doctor"}

DRILL_FILES = {
    "service": units.file(units.RESTORE_DRILL),
    "timer": units.file(units.RESTORE_DRILL_TIMER),
    "failed_service": units.file(units.RESTORE_DRILL_FAILED),
}


def doctor(timeout=5):
    """
    Look at every part of Immich on this host, and report of each whether it is well, what was seen, and the remedy.

    The parts come in the order in which they need each other, so that the first line that failed is the cause. It works
    when little else does: it needs no library and no other module of the formula, and asks those that are there.
    Without a pillar that can be used it goes by what was deployed: ``docker-compose.yml`` and ``immich.service``.

    Returns a list of ``{"part": …, "result": "ok" | "warning" | "failed", "code": …, "seen": …, "remedy": …}``, causes
    first. ``code`` is a short stable word, and ``remedy`` a command, a pillar line or a sentence, and empty where
    nothing is to be done. salt-call shows it as a table, and as data with ``--out=json``; its exit code is not 0 if
    something failed. Changes nothing.

    timeout
        Seconds that each check may take, 5 by default, and up to six times as long on a busy host.

    CLI Example:

    .. code-block:: bash

        salt-call immich.doctor
        salt-call immich.doctor --out=json
    """
    rows = examination.rows(__salt__, __pillar__, timeout)
    if any(row["result"] == FAILED for row in rows):
        __context__["retcode"] = 1
    return rows


def overview():
    """
    Return where Immich answers and what is where, as the pillar has it: ``urls``, ``local_only`` (true where no other
    machine reaches them), ``port``, ``version``, ``images``, ``gateway`` (address and ports for containers),
    ``network``, ``folders`` (by what is in them) and ``backup`` (its schedule, or ``None``).

    Raises ``CommandExecutionError`` if a file of the formula cannot be read. The answer is empty where the pillar is
    wrong.

    CLI Example:

    .. code-block:: bash

        salt-call immich.overview
    """
    settings = __salt__["immich_settings.get"]()
    return in_few_words.overview(settings, __grains__) if settings else {}


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
        return unit.run()  # which inherits a rehearsal's lock, however long it takes
    try:
        with lock.held("backup", lend=True):
            return unit.run()
    except OSError as error:
        raise CommandExecutionError(str(error)) from error


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
    return listing.backups(verify)


def rotate():
    """
    Replace what the formula has made for itself and no pillar holds: its API key for Immich (``immich:admin``). The
    former key is worth nothing then.

    Returns what was replaced, as a list of paths. Passwords of the pillar are changed in the pillar.

    Raises ``CommandExecutionError`` if there is nothing to replace, or Immich does not let the formula in.

    CLI Example:

    .. code-block:: bash

        salt-call immich.rotate
    """
    settings = __salt__["immich_settings.get"]()
    try:
        client = api_key.client(compose.server_url(settings)) if settings else None
        if client is None:
            raise CommandExecutionError("The formula has no API key: set immich:admin, then apply immich.accounts")
        api_key.make(client)
    except (api.ApiError, OSError) as error:
        raise CommandExecutionError(f"{error}. If the key is lost: salt-call state.apply immich.accounts") from error
    return [str(api_key.FILE)]


def backup_plan(settings):
    """
    Return what the files and states of ``immich.backup`` need, decided once.

    ``{"user": who dumps, "network": whether over TCP, "directory": as units write it, "after": [units],
    "on_failure": bool, "password_pillar": path or None, "config": text, "files": {what: path}}``

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the SLS ``immich.backup``.
    """
    return plan.plan(settings)


def backup_warnings(settings):
    """
    Return what a person has to know about the backups, as findings (``immich_core.findings``): the last run failed, or
    left none. Starts no process.

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return problems.found(settings)


def restore(backup, confirm=None, keep_old=None, dump_first=True, version=None, test=False):
    """
    Put the database back to what it was when a backup was made.

    Whatever is wrong with the backup, the settings or the host is reported before anything changes. Then Immich is
    stopped, what is there now is backed up, the backup is restored into a fresh database, and only when that is
    complete and its rows are counted does it take the place of the old one. Immich is started and verified; if that
    fails, the old database is put back. Photos and videos are not touched: a backup of the database does not hold them.

    backup
        Name of a backup, as ``immich.backups`` lists them, or the path of such a file.
    confirm
        The minion's id, to say that this host is meant.
    keep_old
        Whether to keep the database that was there, under another name. ``False`` is the word of consent to drop it
        although it holds other tables or another number of rows than the backup, as it mostly does. Defaults to
        keeping it then, and dropping it if both hold the same.
    dump_first
        Whether to back up what is there now. ``False`` is for a database that cannot be read any more, and
        then it is kept as with ``keep_old``. Defaults to ``True``.
    version
        The version of Immich that the backup is of, as ``v3.3.1``: your word against what stands in the backup, where
        Immich's role can write what it likes. Defaults to what stands there, and to a refusal where all else
        contradicts that.
    test
        Whether to only tell what would be done. Defaults to ``False``.

    Raises ``CommandExecutionError`` if the backup cannot be restored; what there was then serves on.

    CLI Example:

    .. code-block:: bash

        salt-call immich.restore immich_20261124T203000Z_v3.3.1_immich.dump test=True
        salt-call immich.restore immich_20261124T203000Z_v3.3.1_immich.dump confirm=photos.example.org
    """
    test = bool(test or __opts__["test"])
    target = _target()
    path = backup_file.path(target, backup)
    if not test and confirm != target.minion:
        meant = f"If that is meant, say confirm={target.minion}; test=True tells what would be done."
        backup_file.refuse([f"This replaces Immich's database on {target.minion}. {meant}"])
    with _locked("restore", lend=not test):
        return restoring.restore(target, path, version, keep_old, dump_first, test)


def restore_drill(backup=None, version=None):
    """
    Rehearse a restore: restore a backup into a scratch database, count its rows, and drop it. Immich serves on.

    The scratch database has as many rows as the backup, or this fails. So it does if the backup lacks a table of
    Immich's database, or the database one of the backup, or if more rows from before the backup are in the database
    than in the backup. ``changed`` in the answer names the tables of which Immich has another number of rows ``now``
    than the ``backup``, and ``warnings`` what could not be compared, and which arguments a restore would need.

    backup
        Name of a backup, or the path of such a file. Defaults to the newest backup.
    version
        As for :py:func:`restore`.

    Raises ``CommandExecutionError`` if the backup cannot be restored, or is not what it should be.

    CLI Example:

    .. code-block:: bash

        salt-call immich.restore_drill
    """
    target = _target()
    path = backup_file.path(target, backup or backup_file.newest(backups(), target.database))
    with _locked("restore drill"):
        return drill.drill(target, path, version)


def restore_recover(test=False):
    """
    Clear up after a restore that was killed, and start Immich. Nothing that Immich has used is dropped.

    Every restore and every drill begin with the same: this is for the case that there is nothing to restore any more.

    test
        Whether to only tell what would be done. Defaults to ``False``.

    Raises ``CommandExecutionError`` if Immich does not start.

    CLI Example:

    .. code-block:: bash

        salt-call immich.restore_recover
    """
    target = _target()
    with _locked("restore"):
        return leftovers.recover(target, bool(test or __opts__["test"]))


def restore_drill_plan(settings):
    """
    Return what the units of the restore drill need, decided once.

    ``{"command": for ExecStart, "after": [units], "on_failure": bool, "files": {what: path}}``

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the SLS ``immich.backup``.
    """
    # The Python and the configuration that this minion runs with, wherever its packages put their scripts.
    words = [sys.executable, "-c", "from salt.scripts import salt_call; salt_call()"]
    words += [f"--config-dir={os.path.dirname(__opts__['conf_file'])}", "--log-level=warning"]
    words += ["--local"] if __opts__["file_client"] == "local" else []
    return {
        "command": " ".join(map(unit_file.command_word, [*words, "immich.restore_drill"])),
        "after": units.of_server(settings, "postgres"),
        "on_failure": bool(settings["backup"]["on_failure"]),
        "files": DRILL_FILES,
    }


def _target():
    if "pgsql_server.version" not in __salt__:
        raise CommandExecutionError("A restore needs the module pgsql_server: is psycopg2 in Salt's Python?")
    settings = __salt__["immich_settings.get"]()
    if not settings:
        errors = map(findings.seen, __salt__["immich_settings.errors"]())
        backup_file.refuse(["The pillar is wrong:", *errors])
    return Target(settings, __salt__, __pillar__, __opts__["id"])


@contextlib.contextmanager
def _locked(what, lend=True):
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.held(what, lend=lend))
        except OSError as error:
            backup_file.refuse([str(error)])
        yield
