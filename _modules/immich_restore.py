"""
Restore Immich's database from a backup, and rehearse that
==========================================================

A backup is a file of ``pg_dump --format=custom``, as ``immich.backup`` makes it. What is in it is under the control of
the application, and it runs when it is restored: so a superuser makes an empty database with its owner and its
extensions, and ``pgsql_dump.restore`` does the rest, logged in as a role that owns this database alone and is dropped
afterwards. A dump can act with that login on all of the server, as Immich's role on the live database: so that role is
not lent to it. What it made is given to Immich's role before the database takes its place.

The database that Immich uses is always a whole one. A backup is restored into another, and both swap their names in one
transaction. What a restore that was killed has left is told by names alone, ``DATABASE_KIND_TIME``:

restore, drill
    Half a database, of use to nobody: dropped by the next run.
before
    What Immich used before. It is dropped after the restored database has been verified; of a restore that was killed
    in between it is kept, as ``kept``.
drop
    Was about to be dropped.

On Salt's command line this module is ``immich``, together with others of that name.
"""

import calendar
import contextlib
import functools
import os
import re
import secrets
import shlex
import shutil
import sys
import threading
import time

import salt.utils.data
import salt.utils.hashutils
from salt.exceptions import CommandExecutionError

from host_core import unit_file
from immich_core import findings, last_words, lock, progress, units, untrusted, versions

__virtualname__ = "immich"

UNIT = units.IMMICH
DRILL_FILES = {
    "service": units.file(units.RESTORE_DRILL),
    "timer": units.file(units.RESTORE_DRILL_TIMER),
    "failed_service": units.file(units.RESTORE_DRILL_FAILED),
}
HBA_NAME = "immich restore"
# The end of the name of the role that restores, after that of Immich's.
GUEST = "_restore"
# A check or a default in a dump may never end. So much for all of a restore, and more for each gigabyte of its rows: no
# disk is so slow. Progress tells nothing: one large index is one step for hours, and a check that sleeps for
# each row makes progress for years.
RESTORE_SECONDS, RESTORE_SECONDS_PER_GB, MOST_RESTORE_SECONDS = 6 * 3600, 6 * 3600, 7 * 86400
# So may counting the rows of the live database, which its owner can lock or give policies.
COUNT_SECONDS = 3600
# By Immich's column for when a row was made, which is the beginning of its transaction: a backup may lack younger ones.
CREATED, SETTLED_SECONDS = "createdAt", 3600
STAMP = "%Y%m%dT%H%M%SZ"
HALVES = ("restore", "drill", "drop")
# What PostgreSQL cuts names to, in bytes, without the longest of the endings above.
LONGEST_NAME = 63 - len("_restore_20261124T203000Z")
NAME = re.compile(r"immich_(?P<time>[0-9]{8}T[0-9]{6}Z)_(?P<version>[^_]+)(?:_(?P<database>.+?)(?:\.empty)?)?\.dump")
MIGRATIONS = ("public.kysely_migrations", "public.migrations")
VERSIONS = "public.version_history"
# Measured on embeddings, which are most of it: two thirds of its text is what a vector takes with its index.
SPACE_FACTOR = 1.5
# What the journal knows it by.
TAG = "immich-restore"


def __virtual__():
    if "pgsql_server.version" not in __salt__:
        return False, "immich.restore needs the execution module pgsql_server: is psycopg2 in Salt's Python?"
    return __virtualname__


def restore(backup, confirm=None, keep_old=None, dump_first=True, version=None, test=False):
    """
    Put the database back to what it was when a backup was made.

    Whatever is wrong with the backup, the settings or the host is told before anything changes. Then Immich is stopped,
    what is there now is backed up, the backup is restored into a fresh database, and only when that is complete and its
    rows are counted does it take the place of the old one. Immich is started and verified; if that fails, the old
    database is put back. Photos and videos are not touched: a backup of the database does not hold them.

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
    settings = _settings()
    path = _path(settings, backup)
    if not test and confirm != __opts__["id"]:
        meant = f"If that is meant, say confirm={__opts__['id']}; test=True tells what would be done."
        _refuse([f"This replaces Immich's database on {__opts__['id']}. {meant}"])
    keep_old = keep_old if dump_first else True
    with _locked("restore", test):
        contents = _read(settings, path)
        problems = [*_problems(settings, contents, path, version), *_doubts(settings, contents, path, version)]
        _refuse([*problems, *_app_problems(settings)])
        if test:
            return {"backup": path, "would": _steps(settings, contents, keep_old, dump_first)}
        return _restored(settings, path, contents, keep_old, dump_first)


def restore_drill(backup=None, version=None):
    """
    Rehearse a restore: restore a backup into a scratch database, count its rows, and drop it. Immich serves on.

    The scratch database has as many rows as the backup, or this fails. So it does if the backup lacks a table of
    Immich's database, or the database one of the backup, or if more rows from before the backup are in the database
    than in the backup. ``changed`` in the answer tells of which tables Immich has another number of rows ``now`` than
    the ``backup``, and ``warnings`` what could not be compared, and what a restore would want to be told.

    backup
        Name of a backup, or the path of such a file. Defaults to the newest backup.
    version
        As for :py:func:`restore`.

    Raises ``CommandExecutionError`` if the backup cannot be restored, or is not what it should be.

    CLI Example:

    .. code-block:: bash

        salt-call immich.restore_drill
    """
    settings = _settings()
    path = _path(settings, backup or _newest(settings["postgres"]["database"]))
    begin = time.monotonic()
    with _locked("restore drill"):
        contents = _read(settings, path)
        _refuse(_problems(settings, contents, path, version))
        _clear(settings)
        scratch = _beside(settings["postgres"]["database"], "drill")
        with _guest(settings, scratch) as guest:
            try:
                _fill(settings, path, contents, scratch, guest)
            finally:
                _drop(scratch, settings["postgres"]["connection"])
        live = _live(settings, path)
    held, rows = contents["tables"], sum(contents["tables"].values())
    seconds = round(time.monotonic() - begin)
    _say(f"{os.path.basename(path)} can be restored: {len(held)} tables, {rows} rows, in {seconds} s")
    differences, warnings = _differences(held, _migrations(contents), live)
    warnings = [*_doubts(settings, contents, path, version), *warnings]
    for sentence in (*differences, *warnings):
        _say(sentence)
    if differences:
        raise CommandExecutionError(f"{path} can be restored, and is not what it should be. {' '.join(differences)}")
    changed = {
        table: {"backup": held.get(table), "now": live["tables"].get(table)}
        for table in sorted({*held, *live["tables"]})
        if held.get(table) != live["tables"].get(table)
    }
    answer = {"backup": path, "tables": len(held), "rows": rows, "seconds": seconds, "changed": changed}
    return {**answer, "warnings": warnings}


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
    settings = _settings()
    test = bool(test or __opts__["test"])
    with _locked("restore", test):
        left = _leftovers(settings)
        names = {kind: [name for name, of in left.items() if of in kinds] for kind, kinds in KINDS_LEFT.items()}
        if test:
            return {"would": {**names, "start": UNIT}}
        _clear(settings)
        _systemctl("start")
    return names


def restore_drill_plan(settings):
    """
    Return what the units of the restore drill need, decided once.

    ``{"command": for ExecStart, "after": [units], "on_failure": bool, "files": {what: path}}``

    settings
        The formula's settings, as of ``immich_settings.get``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich.restore_drill_plan "$(salt-call --local --out=json immich_settings.get | jq .local)"
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


# What a killed restore leaves, and what becomes of it.
KINDS_LEFT = {"drop": HALVES, "keep": ("before",)}


def restore_leftovers(settings):
    """
    Return what restores have left beside Immich's database, as names of databases and whether a record is left.

    ``{"drop": [halves of killed ones], "keep": [what Immich used before a killed one], "kept": [what a person may
    drop], "record": whether pg_hba.conf still lets Immich's role in for a restore}``. While a restore is at work, it
    is not over, and its databases stand there too.

    settings
        The formula's settings, as of ``immich_settings.get``.

    Raises ``CommandExecutionError`` if PostgreSQL does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich.restore_leftovers "$(salt-call --local --out=json immich_settings.get | jq .local)"
    """
    left = _leftovers(settings, (*HALVES, "before", "kept"))
    kinds = {**KINDS_LEFT, "kept": ("kept",)}
    names = {kind: [name for name, of in left.items() if of in each] for kind, each in kinds.items()}
    return {**names, "record": _record_left(settings)}


# -- what is refused before anything changes ---------------------------------------------------------------


def _settings():
    settings = __salt__["immich_settings.get"]()
    if not settings:
        errors = [f"{error['path']}: {error['message']}" for error in __salt__["immich_settings.errors"]()]
        _refuse(["The pillar is wrong:", *errors])
    return settings


def _refuse(problems):
    if problems:
        raise CommandExecutionError("\n".join(["Nothing was changed.", *problems]))


def _path(settings, backup):
    path = os.path.join(settings["backup"]["directory"], str(backup))
    if not os.path.isfile(path):
        _refuse([f"There is no backup {path}. `salt-call immich.backups` lists what there is."])
    return path


def _newest(database):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    backups = [
        each for each in __salt__["immich.backups"]() if each["database"] in (None, database) and each["time"] <= now
    ]
    if not backups:
        raise CommandExecutionError("There is no backup yet: make one with `salt-call immich.backup`.")
    return max(backups, key=lambda backup: backup["time"])["path"]


def _read(settings, path):
    try:
        _check_sum(path)
        return __salt__["pgsql_dump.read"](
            path, [VERSIONS, *MIGRATIONS], _progress("Reading", path), settings["postgres"]["connection"]
        )
    except CommandExecutionError as error:
        _refuse([f"{path} is not a whole backup, made by pg_dump --format=custom: {error}"])


def _check_sum(path):
    """What pg_restore may take for data: a bit that has flipped. A file from elsewhere may have no checksum."""
    if not os.path.isfile(f"{path}.sha256"):
        return
    try:
        with open(f"{path}.sha256", encoding="ascii") as file:
            expected = file.read(1024).split()[0]
    except (IndexError, UnicodeDecodeError):
        return
    if salt.utils.hashutils.get_hash(path, "sha256", 1 << 20) != expected:
        raise CommandExecutionError(f"its SHA-256 is not that in {path}.sha256.")


def _problems(settings, contents, path, version):
    """What is wrong with a backup for this host, as sentences."""
    problems = []
    if not any(table in contents["tables"] for table in MIGRATIONS):
        problems.append(f"{path} is a dump of another database than Immich's: it has no table of migrations.")
    if len(settings["postgres"]["database"].encode()) > LONGEST_NAME:
        problems.append(f"immich:postgres:database must not be longer than {LONGEST_NAME} bytes to be restored.")
    if len(_guest_name(settings).encode()) > 63:
        problems.append(f"immich:postgres:user must not be longer than {63 - len(GUEST)} bytes to be restored.")
    problems += _version_problems(settings, contents, path, version)
    problems += _vector_problems(settings, contents)
    problems += _login_problems(settings)
    return problems + _space_problems(settings, contents)


def _migrations(contents):
    return [row.get("name", "") for table in MIGRATIONS for row in contents["rows"][table]]


def _noted(contents, path):
    """The versions that a backup says, in it and by its name; and the one of its name, unless that cannot be true."""
    found = NAME.fullmatch(os.path.basename(path))
    named = [found["version"]] if found and versions.parse(found["version"]) else []
    noted = [row.get("version", "") for row in contents["rows"][VERSIONS]] + named
    if named and versions.contradiction(named, _migrations(contents)):
        return noted, []
    return noted, named


def _dumped_version(contents, path, version=None):
    """The version of Immich that a backup needs at least, or None: what a person says, or else the backup."""
    if version is not None:
        return _parsed(version)
    noted, named = _noted(contents, path)
    return versions.of_data(noted, _migrations(contents), *named)


def _parsed(version):
    parsed = versions.parse(version)
    if parsed is None:
        _refuse([f"version={version} is no full version, such as v3.3.1."])
    return parsed


def _doubts(settings, contents, path, version):
    """What a backup says of its version although all else contradicts it, as sentences. A person's word counts more."""
    noted, named = _noted(contents, path)
    against = versions.contradiction(noted, _migrations(contents), named)
    if version is not None or not against:
        return []
    newest = versions.text(max(filter(None, map(versions.parse, noted))))
    claim = f"The backup says that it is of Immich {newest}, and nothing else does: {against}."
    override = _override(settings, path, newest, _dumped_version(contents, path))
    return [f"{claim} Immich's role can write there what it likes. {override}"]


def _override(settings, path, claimed, version):
    """What a person types who knows better than the backup."""
    image = versions.tag(settings["server"]["image"])
    version = versions.text(version) if version else image
    command = f"salt-call immich.restore {shlex.quote(path)} version={version} confirm={__opts__['id']}"
    return f"If {claimed} never served it, type: {command}"


def _version_problems(settings, contents, path, version):
    dumped, image = _dumped_version(contents, path, version), settings["server"]["image"]
    highest = versions.highest(image)
    obstacle = versions.obstacle(dumped, highest)
    if obstacle is None:
        return []
    text, tag = (versions.text(dumped), versions.tag(image))
    if obstacle != "older":
        return [f"The backup is of Immich {text}: set immich:version to {obstacle}, apply, restore, then update."]
    problem = f"The backup is of Immich {text}, and {tag} cannot go back: set immich:version to {text}, apply."
    least = versions.since(_migrations(contents))
    if versions.obstacle(least, highest):
        return [problem]
    return [f"{problem} Its migrations do not need that. {_override(settings, path, text, least)}"]


def _vector_problems(settings, contents):
    postgres = settings["postgres"]
    has = __salt__["immich_postgres.vector_extension"](
        postgres["database"], postgres["vector_extension"], postgres["connection"]
    )
    wanted = _vector_extension(contents, has)
    if wanted == has:
        return []
    advice = "drop its database, set immich:postgres:vector_extension, apply, and restore again"
    return [f"The backup was made with the extension {wanted}, and Immich is set up with {has}: {advice}."]


def _vector_extension(contents, otherwise):
    return next((name for name in ("vchord", "vector") if name in contents["extensions"]), otherwise)


def _login_problems(settings):
    """Immich's role has to log in from this host; whether pg_hba.conf lets it is for later where it is managed."""
    user, database = settings["postgres"]["user"], settings["postgres"]["database"]
    password = salt.utils.data.traverse_dict_and_list(__pillar__, "immich:postgres:password", None, delimiter=":")
    owner = _owner(settings, database)
    if settings["postgres"]["managed"]:
        role = __salt__["pgsql_role.get"](user, password, settings["postgres"]["connection"])
        if not (role and role["password_matches"]):
            return [f"PostgreSQL has no role {user} with the pillar's password: apply immich.postgres."]
        # Raises if PostgreSQL does not listen there.
        __salt__["pgsql_role.login_works"](user, password, owner)
        return []
    if __salt__["pgsql_role.login_works"](user, password, owner, database):
        return []
    advice = f"its pg_hba.conf needs a record `host all {user} ADDRESS-OF-THIS-HOST scram-sha-256`"
    return [
        f"PostgreSQL at {owner['host']} does not let {user} in from this host with the pillar's password: {advice}."
    ]


def _space_problems(settings, contents):
    connection = settings["postgres"]["connection"]
    if not settings["postgres"]["managed"]:
        return []
    directory = __salt__["pgsql_config.get"](["data_directory"], connection)["data_directory"]["running"]
    needed, free = int(contents["size"] * SPACE_FACTOR), shutil.disk_usage(directory).free
    if free > needed:
        return []
    return [f"{directory} has {_megabytes(free)} left, and the restored database takes about {_megabytes(needed)}."]


def _app_problems(settings):
    if not __salt__["systemd_unit.status"](UNIT)["enabled"]:
        return [f"There is no {UNIT} yet: apply immich first, then restore."]
    missing = __salt__["immich_image.missing"](__salt__["immich_app.unit"](settings)["images"])
    if missing:
        return [f"The image {missing[0]} is not on this host, and Immich could not be started: apply immich first."]
    return []


# -- what Immich has now, beside a backup ---------------------------------------------------------------------


def _live(settings, path):
    """
    What Immich's database has: ``tables`` with their rows, ``migrations``, and ``older``, the rows of each table that a
    backup must have; None if that cannot be known, and ``unknown`` says why.
    """
    database, named = settings["postgres"]["database"], NAME.fullmatch(os.path.basename(path))
    moment = _moment(named)
    unknown = _incomparable(settings, named, moment)
    owner, older, until = _owner(settings, database), None, time.monotonic() + COUNT_SECONDS
    with _let_in(settings, database, settings["postgres"]["user"]):
        if not unknown:
            older = __salt__["pgsql_database.rows_before"](
                database, CREATED, moment - SETTLED_SECONDS, owner, _left(until)
            )
        tables = __salt__["pgsql_database.row_counts"](database, owner, _left(until))
    migrations = __salt__["immich_update.database"](settings)["migrations"]
    return {"tables": tables, "migrations": migrations, "older": older, "unknown": unknown}


def _moment(named):
    """When a backup was begun, by its name, or None."""
    try:
        return calendar.timegm(time.strptime(named["time"], STAMP)) if named else None
    except ValueError:
        return None


def _incomparable(settings, named, moment):
    """Why nothing can be said of rows that a backup should have, or None."""
    postgres = settings["postgres"]
    if moment is None or moment > time.time():
        return "its name does not say when it was made"
    if named["database"] not in (None, postgres["database"]):
        return f"it is of the database {named['database']}"
    try:
        created = __salt__["pgsql_database.created"](postgres["database"], postgres["connection"])
    except CommandExecutionError as error:
        return f"PostgreSQL does not say when the database was created: {error}"
    return "the database was restored since" if created > moment else None


def _differences(held, migrations, live):
    """
    What of a backup is not as it should be beside Immich's database, and what was not compared, both as sentences.

    held, migrations
        Rows by table, and names of migrations, in the backup.
    live
        What :py:func:`_live` returns.
    """
    lost, unknown = _lost_rows(held, live)
    if sorted(name[:255] for name in migrations) != sorted(live["migrations"]):
        # Immich's role can note one, which must not hide that rows are missing.
        others = "The backup and Immich's database have other migrations, as after an update: tables were not compared."
        return lost, [others, *unknown]
    return [*_other_tables(held, live["tables"]), *lost], unknown


def _other_tables(held, now):
    """Which tables only one of them has, as sentences."""
    differences = []
    lacking, gone = sorted(now.keys() - held.keys()), sorted(held.keys() - now.keys())
    if lacking:
        differences.append(
            f"It lacks tables of Immich's database: {_named(lacking)}. If they were made since, by somebody else than "
            f"Immich: salt-call immich.backup"
        )
    if gone:
        differences.append(f"Immich's database lacks tables of it: {_named(gone)}. Find out who has dropped them.")
    return differences


def _lost_rows(held, live):
    """Rows that tables of a backup should have, and why those could not be compared, as lists of sentences."""
    if live["older"] is None:
        return [], [f"Rows from before the backup were not compared: {live['unknown']}."]
    missing = {table: rows - held[table] for table, rows in live["older"].items() if rows > held.get(table, rows)}
    if not missing:
        return [], []
    counted = _named(f"{rows} of {table}" for table, rows in sorted(missing.items()))
    return [f"It lacks rows that Immich's database had an hour before it: at least {counted}."], []


def _named(names):
    names = [untrusted.printable(name, 100) for name in names]
    return ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])


# -- the restore -------------------------------------------------------------------------------------------


def _steps(settings, contents, keep_old, dump_first):
    database, user = settings["postgres"]["database"], settings["postgres"]["user"]
    what = f"{len(contents['tables'])} tables with {sum(contents['tables'].values())} rows"
    left = [name for name, kind in _leftovers(settings).items() if kind in HALVES]
    return [
        *(f"drop {name}, which a restore that was killed has left" for name in left),
        f"stop {UNIT}",
        *(["back up what is there now"] if dump_first else []),
        f"restore {what} into a fresh database, as the role {_guest_name(settings)}, count them, give them to {user}",
        f"have it take the place of the database {database}",
        f"start {UNIT} and verify it, or put the old database back if that fails",
        _last_step(keep_old),
    ]


def _last_step(keep_old):
    if keep_old is None:
        return "keep the old database if its tables or rows differ from those of the backup, else drop it"
    return f"{'keep' if keep_old else 'drop'} the old database"


def _restored(settings, path, contents, keep_old, dump_first):
    database, connection = settings["postgres"]["database"], settings["postgres"]["connection"]
    begin = time.monotonic()
    _clear(settings)
    known = _broken(settings, patience=0)
    served = __salt__["systemd_unit.status"](UNIT)["active"] in ("active", "activating", "reloading")
    fresh, before = _beside(database, "restore"), _beside(database, "before")
    _say(f"Stopping {UNIT}")
    _systemctl("stop")
    with _unchanged_if_it_fails(settings, fresh, served):
        kept = _backed_up() if dump_first and __salt__["pgsql_database.exists"](database, connection) else None
        with _guest(settings, fresh) as guest:
            _fill(settings, path, contents, fresh, guest)
        _take_over(settings, fresh, before)
    trouble = _trouble(settings, known)
    if trouble:
        _put_back(settings, before, served, trouble)
    if keep_old is None:
        keep_old = _differs(settings, before, contents)
    old = _leave(before, keep_old, connection)
    seconds = round(time.monotonic() - begin)
    _say(f"{os.path.basename(path)} is restored, in {seconds} s")
    return {
        "backup": path,
        "tables": len(contents["tables"]),
        "rows": sum(contents["tables"].values()),
        "seconds": seconds,
        "kept": {"backup": kept, "database": old},
    }


def _backed_up():
    _say("Backing up what is there now")
    return __salt__["immich.backup"]()["path"]


def _differs(settings, before, contents):
    """Whether the old database holds anything else than the backup, by its tables and how many rows they have."""
    if not __salt__["pgsql_database.exists"](before, settings["postgres"]["connection"]):
        return False
    try:
        with _let_in(settings, before, settings["postgres"]["user"]):
            counts = __salt__["pgsql_database.row_counts"](before, _owner(settings, before), COUNT_SECONDS)
            return counts != contents["tables"]
    except CommandExecutionError as error:
        _say(f"What {before} holds could not be counted: {error}")
        return True


def _deadline(contents):
    """Until when a backup has to be restored, on the monotonic clock."""
    seconds = RESTORE_SECONDS + contents["size"] / 1000**3 * RESTORE_SECONDS_PER_GB
    return time.monotonic() + min(seconds, MOST_RESTORE_SECONDS)


def _left(deadline):
    return max(1, round(deadline - time.monotonic()))


def _fill(settings, path, contents, name, guest):
    """Make a database, restore a backup into it, and see that all of it is there, by a deadline; or drop it again."""
    try:
        _fill_until(_deadline(contents), settings, path, contents, name, guest)
    except BaseException:
        # What the server still does in it may never end, and would keep the guest's role from being dropped.
        with contextlib.suppress(CommandExecutionError):  # the next run drops it
            _drop(name, settings["postgres"]["connection"])
        raise


def _fill_until(until, settings, path, contents, name, guest):
    _say(f"Creating the database {name}")
    connection = settings["postgres"]["connection"]
    __salt__["immich_postgres.database_create"](name, settings, _vector_extension(contents, "vector"))
    __salt__["pgsql_database.set"](name, owner=guest["user"], connection=connection)
    with _let_in(settings, name, guest["user"]):
        with _doing() as doing:
            __salt__["pgsql_dump.restore"](path, name, guest, _progress("Restoring", path), doing, _left(until))
        _say("Counting rows, collecting statistics")
        counts = __salt__["pgsql_database.row_counts"](name, guest, _left(until))
        __salt__["pgsql_database.analyze"](name, guest, _left(until))
    wrong = [
        f"{table}: {counts.get(table)} rows instead of {rows}"
        for table, rows in contents["tables"].items()
        if counts.get(table) != rows
    ]
    if wrong:
        raise CommandExecutionError(f"What was restored is not what the backup holds: {_named(wrong)}")


def _take_over(settings, fresh, before):
    database, connection = settings["postgres"]["database"], settings["postgres"]["connection"]
    _say(f"{fresh} takes the place of {database}")
    there = __salt__["pgsql_database.exists"](database, connection)
    __salt__["pgsql_database.rename"]({**({database: before} if there else {}), fresh: database}, connection)


@contextlib.contextmanager
def _unchanged_if_it_fails(settings, fresh, served):
    """Until the swap, what Immich used is as it was: whatever ends the block before, Immich starts on it again."""
    connection, complete = settings["postgres"]["connection"], False
    try:
        yield
        complete = True
    except CommandExecutionError as error:
        _say(f"The restore failed: {error}")
        unchanged = f"the database {settings['postgres']['database']} is as it was"
        again = " and Immich is started again" if served else ""
        raise CommandExecutionError(f"Not restored; {unchanged}{again}: {error}") from error
    finally:
        if not complete:
            with contextlib.suppress(CommandExecutionError):  # the next run drops it
                __salt__["pgsql_server.wait_until_ready"](connection)
                _drop(fresh, connection)
        if not complete and served:
            _systemctl("start", "--no-block")


def _trouble(settings, known):
    """Start Immich on the restored database; return what is wrong with it and was not wrong before."""
    _say(f"Starting {UNIT}")
    try:
        _systemctl("start")
    except CommandExecutionError as error:
        return [last_words.of(UNIT) or str(error)]
    return [sentence for sentence in _broken(settings) if sentence not in known]


def _broken(settings, **options):
    """What does not hold of application and database. ``patience`` is for how long the application may still start."""
    broken = []
    for module, given in (("immich_app", options), ("immich_postgres", {})):
        try:
            broken += map(findings.sentence, __salt__[f"{module}.verify"](settings, **given))
        except CommandExecutionError as error:
            broken.append(str(error))
    return broken


def _put_back(settings, before, served, trouble):
    database, connection = settings["postgres"]["database"], settings["postgres"]["connection"]
    _say(f"Immich does not serve from it: {'; '.join(trouble)}")
    _systemctl("stop")
    there = __salt__["pgsql_database.exists"](before, connection)
    drop = _beside(database, "drop")
    __salt__["pgsql_database.rename"]({database: drop, **({before: database} if there else {})}, connection)
    if served:
        _systemctl("start")
    _drop(drop, connection)
    raise CommandExecutionError(
        "Not restored: Immich did not serve from the restored database, so the old one was put back"
        f"{' and Immich is started again' if served else ''}. {' '.join(trouble)}"
    )


def _leave(before, keep_old, connection):
    """Drop the old database or keep it, out of the reach of Immich's role; its name then."""
    if not __salt__["pgsql_database.exists"](before, connection):
        return None
    if keep_old:
        # It may be all that there is of what it holds, and whoever owns a database can drop it.
        __salt__["pgsql_database.set"](before, owner=connection["user"], connection=connection)
    kept, drop = (before.replace("_before_", f"_{kind}_") for kind in ("kept", "drop"))
    # A database whose dropping was cut short can no longer be renamed: its name says first what becomes of it.
    __salt__["pgsql_database.rename"]({before: kept if keep_old else drop}, connection)
    if keep_old:
        return kept
    _drop(drop, connection)
    return None


# -- what a killed one leaves ------------------------------------------------------------------------------


def _beside(database, kind):
    return f"{database}_{kind}_{time.strftime(STAMP, time.gmtime())}"


def _leftovers(settings, of=(*HALVES, "before")):
    """Databases of restores, by default of those that were killed: ``{name: kind}``."""
    database, connection = settings["postgres"]["database"], settings["postgres"]["connection"]
    names = __salt__["pgsql_database.list"](connection)
    kinds = "|".join(of)
    found = {name: re.fullmatch(rf"{re.escape(database)}_({kinds})_\d{{8}}T\d{{6}}Z", name) for name in names}
    return {name: match[1] for name, match in found.items() if match}


def _clear(settings):
    connection = settings["postgres"]["connection"]
    for name, kind in _leftovers(settings).items():
        if kind in HALVES:
            _say(f"Dropping {name}, which a restore that was killed has left")
            _drop(name, connection)
        else:
            kept = _leave(name, True, connection)
            _say(f"Keeping {name}, which Immich used before a restore that was killed, as {kept}")
    _dismiss(settings)
    if _record_left(settings):
        __salt__["pgsql_hba.set"](HBA_NAME, connection=connection)


def _record_left(settings):
    connection = settings["postgres"]["connection"]
    return bool(settings["postgres"]["managed"] and __salt__["pgsql_hba.get"](HBA_NAME, connection=connection)["lines"])


def _dismiss(settings):
    """Drop the role of a restore; what it still owns goes to Immich's."""
    __salt__["pgsql_server.disconnect"]()
    name, connection = _guest_name(settings), settings["postgres"]["connection"]
    if __salt__["pgsql_role.get"](name, connection=connection):
        __salt__["pgsql_role.drop"](name, reassign_to=settings["postgres"]["user"], connection=connection)


def _drop(name, connection):
    if __salt__["pgsql_database.exists"](name, connection):
        __salt__["pgsql_database.drop"](name, force=True, connection=connection)


# -- roles -------------------------------------------------------------------------------------------------


def _guest_name(settings):
    return f"{settings['postgres']['user']}{GUEST}"


@contextlib.contextmanager
def _guest(settings, database):
    """
    A role for one restore, with how to log in as it: it will own the database, and has no right to another.

    When the block is over, what it made belongs to Immich's role, and it is gone.
    """
    connection, name = settings["postgres"]["connection"], _guest_name(settings)
    password = secrets.token_urlsafe(32)
    __salt__["pgsql_role.set"](
        name, login=True, superuser=False, createdb=False, createrole=False, replication=False, bypassrls=False,
        member_of=[], password=password, connection=connection,
    )  # fmt: skip
    login = {**_owner(settings, database), "user": name, "password": password}
    del login["password_pillar"]
    try:
        if not settings["postgres"]["managed"]:
            _refuse(_closed_door(login, connection["maintenance_db"], settings["postgres"]["user"]))
        yield login
    except BaseException:
        with contextlib.suppress(CommandExecutionError):  # the next run does it
            _dismiss(settings)
        raise
    _dismiss(settings)


def _closed_door(login, database, user):
    """Why the role of a restore cannot log in at a server that the formula does not manage, as a list of sentences."""
    if __salt__["pgsql_role.login_works"](login["user"], login["password"], login, database):
        return []
    why = f"PostgreSQL at {login['host']} does not let the role {login['user']} in, which a restore makes and drops"
    return [
        f"{why}: its pg_hba.conf needs a record `host all {user},{login['user']} ADDRESS-OF-THIS-HOST scram-sha-256`."
    ]


def _owner(settings, database):
    """How to log in as Immich's own role: over TCP, as it has nothing but its password."""
    connection = settings["postgres"]["connection"]
    kept = {key: connection[key] for key in ("port", "sslmode", "sslrootcert") if key in connection}
    host = "127.0.0.1" if connection["host"].startswith("/") else connection["host"]
    user, password = settings["postgres"]["user"], "immich:postgres:password"
    return {**kept, "host": host, "user": user, "password_pillar": password, "maintenance_db": database}


@contextlib.contextmanager
def _let_in(settings, database, user):
    """Have pg_hba.conf let a role into a database from this host, which not every distribution's does."""
    if not settings["postgres"]["managed"]:
        yield
        return
    connection = settings["postgres"]["connection"]
    record = {
        "type": "host",
        "database": database,
        "user": user,
        "address": "127.0.0.1/32",
        "method": "scram-sha-256",
    }
    __salt__["pgsql_hba.set"](HBA_NAME, record, connection)
    try:
        yield
    finally:
        with contextlib.suppress(CommandExecutionError):  # the next run takes it back
            __salt__["pgsql_hba.set"](HBA_NAME, connection=connection)


# -- small things ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(what, test=False):
    try:
        with lock.held(what, lend=not test):
            yield
    except BlockingIOError as error:
        _refuse([str(error)])


def _systemctl(verb, *options):
    __salt__["systemd_unit.call"](verb, *options, UNIT)


def _say(text):
    progress.say(text, TAG)


def _progress(verb, path):
    """A function that tells now and then how far something is, given the bytes done."""
    tell, size, begin = progress.now_and_then(TAG), os.path.getsize(path), time.monotonic()

    def report(done):
        seconds = round(time.monotonic() - begin)
        tell(f"{verb}: {_megabytes(done)} of {_megabytes(size)}, {done * 100 // size} %, {seconds} s")

    return report


@contextlib.contextmanager
def _doing():
    """A function to tell what pg_restore does. Of indexes, which come last, it says the one that takes long."""
    # Called in another thread, in which Salt's dunders are empty.
    say = functools.partial(progress.say, tag=TAG)
    now_and_then, built, complete = progress.now_and_then(TAG), {}, threading.Event()

    def take(what):
        if not what.startswith("creating INDEX"):
            return
        if not built:
            say("Restoring: building the indexes")
        built.update(what=what, begin=time.monotonic())

    def watch():
        while not complete.wait(1):
            if built:
                now_and_then(f"Restoring: {built['what']}, {round(time.monotonic() - built['begin'])} s")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield take
    finally:
        complete.set()


def _megabytes(number):
    return f"{number / 1024**2:.1f} MB"
