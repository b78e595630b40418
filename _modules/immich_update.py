"""
Going from one version of Immich to the next, and back where the next does not serve
====================================================================================

Decides whether a host may go to the version that the pillar asks for, keeps what a rollback needs in a file beside the
compose file as long as an update or a change of settings is under way, and rolls it back.

``settings`` is what ``immich_settings.get`` returns. In the examples, ``SETTINGS`` holds the JSON of
``salt-call --local --out=json immich_settings.get``.

Which version may follow which, and to which one a database belongs, is what ``_utils/immich_core/versions.py`` decides.
Sources of what is read here: Immich's tables of migrations and versions as of v3.0.3 (server/src/schema).
"""

import json
from pathlib import Path

from salt.exceptions import CommandExecutionError

from immich_core import compose_file, durable, lock, run_facts, versions

__virtualname__ = "immich_update"

RECORD = "update.json"
# What the record is of, where it is not of an update.
SETTINGS = "settings"
# Tables in which Immich notes what was done to the database: kysely's and, before 1.133, TypeORM's.
MIGRATIONS = ("kysely_migrations", "migrations")
VERSIONS = "version_history"
# What the container's role can write is read up to here: Immich has about a hundred rows of each.
MOST_ROWS, LONGEST_TEXT = 10000, 255


def __virtual__():
    if "pgsql_database.query_as" not in __salt__:
        return False, "immich_update needs the execution module pgsql_database: is psycopg2 in Salt's Python?"
    return __virtualname__


# -- versions ----------------------------------------


def version(text):
    """
    Return the version in a tag, an image reference or a version number as a list of three numbers, or None.

    text
        As in ``v3.3.1``, ``ghcr.io/immich-app/immich-server:v3.3.1-cuda`` or ``3.3.1``. A tag that moves, such as
        ``v3`` or ``release``, and a bare digest say no version.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.version ghcr.io/immich-app/immich-server:v3.3.1
    """
    found = versions.parse(text)
    return list(found) if found else None


def why_not(found, wanted, path="immich:version", known="which is installed"):
    """
    Return why Immich cannot go from one version to another, as a sentence that says what to do, or None if it can.

    found, wanted
        Versions as :py:func:`version` returns them. None is unknown, and then nothing speaks against it.

    path
        Where the pillar says the wanted version. Default: ``immich:version``.

    known
        How the found version is known, as half a sentence. Default: ``which is installed``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.why_not '[1, 131, 3]' '[3, 0, 3]'
    """
    obstacle = versions.obstacle(found, wanted)
    if obstacle == "older":
        return (
            f"{path}: {_text(wanted)} is older than {_text(found)}, {known}. Immich cannot go back, not "
            f"even by a patch: set {_text(found)} or a newer version. Nothing was changed"
        )
    if obstacle:
        return (
            f"{path}: from {_text(found)} Immich cannot go to {_text(wanted)} at once. Set {obstacle}, apply, "
            f"then set {_text(wanted)} and apply again. Nothing was changed"
        )
    return None


def _text(numbers):
    return versions.text(numbers)


# -- what is there ----------------------------------------


def database(settings):
    """
    Return what Immich has noted in its database: ``{"tables": how many, "migrations": [names], "version": [numbers]}``.

    ``version`` is the newest one that ever served it for some seconds, or None. There are no tables where there is no
    database or no server yet.

    settings
        The formula's settings.

    The notes belong to Immich's role, and are read with its rights alone. Raises CommandExecutionError if the server
    cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.database "$SETTINGS"
    """
    postgres = settings["postgres"]
    try:
        tables = __salt__["pgsql_database.table_list"](postgres["database"], "public", postgres["connection"])
    except CommandExecutionError as error:
        if getattr(error, "absent", None) is None:
            raise
        tables = []
    noted = {**dict.fromkeys(MIGRATIONS, "name"), VERSIONS: "version"}
    parts = [
        f"(SELECT '{table}' AS noted, left({column}::text, {LONGEST_TEXT}) AS value"
        f" FROM public.{table} WHERE {column} IS NOT NULL ORDER BY 2 LIMIT {MOST_ROWS})"
        for table, column in noted.items()
        if table in tables
    ]
    rows = []
    if parts:
        statement = " UNION ALL ".join(parts)
        role = __salt__["immich_identity.current"](settings)["role"]
        rows = __salt__["pgsql_database.query_as"](role, postgres["database"], statement, postgres["connection"])
    found = [version(row["value"]) for row in rows if row["noted"] == VERSIONS]
    return {
        "tables": len(tables),
        "migrations": sorted(row["value"] for row in rows if row["noted"] != VERSIONS),
        "version": max(filter(None, found), default=None),
    }


def plan(settings):
    """
    Return what an apply would do about the version: nothing, or
    ``{"from": …, "to": …, "refusal": …, "remedy": …, "backup": bool}``.

    What counts is the newest of what the database has noted, what its migrations belong to, what the compose file says,
    and the version of an update that has changed the database and did not serve then. PostgreSQL is asked only if the
    compose file is not there or names another version than the settings, or an update has not come to its end.

    A version that the database has noted and all else contradicts is refused by its name, with the line of the pillar
    (``immich:update:database_version``) that overrides it as ``remedy``. Else ``remedy`` is the line with the version
    that can be set.

    settings
        The formula's settings.

    Raises CommandExecutionError if the compose file cannot be understood or PostgreSQL cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.plan "$SETTINGS"
    """
    image, record = settings["server"]["image"], unfinished(settings)
    before = _installed_image(settings)
    stays = before is not None and versions.same(before, image)
    if stays and not record:
        return {}
    noted = database(settings)
    changed = _changed_by(record, noted)
    told, doubt = _told(noted, [before], record, settings["update"].get("database_version"))
    found, known = _found(told, before, record)
    wanted, highest = version(image), versions.highest(image)
    refusal = why_not(found, highest, _pillar_path(settings), known)
    remedy = f"immich:version: {versions.allowed(found, highest)}" if refusal else None
    if refusal and changed:
        refusal = f"{refusal}. {_restore_advice(record)}"
    if not refusal and doubt and versions.obstacle(noted["version"], highest) == "older":
        newest = found or wanted
        remedy = f"immich:update:database_version: {_text(newest) if newest else 'vX.Y.Z'}"
        refusal = _doubted(_pillar_path(settings), highest, noted["version"], doubt, remedy)
    if not refusal and (stays or (changed and changed["image"] == image)):
        return {}
    if before is None and not noted["tables"]:
        return {}
    # A tag that moves is pinned to what it was, or the compose file is lost and comes back.
    if not refusal and found and found == wanted and not version(before or ""):
        return {}
    start, goal = _from_to(found, wanted, before, image)
    return {
        "from": changed["from"] if changed else start,
        "to": goal,
        "refusal": refusal,
        "remedy": remedy,
        "backup": bool(settings["update"]["backup"] and noted["tables"] and not changed),
    }


def _from_to(found, wanted, before, image):
    """How an update is called: by versions, or by tags where they are the same version or none."""
    if found and wanted and found != wanted:
        return _text(found), _text(wanted)
    tag = versions.tag
    return _text(found) if found and not wanted else tag(before) if before else "unknown", tag(image) or image


def _found(noted, image, record):
    """
    The version that the installation has at least, or None, and how that is known.

    image
        What the compose file names. While an update is under way its record is the better witness: a compose file may
        have been written for a version that never saw the database.
    """
    changed, since = _changed_by(record, noted), versions.since(noted["migrations"])
    named = None if record else version(image or "")
    told = (
        (noted["version"], "which is installed"),
        (changed and version(changed["to"]), "which has changed the database and did not serve then"),
        (record and not changed and version(record["from"]), "which is installed"),
        (named, "which is installed"),
        (since and list(since), "which the migrations in the database need at least"),
    )
    known = [(found, why) for found, why in told if found]
    return max(known, key=lambda each: each[0]) if known else (None, None)


def _told(noted, images, record, word):
    """
    What the database has noted, without a version that all else contradicts; and, where a person has not given his word
    on another one, what contradicts it.

    images
        Those that may have run on the database, as far as the record of an update does not name them. None is unknown.
    """
    images = [image for image in (*images, *((record["from"], record["image"]) if record else ())) if image]
    told = [_text(noted["version"])] if noted["version"] else []
    doubt = versions.contradiction(told, noted["migrations"], images)
    if not doubt:
        return noted, None
    return {**noted, "version": version(word) if word else None}, None if word else doubt


def _doubted(path, wanted, noted, doubt, remedy):
    return (
        f"{path}: {_text(wanted)} is older than {_text(noted)}, which the table {VERSIONS} in Immich's database says, "
        f"and nothing else does: {doubt}. Immich's role can write there what it likes. If {_text(noted)} never served "
        f"this database, set {remedy} and apply again. Nothing was changed"
    )


def _changed_by(record, noted):
    """The record of an update that has changed the database and did not serve then. Its backup is the one to keep."""
    return record if record and record["migrations"] != noted["migrations"] else None


def _pillar_path(settings):
    own = settings["server"]["image"].endswith(f":{settings['version']}")
    return "immich:version" if own else "immich:server:image"


def start_refusal(settings):
    """
    Return why the version that the compose file names must not be started on the database as it is, and what to do:
    ``{"why": …, "remedy": …}``, or None if it may be started. What the database has noted does not count where all else
    contradicts it.

    settings
        The formula's settings.

    Raises CommandExecutionError if the compose file cannot be understood or PostgreSQL cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.start_refusal "$SETTINGS"
    """
    image = _installed_image(settings)
    if image is None:
        return None
    record, noted = unfinished(settings), database(settings)
    found, known = _found(_told(noted, [image], record, None)[0], None, record)
    if versions.obstacle(found, versions.highest(image)) != "older":
        return None
    tag = versions.tag(image)
    why = f"the compose file has {tag}, and the database needs {_text(found)}, {known}: do not start {tag} on it"
    if _changed_by(record, noted) and record["backup"]:
        return {"why": why, "remedy": _restore_command(record)}
    return {"why": why, "remedy": f"immich:version: {_text(found)}, then salt-call state.apply immich"}


# -- rollback ----------------------------------------


def pending(settings):
    """
    Return the record of an update to the version of the settings that has not come to its end, or None.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.pending "$SETTINGS"
    """
    record = unfinished(settings)
    return record if record and record["image"] == settings["server"]["image"] else None


def unfinished(settings):
    """
    Return the record of an update that has not come to its end, to whatever version, or None.

    settings
        The formula's settings.

    Raises CommandExecutionError if the record cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.unfinished "$SETTINGS"
    """
    record = _record(settings)
    return record if record and record.get("what") != SETTINGS else None


def former_compose(settings):
    """
    Return the text of the compose file that served before an update or a change of settings which has not come to its
    end, or None.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.former_compose "$SETTINGS"
    """
    return (_record(settings) or {}).get("compose")


def keep_former(settings, compose):
    """
    Keep the compose file that is there, so that :py:func:`roll_back` can put it back if Immich does not serve with
    another one.

    Nothing is kept if the file stays as it is or Immich does not serve. What an update or an earlier change has kept,
    and has not come to its end, stays: that is what served last.

    settings
        The formula's settings.

    compose
        The text that is about to be written.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.keep_former "$SETTINGS" "$(cat new.yml)"
    """
    path = _compose_file(settings)
    former = compose_file.read(path)
    if former in (None, compose) or not compose_file.ping_url(former):
        return
    if _record(settings) or not __salt__["immich_app.serves"](settings):
        return
    if run_facts.of(__context__).migrated:
        return  # it names what is gone
    _write(_record_file(settings), json.dumps({"what": SETTINGS, "compose": former}, indent=1), 0o600)


def restore_under_way():
    """
    Return a sentence that says which restore is at work on this host, or None.

    Whoever starts Immich meanwhile has it write into a database that is about to be replaced.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.restore_under_way
    """
    holder = lock.under_way()
    return lock.sentence(holder) if holder and holder["what"] == "restore" else None


def prepare(settings):
    """
    Take a verified backup of the database where one is due, keep what a rollback needs, and return that record.

    settings
        The formula's settings.

    Raises CommandExecutionError if there is no backup although one is due.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.prepare "$SETTINGS"
    """
    due = plan(settings)
    compose, interrupted = _compose_file(settings), _record(settings) or {}
    former = interrupted["compose"] if interrupted.get("what") == SETTINGS else compose_file.read(compose)
    noted = database(settings)
    record = _changed_by(unfinished(settings), noted) or {
        "from": due["from"],
        "backup": __salt__["immich.backup"]()["path"] if due["backup"] else None,
        "migrations": noted["migrations"],
        "compose": former,
    }
    record.update(to=due["to"], image=settings["server"]["image"])
    compose.parent.mkdir(parents=True, exist_ok=True)
    _write(_record_file(settings), json.dumps(record, indent=1), 0o600)
    return record


def finish(settings):
    """
    Remove the record for a rollback: Immich serves with the version and the settings that are declared.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.finish "$SETTINGS"
    """
    _record_file(settings).unlink(missing_ok=True)
    lock.release(__context__)


def roll_back(unit, settings, why):
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

    settings
        The formula's settings.

    why
        What the server said last.

    Raises CommandExecutionError if the former version does not come up either.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_update.roll_back immich.service "$SETTINGS" 'it did not answer'
    """
    try:
        if run_facts.of(__context__).migrated:
            # The former compose file names what is gone.
            return (
                f"{unit} does not serve: {why}\nThe former settings are not put back, as the installation was migrated "
                f"in this run. See `journalctl -u {unit}`, correct the pillar and apply again"
            )
        record = _record(settings)
        if record and record.get("what") == SETTINGS:
            return _settings_rolled_back(unit, settings, record["compose"], why)
        record = pending(settings)
        return record and _rolled_back(unit, settings, record, why)
    finally:
        lock.release(__context__)


def _settings_rolled_back(unit, settings, former, why):
    path = _compose_file(settings)
    if path.read_text(encoding="utf8") == former:
        return None
    try:
        changed = compose_file.changes(settings, former, __grains__.get("selinux", {}).get("enabled", False))
    except compose_file.ComposeFileError as error:
        raise CommandExecutionError(str(error)) from error
    changes = "\n".join(f"- {change}" for change in changed)
    said = f"Immich does not serve with the changed settings: {why}\nWhat they change in {path}:\n{changes}\n"
    restore = restore_under_way()
    if restore:
        return f"{said}{restore} Until then they stay"
    _write(path, former, 0o644)
    try:
        downtime = __salt__["immich_app.bring_up"](unit, settings)
    except CommandExecutionError as error:
        words = __salt__["immich_app.last_words"](unit) or error
        return (
            f"{said}With the former settings, which were put back, it does not serve either: {words}\n"
            f"See `journalctl -u {unit}`; the next apply tries the changed ones again"
        )
    finish(settings)
    return (
        f"{said}The former settings were put back, and Immich serves again{_lasted(downtime)}. Correct the pillar and "
        f"apply again: as it is, the next apply tries the same again. See `journalctl -u {unit}`"
    )


def _lasted(downtime):
    return "" if downtime is None else f", after {downtime} s without an answer"


def _rolled_back(unit, settings, record, why):
    said = f"{record['to']} does not serve: {why}\n"
    try:
        migrations = database(settings)["migrations"]
        if not migrations and record["migrations"]:
            raise CommandExecutionError("PostgreSQL does not run, or Immich's database is gone")
    except CommandExecutionError as error:
        return (
            f"{said}{error}\nWithout its database no version serves, so {record['to']} stays: fix PostgreSQL, "
            f"then apply again"
        )
    if record["compose"] is None:
        return f"{said}There was no compose file before, to which to return. {_restore_advice(record)}"
    _write(_compose_file(settings), record["compose"], 0o644)
    if sorted(migrations) != record["migrations"]:
        return said + _after_migration(unit, settings, record)
    downtime = __salt__["immich_app.bring_up"](unit, settings)
    finish(settings)
    return (
        f"{said}The database was not changed, and {record['from']} serves again{_lasted(downtime)}. See "
        f"`journalctl -u {unit}`; {_pillar_path(settings)} still says {record['to']}, so the next apply tries it again"
    )


def _after_migration(unit, settings, record):
    changed = f"{record['to']} has changed the database, which {record['from']} cannot serve any more."
    __salt__["immich_app.stop"](unit, settings)
    restorable = record["backup"] and "immich.restore" in __salt__
    if settings["update"]["rollback"] != "restore" or not restorable:
        return (
            f"{changed} Immich is stopped, and its compose file is that of {record['from']} again. "
            f"{_restore_advice(record)} Or fix what keeps {record['to']} from serving and apply again: it goes on "
            f"with the changed database then"
        )
    try:
        kept = _restore(record)["kept"]["database"]
    except CommandExecutionError as error:
        return f"{changed} Immich is stopped, as the backup could not be restored: {error} {_restore_advice(record)}"
    finish(settings)
    return (
        f"{changed} Its backup {record['backup']} was restored, and {record['from']} serves again. What {record['to']} "
        f"made of the database is kept as {kept}: when nobody needs it, salt-call pgsql_database.drop {kept}. "
        f"{_pillar_path(settings)} still says {record['to']}, so the next apply tries it again"
    )


def _restore(record):
    """
    Restore what the update has noted, whatever the changed database holds: it could keep itself from being backed up,
    and is kept instead.
    """
    known = record["from"] if version(record["from"]) else None
    return __salt__["immich.restore"](record["backup"], confirm=__opts__["id"], version=known, dump_first=False)


def _restore_advice(record):
    if not record["backup"]:
        return "No backup was taken before (immich:update:backup): to go back, restore one of your own."
    return f"To go back, set immich:version to {record['from']} and type: {_restore_command(record)}"


def _restore_command(record):
    return f"salt-call immich.restore {record['backup']} confirm={__opts__['id']}"


# -- files ----------------------------------------


def _installed_image(settings):
    try:
        return compose_file.image(_compose_file(settings))
    except compose_file.ComposeFileError as error:
        raise CommandExecutionError(str(error)) from error


def _project(settings):
    """The project directory, before this run moves it and after."""
    return Path(__salt__["immich_identity.current"](settings)["project_dir"])


def _compose_file(settings):
    return _project(settings) / "docker-compose.yml"


def _record_file(settings):
    return _project(settings) / RECORD


def _record(settings):
    """What :py:func:`prepare` or :py:func:`keep_former` has written and nothing has finished, or None."""
    path = _record_file(settings)
    try:
        return json.loads(path.read_text(encoding="utf8")) if path.exists() else None
    except ValueError as error:
        raise CommandExecutionError(f"{path} is damaged: {error}. If no update failed before, remove it") from error


def _write(path, text, mode):
    try:
        durable.write(path, text, mode)
    except OSError as error:
        raise CommandExecutionError(str(error)) from error
