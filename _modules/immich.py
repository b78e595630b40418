"""
Immich on this host: commands for users
=======================================

Diagnosis, an overview of the installation, backups of the database and their restore.

Backups are made by a program, ``immich-backup``, and its unit, ``immich-backup.service``, which the timer starts too:
they need the files that the SLS ``immich.backup`` creates on the host. Restores need psycopg2 in Salt's Python.

A backup is a file of ``pg_dump --format=custom``. The application controls its content, and a restore executes parts
of it: so a superuser only creates an empty database with its owner and its extensions, and the rest is restored as a
role that owns only this database and is dropped afterwards. The database that Immich uses is always complete: a
backup is restored into another one, and the two swap their names in one transaction. Databases beside Immich's are
named ``DATABASE_KIND_TIME``:

restore, drill
    Incomplete: dropped by the next run.
before
    The database that Immich used before. It is dropped after the restored one has been verified; if the restore was
    killed before that, it is kept as ``kept``.
drop
    A database that was about to be dropped.
"""

import contextlib
import logging
import time

from salt.exceptions import CommandExecutionError

from immich_backup import library as library_backup
from immich_backup import library_plan, library_problems, listing, plan, problems, unit
from immich_core import compose, findings, library_backups
from immich_diagnosis import examination
from immich_diagnosis.check import FAILED
from immich_host import api_key, salt_call
from immich_host import status as status_of_host
from immich_io import api, lock, records
from immich_io import library_backup_files as library_backup_record
from immich_io import overview as in_few_words
from immich_restore import backup_file, drill, leftovers, library_drill, library_restore
from immich_restore.target import Target

__outputter__ = {"doctor": "immich_doctor"}
LOG = logging.getLogger(__name__)


def doctor(timeout=5):
    """
    Check every part of Immich on this host, and report its result, what was found, and the remedy.

    The parts are in the order in which they depend on each other, so that the first line that failed is the cause. It
    works without the formula's libraries and other modules, and calls those that are available. Without a valid
    pillar it uses what was deployed: ``docker-compose.yml`` and ``immich.service``.

    Returns a list of ``{"part": …, "result": "ok" | "warning" | "failed", "code": …, "seen": …, "remedy": …}``,
    causes first. ``code`` is a short stable word, and ``remedy`` a command, a pillar line or a sentence, or empty if
    there is nothing to do. salt-call shows it as a table, and as data with ``--out=json``; its exit code is not 0 if
    something failed. Changes nothing.

    timeout
        Seconds that each check may take, 5 by default, and up to six times as long on a busy host. The proof that
        hardware works takes up to four times as long as others.

    CLI Example:

    .. code-block:: bash

        salt-call immich.doctor
        salt-call immich.doctor --out=json
    """
    rows = examination.rows(__salt__, __pillar__, timeout)
    if any(row["result"] == FAILED for row in rows):
        __context__["retcode"] = 1
    return rows


def status(timeout=5):
    """
    Return the state of this installation in figures, as a flat dictionary that returners can store.

    ``result`` (the worst of the doctor's), ``ok``, ``warning`` and ``failed`` (numbers of its rows), ``parts`` (result
    of each part), ``version_installed``, ``version_declared``, ``version_as_declared``, ``newest_release``,
    ``releases_behind``, ``backups``, ``backup_time`` and ``backup_size`` (of the newest), ``drill_time`` and
    ``drill_success``, ``update_time`` and ``update_downtime``, ``apply_time``, ``apply_seconds`` and
    ``apply_success``, ``plan_time`` and ``plan_drift`` (of the last ``test=True``), and ``time``.

    Times are seconds since the epoch. What is not known is ``None``: runs are recorded with ``immich:metrics:enabled``,
    releases with ``immich:update:check_releases`` beside it.

    Raises ``CommandExecutionError`` if a file of the formula cannot be read.

    timeout
        Seconds that each check of the doctor may take, as for :py:func:`doctor`. Defaults to 5.

    CLI Example:

    .. code-block:: bash

        salt '*' immich.status
    """
    rows = examination.rows(__salt__, __pillar__, timeout)
    return status_of_host.gathered(__salt__["immich_settings.get"](), rows)


def overview():
    """
    Return addresses, paths and versions of Immich, as the pillar declares them: ``urls``, ``local_only`` (true if no
    other machine can reach them), ``port``, ``version``, ``packages`` (of the servers that are managed here),
    ``images``, ``gateway`` (address and ports for containers), ``network``, ``folders`` (by what is in them) and
    ``backup`` (its schedule, or ``None``).

    Raises ``CommandExecutionError`` if a file of the formula cannot be read. The answer is empty if the pillar is
    invalid.

    CLI Example:

    .. code-block:: bash

        salt-call immich.overview
    """
    settings = __salt__["immich_settings.get"]()
    return in_few_words.overview(settings, __grains__) if settings else {}


def backup():
    """
    Make a backup of the database, and return its description.

    ``{"path": …, "name": …, "time": ISO 8601 in UTC, "size": bytes, "version": Immich's, "database": its name,
    "empty": whether nobody has signed up in it, "tables": number, "seconds": …}``, and where the library is backed up
    (``immich:backup:library``) ``"library": {"snapshot": its id, "files": number, "bytes": …, "added": bytes that were
    new, "seconds": …}``

    When this returns, the backup has been read back. Only then does it get its name; after that, older ones of the
    same database beyond ``immich:backup:keep`` and ``keep_days`` are removed. A backup of an empty database never
    replaces one that has users. A terminal and the journal show the progress (``journalctl -u immich-backup``).

    Raises ``CommandExecutionError`` with the reason if the backup fails: too little space, no PostgreSQL, or another
    backup, a restore or an update that is running.

    CLI Example:

    .. code-block:: bash

        salt '*' immich.backup
    """
    made, alone = _database_backup()
    # One that a restore or an update has made for itself does not keep it waiting.
    if alone and library_plan.is_here(__salt__["immich_settings.get"]()):
        made["library"] = library_backup.run()
    return made


def _database_backup():
    """A new dump, and whether a person has asked for it, and not a restore or an update of this process."""
    holder = lock.under_way()
    if holder and holder.get("what") == "restore drill":
        return unit.run(), True  # which inherits a rehearsal's lock, however long it takes
    try:
        with lock.held("backup", lend=True) as purpose:
            return unit.run(), purpose == "backup"
    except OSError as error:
        raise CommandExecutionError(str(error)) from error


def backups(verify=False):
    """
    Return the backups, newest first: ``path``, ``name``, ``time`` (ISO 8601 in UTC), ``size`` in bytes, ``version``
    (Immich's, or ``unknown``), ``database`` (``None`` if its name has none; then it counts as a backup of the current
    one) and ``empty`` (whether nobody has signed up in it) of each.

    Where the library is backed up (``immich:backup:library``), the repository is asked too. ``library`` is then
    ``{"snapshot": its id, "age": hours since its dump was made, "size": bytes, "files": number, "seconds": about how
    long the restore of its files would take, if that is known}``, or ``None`` if no snapshot has this backup. ``path``
    is ``None`` if only the repository has it.

    verify
        Whether to read every one of them back, which may take long. ``verified`` is then ``ok`` or the problem.
        Defaults to ``False``.

    Raises ``CommandExecutionError`` if the directory or the repository cannot be read, or the program is missing.

    CLI Example:

    .. code-block:: bash

        salt '*' immich.backups
        salt '*' immich.backups verify=True
    """
    local, settings = listing.backups(verify), __salt__["immich_settings.get"]()
    if not library_plan.is_here(settings):
        return local
    there = library_backup.snapshots(settings)
    return library_backups.listed_with(local, there, library_backup_record.record(), time.time())


def rotate():
    """
    Replace what the formula has made for itself and no pillar holds: its API key for Immich (``immich:admin``). The
    former key is worth nothing then.

    Returns what was replaced, as a list of paths. Passwords of the pillar are changed in the pillar.

    Raises ``CommandExecutionError`` if there is nothing to replace, Immich does not let the formula in, or a restore is
    at work, whose database would not know the new key.

    CLI Example:

    .. code-block:: bash

        salt-call immich.rotate
    """
    settings = _settings()
    restore = lock.restore_under_way()
    if restore:
        raise CommandExecutionError(restore)
    try:
        api_key.make(api_key.required_client(compose.server_url(settings), wait=api.RESTART))
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


def library_backup_plan(settings):
    """
    Return what the files and states of the library's backup need, decided once, or ``None`` where it is not backed up.

    ``{"user": who runs restic, "user_id": its number, "packages": list, "local": path of a repository on this host or
    None, "mounts": [paths as units write them], "sandbox": [lines of the unit], "config": text, "ssh": whether it goes
    over SSH, "ssh_config": text, "declared": which of ssh_key and ssh_known_hosts, "pillar": path, "files": {what:
    path}}``

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the SLS ``immich.backup``.
    """
    return library_plan.plan(settings, __opts__["id"])


def library_backup_files(folders=False):
    """
    Return the files of the library's backup on this host, as a list of paths, or its folders.

    folders
        Whether to return the folders. Defaults to ``False``.

    Called by the SLS ``immich.backup``.
    """
    return list(library_plan.FOLDERS if folders else library_plan.FILES.values())


def backup_warnings(settings):
    """
    Return problems of the backups, as findings (``immich_core.findings``): the last run failed, or made none. Starts
    no process.

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return problems.found(settings)


def library_backup_warnings(settings):
    """
    Return problems of the library's backups, as findings (``immich_core.findings``): the last run failed, or the newest
    snapshot is old. Starts no process.

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return library_problems.found(settings)


def restore(backup, confirm=None, keep_old=None, dump_old=True, version=None, library=True, test=False):
    """
    Restore the database from a backup, and the library if the backup has it.

    Problems of the backup, the settings or the host are reported before anything changes. Then the backup is restored
    into an empty database, while Immich serves. Only when that is complete and its rows are counted is Immich stopped,
    for the moment in which this database replaces the old one. Immich is started and verified; if that fails, the old
    database is put back. The old one is backed up then. What Immich writes meanwhile is in the old database alone.

    If the backup has a snapshot of the library (``immich:backup:library``), its files are restored before that, while
    Immich serves: what is missing or differs is written, and what the snapshot does not have stays. A backup that only
    the repository has is fetched from it. Run again, an interrupted restore fetches only what is still missing.

    Returns ``{"backup": path, "tables": number, "rows": number, "seconds": for all of it, "down": seconds in which
    Immich did not serve, "kept": {"backup": of the former database, "database": its name}, "warnings": […]}``.

    backup
        Name of a backup, as ``immich.backups`` lists them, the path of such a file, or the id of a snapshot.
    confirm
        The minion's id, as a confirmation.
    keep_old
        Whether to keep the former database under another name. ``False`` drops it even if it has other tables or
        numbers of rows than the backup, as it usually does. By default it is kept if they differ, and dropped if they
        are the same.
    dump_old
        Whether to back up the former database, once Immich serves again. With ``False``, or if that fails, it is kept
        as with ``keep_old``. Defaults to ``True``.
    version
        The version of Immich to which the backup belongs, such as ``v3.3.1``. It overrides the version in the backup,
        where Immich's role can write anything. By default that version is used, and refused if everything else
        contradicts it.
    library
        Whether to restore the library too. Defaults to ``True``.
    test
        Whether to only show what would be done. Defaults to ``False``.

    Raises ``CommandExecutionError`` if the backup cannot be restored; the former database then stays in use.

    CLI Example:

    .. code-block:: bash

        salt-call immich.restore immich_20261124T203000Z_v3.3.1_immich.dump test=True
        salt-call immich.restore immich_20261124T203000Z_v3.3.1_immich.dump confirm=photos.example.org
    """
    test = bool(test or __opts__["test"])
    target = _target()
    if not test and confirm != target.minion:
        seen = f"This replaces Immich's database on {target.minion}"
        remedy = f"to confirm, pass confirm={target.minion}; test=True shows what would be done"
        backup_file.refuse([findings.finding("not-confirmed", "database", seen, remedy)])
    with _locked("restore", lend=not test):
        options = {"version": version, "keep_old": keep_old, "dump_old": dump_old}
        return library_restore.restore(target, backup, options, library, test)


def restore_drill(backup=None, version=None, full=False):
    """
    Rehearse a restore: restore a backup into a scratch database, count its rows, and drop it. Immich keeps serving.

    This fails if the scratch database has another number of rows than the backup, if the backup lacks a table of
    Immich's database or the other way round, or if the database has more rows from before the backup than the backup.
    ``changed`` in the answer names the tables whose number of rows in Immich's database (``now``) differs from the
    ``backup``, and ``warnings`` what could not be compared, and which arguments a restore would need.

    Where the library is backed up, this is the newest snapshot's dump, fetched from the repository, and the originals
    in the snapshot are compared with the database: all by their names, and a random sample, restored elsewhere,
    by the SHA-1 that Immich has stored. ``library`` in the answer counts and names them. A file that the snapshot
    lacks although Immich still has it, and one with another SHA-1, make this fail; files that the database does not
    know are warned of.

    backup
        Name of a backup, or the path of such a file. Defaults to the newest backup.
    version
        As for :py:func:`restore`.
    full
        Whether to read all originals of the snapshot instead of a sample; they are not written to the disk. Defaults to
        ``False``.

    Raises ``CommandExecutionError`` if the backup cannot be restored, or differs as described.

    CLI Example:

    .. code-block:: bash

        salt-call immich.restore_drill
        salt-call immich.restore_drill full=True
    """
    target = _target()
    try:
        done = _drilled(target, backup, version, full)
    except CommandExecutionError:
        _record_drill(success=False)
        raise
    _record_drill(success=True)
    return done


def _drilled(target, backup, version, full):
    if library_plan.is_here(target.settings):
        half = library_restore.snapshot_of(target, backup) if backup else library_restore.newest(target)
        with _locked("restore drill"), library_restore.dump_of(target, backup, half, kept=False) as path:
            return drill.drill(target, path, version, half, None if full else library_drill.SAMPLE)
    path = backup_file.path(target, backup or backup_file.newest(backups(), target.database))
    with _locked("restore drill"):
        return drill.drill(target, path, version)


def _record_drill(success):
    """For the status. What the drill has found does not get lost where this cannot be written."""
    try:
        records.note("drill", success=success)
    except OSError as error:
        LOG.warning("The restore drill is not recorded: %s", error)


def restore_recover(test=False):
    """
    Remove what an interrupted restore has left, and start Immich. No database that Immich has used is dropped.

    Every restore and every drill begins with this; the function is for the case that you do not want to restore
    again.

    test
        Whether to only show what would be done. Defaults to ``False``.

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
    return plan.drill(settings, salt_call.words(__opts__, "immich.restore_drill"))


def _settings():
    settings = __salt__["immich_settings.get"]()
    if not settings:
        raise CommandExecutionError("The pillar is invalid: see immich_settings.errors")
    return settings


def _target():
    if "pgsql_server.version" not in __salt__:
        raise CommandExecutionError("A restore needs the module pgsql_server: is psycopg2 in Salt's Python?")
    settings = __salt__["immich_settings.get"]()
    if not settings:
        backup_file.refuse(__salt__["immich_settings.errors"](), "Nothing was changed. The pillar is invalid:")
    return Target(settings, __salt__, __pillar__, __opts__["id"])


@contextlib.contextmanager
def _locked(what, lend=True):
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.held(what, lend=lend))
        except OSError as error:
            backup_file.refuse([findings.finding("locked", "leftovers", str(error))])
        yield
