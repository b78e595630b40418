"""Names of backups, and which of them are kept; and that the programs on the host have what they import."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from immich_core import backups, own_files

REPO = Path(__file__).resolve().parents[2]
NOW = 1_795_552_200  # 2026-11-24T20:30:00Z


@pytest.mark.parametrize(
    ("name", "said"),
    (
        ("immich_20261124T203000Z_v3.3.1_immich.dump", (NOW, "v3.3.1", "immich", False)),
        ("immich_20261124T203000Z_unknown_my_own-db.empty.dump", (NOW, "unknown", "my_own-db", True)),
        ("immich_20261124T203000Z_v3.3.1.dump", (NOW, "v3.3.1", None, False)),
        ("immich_20261131T203000Z_v3.3.1_immich.dump", None),
        ("immich_20261124T203000Z_v3.3.1_my.db.dump", None),
        ("immich_20261124T203000Z_v3.3.1_immich.dump.sha256", None),
        ("my own.dump", None),
    ),
)
def test_what_a_name_says(name, said):
    found = backups.parsed(name)
    assert (found and (found["moment"], found["version"], found["database"], found["empty"])) == said
    if said and said[2]:
        assert backups.name(found["stamp"], said[1], said[2], used=not said[3]) == name


def listed(*ages, **options):
    """Backups of some days ago."""
    there = [{"name": str(age), "time": backups.iso(NOW - age * 86400), "database": "immich"} for age in ages]
    return [{**each, "empty": False, **options} for each in there]


@pytest.mark.parametrize(
    ("ages", "newest", "keep", "keep_days", "gone"),
    (
        ((0, 1, 2, 3), "0", 2, 0, ["2", "3"]),
        ((0, 1, 2, 30), "0", 14, 7, ["30"]),
        ((0, 1, 2, 30), "0", 1, 7, ["1", "2", "30"]),
        # One of the future was there, and the one just made is older.
        ((-400, 0, 1), "0", 1, 1, ["1"]),
        ((90,), "90", 1, 7, []),
        ((90, 91), "91", 1, 7, []),
    ),
)
def test_which_backups_are_no_longer_kept(ages, newest, keep, keep_days, gone):
    assert [each["name"] for each in backups.expired(listed(*ages), newest, keep, keep_days, NOW)] == gone


def test_a_backup_takes_the_place_of_those_that_are_like_it():
    there = [*listed(0), *listed(1, database=None), *listed(2, database="photos"), *listed(3, empty=True)]
    assert [each["name"] for each in backups.alike(there, "immich", False)] == ["0", "1"]
    assert [each["name"] for each in backups.alike(there, "immich", True)] == ["3"]


def test_a_table_that_got_another_file_has_moved():
    looks = [{"public.a": "1", "public.b": "2", "public.c": "3"}, {"public.a": "1", "public.b": "4"}]
    assert backups.moved(looks) == ["public.b"]
    assert backups.at_each(looks) == {"public.a", "public.b"}


@pytest.mark.parametrize(
    "program", ("app/files/immich-stack", "backup/files/immich-backup", "backup/files/immich-library-backup")
)
def test_the_programs_have_all_that_they_import(tmp_path, program):
    for name in own_files.LIBRARY:
        copy = tmp_path / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / f"_utils/{name}.py", copy)
    shutil.copy(REPO / "immich" / program, tmp_path / "program")
    subprocess.run([sys.executable, tmp_path / "program", "--help"], env={}, stdout=subprocess.DEVNULL, check=True)


def test_the_database_before_a_restore_is_known_by_its_name():
    names = [
        "immich",
        "immich_before_20261124T203000Z",
        "immich_kept_20261125T203000Z",
        "immich2_before_20261126T203000Z",
    ]
    assert backups.former("immich", names) == ("immich_before_20261124T203000Z", "20261124T203000Z")
    assert backups.former("photos", names) is None
