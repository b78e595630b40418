"""
Going from one version of Immich to the next, and back where the next does not serve
====================================================================================

Asks what there is of versions, keeps what a rollback needs in a file beside the compose file as long as an update or a
change of settings is under way, and rolls it back.

``settings`` are the formula's, ``salt`` Salt's execution functions by name (``__salt__``), ``run`` the ``__context__``
of the run.

What an apply does about the version is decided in ``immich_core.update_plan``, by the rules of
``immich_core.versions``.
Sources of what is read here: Immich's tables of migrations and versions as of v3.0.3 (server/src/schema).
"""

from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import durable
from immich_core import compose, run_facts, server_settings, update_plan, versions
from immich_host import identity, service
from immich_io import compose_file, last_words, lock, update_record

# What the container's role can write is read up to here: Immich has about a hundred rows of each.
MOST_ROWS, LONGEST_TEXT = 10000, 255


# -- what is there, and what may follow ----------------------------------------


def database(settings, salt):
    """
    Return what Immich has noted in its database: ``{"tables": how many, "migrations": [names], "versions": [texts]}``.

    ``versions`` are those that served it for some seconds, as it says. There are no tables where there is no database
    or no server yet.

    The notes belong to Immich's role, and are read with its rights alone. Raises CommandExecutionError if the server
    cannot be asked.
    """
    postgres = settings["postgres"]
    try:
        tables = salt["pgsql_table.list"](postgres["database"], "public", postgres["connection"])
    except CommandExecutionError as error:
        if getattr(error, "absent", None) is None:
            raise
        tables = []
    noted = {**dict.fromkeys(versions.MIGRATION_TABLES, "name"), versions.VERSION_TABLE: "version"}
    parts = [
        f"(SELECT '{table}' AS noted, left({column}::text, {LONGEST_TEXT}) AS value"
        f" FROM public.{table} WHERE {column} IS NOT NULL ORDER BY 2 LIMIT {MOST_ROWS})"
        for table, column in noted.items()
        if table in tables
    ]
    rows = []
    if parts:
        statement = " UNION ALL ".join(parts)
        role = identity.current(settings)["role"]
        rows = salt["pgsql_database.query_as"](role, postgres["database"], statement, postgres["connection"])
    return {
        "tables": len(tables),
        "migrations": sorted(row["value"] for row in rows if row["noted"] != versions.VERSION_TABLE),
        "versions": sorted(row["value"] for row in rows if row["noted"] == versions.VERSION_TABLE),
    }


def plan(settings, salt):
    """
    Return what an apply would do about the version: nothing, or
    ``{"from": …, "to": …, "refusal": …, "backup": bool}``, where a refusal is a finding (``immich_core.findings``).

    PostgreSQL is asked only if the compose file is not there or names another version than the settings, or an update
    has not been completed.

    Raises CommandExecutionError if the compose file cannot be understood or PostgreSQL cannot be asked.
    """
    before, record = _installed_image(settings), _unfinished(settings)
    if update_plan.stays(before, settings["server"]["image"], record):
        return {}
    return update_plan.decided(settings, before, record, database(settings, salt), _restore_command(salt))


def start_refusal(settings, salt):
    """
    Return why the version that the compose file names must not be started on the database as it is, as a finding
    (``immich_core.findings``), or None if it may be started.

    Raises CommandExecutionError if the compose file cannot be understood or PostgreSQL cannot be asked.
    """
    image = _installed_image(settings)
    if image is None:
        return None
    return update_plan.start_refusal(image, _unfinished(settings), database(settings, salt), _restore_command(salt))


# -- rollback ----------------------------------------


def keep_former(settings, run, **desired):
    """
    Keep the files that are there, so that :py:func:`roll_back` can put them back if Immich does not serve with others.

    Nothing is kept if they stay as they are or Immich does not serve. What an update or an earlier change has kept,
    and has not been completed, stays: that is what served last.

    desired
        The text that is about to be written of ``compose``, of ``server_settings`` (Immich's own), or of both.
    """
    former = _files(settings)
    if former["compose"] is None or not compose_file.ping_url(former["compose"]):
        return
    if all(former[file] == text for file, text in desired.items()):
        return
    if _record(settings) or not service.serves(settings, run):
        return
    if run_facts.of(run).migrated:
        return  # it names what is gone
    _write_record(settings, {"what": update_record.SETTINGS, **former})


def prepare(settings, due, salt):
    """
    Take a verified backup of the database where one is due, keep what a rollback needs, and return that record.

    due
        The update, as of :py:func:`plan`.

    Raises CommandExecutionError if there is no backup although one is due.
    """
    interrupted = _record(settings)
    of_settings = interrupted and not update_record.of_update(interrupted)
    former = _kept(interrupted) if of_settings else _files(settings)
    noted = database(settings, salt)
    record = update_plan.changed_by(_unfinished(settings), noted["migrations"]) or {
        "from": due["from"],
        "backup": salt["immich.backup"]()["path"] if due["backup"] else None,
        "migrations": noted["migrations"],
        **former,
    }
    record.update(to=due["to"], image=settings["server"]["image"])
    _project(settings).mkdir(parents=True, exist_ok=True)
    _write_record(settings, record)
    return record


def finish(settings, run):
    """
    Remove the record for a rollback: Immich serves with the version and the settings that are declared.
    """
    update_record.remove(_project(settings))
    lock.release(run)


def roll_back(unit, settings, why, run, salt):
    """
    Return to the compose file before an update or a change of settings that does not serve, and return a text that says
    what became of it.

    The former compose file is put back, and its containers are recreated. If the new version has changed the database
    meanwhile, the former one cannot serve it: then Immich stays stopped and the text says how to restore the backup, or
    that is done if ``immich:update:rollback`` is ``restore``.

    Returns None, and does nothing, if neither is under way: Immich did not serve before, or with the same settings. If
    the installation was migrated in this run, does nothing either, and says so.

    unit
        Name of the systemd unit.

    why
        What the server said last.

    Raises CommandExecutionError if the former version does not come up either.
    """
    try:
        if run_facts.of(run).migrated:
            # The former compose file names what is gone.
            return (
                f"{unit} does not serve: {why}\nThe former settings are not put back, as the installation was migrated "
                f"in this run. See `journalctl -u {unit}`, correct the pillar and apply again"
            )
        record = _record(settings)
        if record and not update_record.of_update(record):
            return _settings_rolled_back(unit, settings, record, why, run, salt)
        if record and record["image"] == settings["server"]["image"]:
            return _rolled_back(unit, settings, record, why, run, salt)
        return None
    finally:
        lock.release(run)


def _settings_rolled_back(unit, settings, record, why, run, salt):
    if _files(settings) == _kept(record):
        return None
    changes = "\n".join(_changes(settings, record, salt))
    said = f"Immich does not serve with the changed settings: {why}\n{changes}\n"
    restore = lock.restore_under_way()
    if restore:
        return f"{said}{restore} Until then they stay"
    _put_back(settings, record)
    try:
        downtime = _started_again(unit, settings, run, salt)
    except CommandExecutionError as error:
        words = last_words.of(unit) or error
        return (
            f"{said}With the former settings, which were put back, it does not serve either: {words}\n"
            f"See `journalctl -u {unit}`; the next apply tries the changed ones again"
        )
    finish(settings, run)
    return (
        f"{said}The former settings were put back, and Immich serves again{_lasted(downtime)}. Correct the pillar and "
        f"apply again: as it is, the next apply tries the same again. See `journalctl -u {unit}`"
    )


def _started_again(unit, settings, run, salt):
    """Not by a reload: the unit may be about to give up what has not served, and would fail with its reason."""
    salt["systemd_unit.call"]("stop", unit)
    return service.bring_up(unit, settings, run, salt)


def _changes(settings, record, salt):
    """What changed against the former files, in lines; of Immich's own settings the names alone."""
    try:
        changed = compose_file.changes(settings, record["compose"], salt["grains.get"]("selinux:enabled", False))
    except compose_file.ComposeFileError as error:
        raise CommandExecutionError(str(error)) from error
    if changed:
        yield f"What they change in {_compose_file(settings)}:"
        yield from (f"- {change}" for change in changed)
    named = server_settings.changes(_kept(record)["server_settings"], _files(settings)["server_settings"])
    if named:
        yield "What they change of Immich's own settings:"
        yield from (f"- {name}" for name in named)


def _lasted(downtime):
    return "" if downtime is None else f", after {downtime} s without an answer"


def _rolled_back(unit, settings, record, why, run, salt):
    said = f"{record['to']} does not serve: {why}\n"
    try:
        migrations = database(settings, salt)["migrations"]
        if not migrations and record["migrations"]:
            raise CommandExecutionError("PostgreSQL does not run, or Immich's database is gone")
    except CommandExecutionError as error:
        return (
            f"{said}{error}\nWithout its database no version serves, so {record['to']} stays: fix PostgreSQL, "
            f"then apply again"
        )
    if record["compose"] is None:
        return f"{said}There was no compose file before, to which to return. {_restore_advice(record, salt)}"
    _put_back(settings, record)
    if sorted(migrations) != record["migrations"]:
        return said + _after_migration(unit, settings, record, run, salt)
    downtime = _started_again(unit, settings, run, salt)
    finish(settings, run)
    return (
        f"{said}The database was not changed, and {record['from']} serves again{_lasted(downtime)}. See "
        f"`journalctl -u {unit}`; {_tries_again(settings, record)}"
    )


def _tries_again(settings, record):
    return f"{update_plan.pillar_path(settings)} still says {record['to']}, so the next apply tries it again"


def _after_migration(unit, settings, record, run, salt):
    changed = f"{record['to']} has changed the database, which {record['from']} cannot use any more."
    service.stop(unit, settings, run, salt)
    restorable = record["backup"] and "pgsql_server.version" in salt
    if settings["update"]["rollback"] != "restore" or not restorable:
        return (
            f"{changed} Immich is stopped, and its compose file is that of {record['from']} again. "
            f"{_restore_advice(record, salt)} Or fix what keeps {record['to']} from serving and apply again: that "
            f"continues with the changed database"
        )
    try:
        kept = _restore(record, salt)["kept"]["database"]
    except CommandExecutionError as error:
        return (
            f"{changed} Immich is stopped, as the backup could not be restored: {error} {_restore_advice(record, salt)}"
        )
    finish(settings, run)
    return (
        f"{changed} Its backup {record['backup']} was restored, and {record['from']} serves again. The changed "
        f"database is kept as {kept}: when you no longer need it, salt-call pgsql_database.drop {kept}. "
        f"{_tries_again(settings, record)}"
    )


def _restore(record, salt):
    """
    Restore what the update has noted, whatever the changed database holds: it could keep itself from being backed up,
    and is kept instead.
    """
    known = record["from"] if versions.parse(record["from"]) else None
    options = {"version": known, "dump_old": False, "library": False}
    return salt["immich.restore"](record["backup"], confirm=salt["config.get"]("id"), **options)


def _restore_advice(record, salt):
    return update_plan.restore_advice(record, _restore_command(salt))


def _restore_command(salt):
    return lambda record: f"salt-call immich.restore {record['backup']} confirm={salt['config.get']('id')}"


# -- files ----------------------------------------


def _project(settings):
    """The project directory, before this run moves it and after."""
    return Path(identity.project_dir(settings))


def _compose_file(settings):
    return _project(settings) / "docker-compose.yml"


def _server_settings_file(settings):
    return _project(settings) / "secrets" / compose.SERVER_SETTINGS


def _files(settings):
    """The text of each file that a rollback puts back, as it is now; None of one that is not there."""
    own = _server_settings_file(settings)
    return {
        "compose": compose_file.read(_compose_file(settings)),
        "server_settings": own.read_text(encoding="utf8", errors="replace") if own.exists() else None,
    }


def _kept(record):
    """The same as a record has it; one that an older formula wrote knows no settings of Immich's own."""
    return {"compose": record["compose"], "server_settings": record.get("server_settings")}


def _put_back(settings, record):
    """Immich's own settings first: the compose file names them."""
    own = _kept(record)["server_settings"]
    if own is not None and own != _files(settings)["server_settings"]:
        owner = tuple(map(int, settings["server"]["user"].split(":")))
        _write(_server_settings_file(settings), own, 0o400, owner)
    _write(_compose_file(settings), record["compose"], 0o644)


def _installed_image(settings):
    try:
        return compose_file.image(_compose_file(settings))
    except compose_file.ComposeFileError as error:
        raise CommandExecutionError(str(error)) from error


def _record(settings):
    """What :py:func:`prepare` or :py:func:`keep_former` has written and nothing has finished, or None."""
    try:
        return update_record.read(_project(settings))
    except update_record.DamagedError as error:
        raise CommandExecutionError(str(error)) from error


def _unfinished(settings):
    return update_record.of_update(_record(settings))


def _write_record(settings, record):
    try:
        update_record.write(_project(settings), record)
    except OSError as error:
        raise CommandExecutionError(str(error)) from error


def _write(path, text, mode, owner=None):
    try:
        durable.write(path, text, mode, owner)
    except OSError as error:
        raise CommandExecutionError(str(error)) from error
