"""What is made of a backup beside Immich's database, and of a version that cannot be true. Nothing runs here."""

import functools

import pytest
from salt.exceptions import CommandExecutionError

from _modules import immich
from immich_core import findings
from immich_io import lock
from immich_restore import backup_file, comparison, deadlines, reporting, swap
from immich_restore.target import Target

IMAGE = "ghcr.io/immich-app/immich-server:v3.3.1"
PATH = "/var/backups/immich/immich_20261124T203000Z_v3.3.1_immich.dump"
V2_7, V3_3 = "1775165531374-AddPersonNameTrigramIndex", "1790693088454-AddPersonUserTableSharedBySharedWithConstraint"
HELD = {"public.asset": 5, "public.album": 2, "public.kysely_migrations": 1}


def live(older=None, unknown=None, migrations=(V3_3,), **tables):
    return {"tables": tables, "migrations": list(migrations), "older": older, "unknown": unknown}


def beside(now, migrations=(V3_3,), **changes):
    tables = {f"public.{name}": rows for name, rows in now.items()}
    found = comparison.differences(HELD, list(migrations), {**live(older={}), "tables": tables, **changes})
    return tuple([findings.sentence(each) for each in some] for some in found)


NOW = {"asset": 9, "album": 1, "kysely_migrations": 1}


def test_what_came_in_or_was_deleted_since_is_no_difference():
    assert beside(NOW, older={"public.asset": 4, "public.album": 1}) == ([], [])
    assert beside(NOW, older={"public.asset": 5, "public.album": 2}) == ([], [])


def test_a_table_that_one_of_them_lacks_is_a_difference():
    (told,), warnings = beside({**NOW, "person\x1b[2J": 3}, older={})
    assert told.startswith("It lacks tables of Immich's database: public.person. Next step: if")
    assert warnings == []
    ((told,), _) = beside({"asset": 9, "kysely_migrations": 1}, older={})
    assert told.startswith("Immich's database lacks tables of it: public.album. Next step: find out")


def test_rows_from_before_the_backup_that_it_lacks_are_a_difference():
    ((told,), _) = beside(NOW, older={"public.asset": 8, "public.album": 2})
    assert told == "It lacks rows that Immich's database had an hour before it: at least 3 of public.asset"


def test_after_an_update_tables_are_not_compared_and_that_is_told():
    now = {"asset": 9, "person": 3, "kysely_migrations": 2}
    differences, (told,) = beside(now, migrations=(V2_7,), older={"public.asset": 5, "public.person": 3})
    assert differences == []
    assert "have different migrations" in told


def test_a_migration_that_somebody_has_noted_does_not_hide_that_rows_are_missing():
    planted = (V3_3, "1999999999999-Planted")
    (told,), (warning,) = beside(NOW, migrations=planted, older={"public.asset": 9, "public.album": 2})
    assert told == "It lacks rows that Immich's database had an hour before it: at least 4 of public.asset"
    assert "have different migrations" in warning


def test_rows_that_cannot_be_compared_are_told():
    differences, (told,) = beside(NOW, older=None, unknown="the database was restored since")
    assert differences == []
    assert told == "Rows from before the backup were not compared: the database was restored since"


def contents(*noted, migration=V3_3):
    rows = {"public.version_history": [{"version": each} for each in noted], "public.migrations": []}
    return {"rows": {**rows, "public.kysely_migrations": [{"name": migration}]}}


TARGET = Target({"version": "v3.3.1", "server": {"image": IMAGE}}, salt={}, pillar={}, minion="photos.example.org")


def told(held, path=PATH, version=None):
    """What speaks against a restore, because of versions, in words."""
    problems = backup_file.version_problems(TARGET, held, path, version)
    return "\n".join(map(findings.sentence, problems + backup_file.doubts(TARGET, held, path, version)))


@pytest.mark.parametrize(
    ("held", "path", "known"),
    (
        (contents("3.3.1", "999.0.0"), PATH, "v3.3.1"),
        (contents("3.3.1", "3.5.0"), PATH, "v3.3.1"),
        # A backup of before names what its rows say.
        (contents("2.7.5", "999.0.0", migration=V2_7), PATH.replace("v3.3.1", "v999.0.0"), "v2.7.5"),
        (contents("999.0.0", migration=V2_7), "/srv/my own.dump", "v2.7.0"),
    ),
)
def test_a_version_that_cannot_be_true_is_named_with_the_line_that_overrides_it(held, path, known):
    said = told(held, path)
    assert "immich:version" not in said
    assert "Only the backup's own table says" in said
    quoted = path if " " not in path else f"'{path}'"
    assert f"salt-call immich.restore {quoted} version={known} confirm=" in said
    assert told(held, path, known) == ""


def test_a_version_that_cannot_be_true_hides_no_other_that_is_noted():
    """As an update has it: v3.2.1 must not serve what v3.2.2 has served."""
    settings = {"version": "v3.2.1", "server": {"image": IMAGE.replace("v3.3.1", "v3.2.1")}}
    held = contents("3.2.2", "999.0.0", migration="1789419229196-ConvertUserOAuthIdEmptyStringToNull")
    (problem,) = backup_file.version_problems(TARGET._replace(settings=settings), held, "/srv/photos.dump", None)
    assert problem["seen"].startswith(
        "v3.2.1 is older than v3.2.2, the version of the backup. Immich cannot be downgraded"
    )
    assert problem["remedy"].startswith("immich:version: v3.2.2, apply, then restore")


def test_a_version_that_nothing_contradicts_has_an_override_unless_migrations_need_it():
    said = told(contents("3.5.0"), "/srv/compose.dump")
    assert said.startswith(
        "immich:version: v3.3.1 is older than v3.5.0, the version of the backup. Immich cannot be downgraded"
    )
    assert "Next step: immich:version: v3.5.0, apply, then restore. Its migrations do not need that: if v3.5.0" in said
    assert "salt-call immich.restore /srv/compose.dump version=v3.3.0 confirm=" in said
    assert told(contents("3.5.0"), "/srv/compose.dump", "v3.3.1") == ""
    said = told(contents("3.3.1", migration="1793000000000-AddAssetRating"))
    assert said.endswith("Next step: immich:version: v3.3.2, apply, then restore")
    assert "version=" not in said


def test_a_backup_from_before_the_stop_on_the_way_is_restored_there():
    said = told(contents("1.131.3", migration="AddMissingIndex1744910873956"), "/srv/photos.dump")
    assert "from v1.131.3 Immich cannot be updated to v3.3.1 directly." in said
    assert said.endswith("Next step: immich:version: v1.132.3, apply, then restore")


def test_a_word_that_is_no_version_is_refused():
    with pytest.raises(Exception, match="version=v3 is not a full version"):
        told(contents("3.3.1"), version="v3")


def test_a_restore_has_hours_and_more_for_a_large_library():
    until = {size: deadlines.of_restore({"size": size}) for size in (0, 3 * 10**9, 10**12)}
    hours = {size: deadlines.seconds_left(each) / 3600 for size, each in until.items()}
    assert hours == pytest.approx({0: 6, 3 * 10**9: 24, 10**12: 7 * 24}, abs=0.01)


def test_a_backup_of_the_future_is_not_the_newest():
    there = [
        {"path": moment, "time": moment, "database": database}
        for moment, database in (
            ("2999-01-01T00:00:00Z", "immich"),
            ("2026-11-02T00:00:00Z", "photos"),
            ("2026-11-01T00:00:00Z", None),
            ("2026-10-31T00:00:00Z", "immich"),
        )
    ]
    assert backup_file.newest(there, "immich") == "2026-11-01T00:00:00Z"
    del there[1:]
    with pytest.raises(CommandExecutionError, match="There is no backup yet"):
        backup_file.newest(there, "immich")


def test_a_restore_without_the_library_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(immich, "__salt__", {}, raising=False)
    monkeypatch.setattr(immich, "__opts__", {"test": False, "id": "photos.example.org"}, raising=False)
    for function, arguments in ((immich.restore, [PATH]), (immich.restore_drill, []), (immich.restore_recover, [])):
        with pytest.raises(CommandExecutionError, match="is psycopg2 in Salt's Python"):
            function(*arguments)


def test_a_lock_that_cannot_be_taken_refuses_before_anything(monkeypatch, tmp_path):
    (tmp_path / "run").write_text("a file where the lock's folder should be")
    monkeypatch.setattr(lock, "held", functools.partial(lock.held, path=str(tmp_path / "run/lock")))
    monkeypatch.setattr(lock, "under_way", lambda: None)
    with pytest.raises(CommandExecutionError, match=rf"^Nothing was changed\.\n.*{tmp_path}/run"):
        immich._locked("restore").__enter__()
    with pytest.raises(CommandExecutionError, match=f"{tmp_path}/run"):
        immich.backup()


def test_an_error_under_the_lock_does_not_claim_that_nothing_was_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "held", functools.partial(lock.held, path=str(tmp_path / "lock")))
    with pytest.raises(BlockingIOError, match="gone"), immich._locked("restore"):
        raise BlockingIOError("gone")


def learning(why):
    seen = f"The server does not reach http://immich-machine-learning:3003/ping: {why}"
    return findings.finding("machine-learning-silent", "machine learning", seen, "podman logs immich-machine-learning")


def absent(extension):
    return findings.finding("postgres-extension-absent", "database", f"The extension {extension} is not there")


OUTDATED = findings.finding("postgres-extension-outdated", "database", "The extension vector has version 0.8")
UNREACHABLE = CommandExecutionError("Cannot connect to PostgreSQL")


def verified_by(*answers):
    """Verifications of the application and of PostgreSQL, in turns: each returns what is found, or raises."""
    turns = iter(answers)

    def verify(_settings, **_):
        answer = next(turns)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {"immich_app.verify": verify, "immich_postgres.verify": verify, "systemd_unit.call": lambda *_: ""}


@pytest.mark.parametrize(
    ("before", "after", "trouble"),
    (
        # The same fault in the words of another error: asked without patience before.
        (([learning("Connection refused")], []), ([learning("timed out")], []), []),
        (([], []), ([learning("timed out")], []), [learning("timed out")]),
        (([], [OUTDATED]), ([], [OUTDATED, OUTDATED]), [OUTDATED]),
        (([], UNREACHABLE), ([], [OUTDATED]), [OUTDATED]),
        # Of the same kind, and another one.
        (([], [absent("cube")]), ([], [absent("vector")]), [absent("vector")]),
        (([], []), ([], UNREACHABLE), [findings.not_verified("immich_postgres", UNREACHABLE)]),
    ),
)
def test_a_restore_is_reverted_for_new_faults_alone(before, after, trouble):
    target = Target({}, salt=verified_by(*before, *after), pillar={}, minion="x")
    assert swap.start_and_verify(target, swap.broken(target, patience=0)) == trouble


@pytest.fixture
def lines(monkeypatch):
    """What is told, each line at once."""
    told = []
    monkeypatch.setattr(reporting, "say", told.append)
    monkeypatch.setattr(reporting.progress, "now_and_then", lambda _tag: told.append)
    return told


def test_how_far_a_restore_is_is_told_in_rows_and_then_in_indexes(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now[0])
    restoring = reporting.Restoring({"tables": {"public.face_search": 4000}, "size": 40 * 1024**2})

    def at_work(seconds, *what):
        now[0] = 100.0 + seconds
        restoring.watch([dict(zip(("what", "pid", "id", "name", "done"), each)) for each in what])
        return lines[-1]

    first, second = (("copy", pid, pid + 10, "public.t", 5 * 1024**2) for pid in (1, 2))
    assert at_work(2, first, second).startswith("Restoring: 10.0 MB of 40.0 MB, 25 %, 5.0 MB/s, 2 s, about 6 s left")
    # What is through counts on.
    assert at_work(4, ("copy", 3, 13, "public.u", 10 * 1024**2)).startswith("Restoring: 20.0 MB of 40.0 MB, 50 %")
    restoring.doing('creating INDEX "public.face_index"')
    assert lines[-1] == "Restoring: building the indexes"
    at_work(10, ("index", 1, 99, "public.face_search", 0))
    told = at_work(20, ("index", 1, 99, "public.face_search", 1000))
    assert told == "Restoring: index of public.face_search, rows 1000 of 4000, 25 %, 100/s, 10 s, about 30 s left"
    assert at_work(21, ("index", 1, 77, "x\x1b[2J", 10)).isprintable()
