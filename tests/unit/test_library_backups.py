"""What a snapshot of the library holds, which command makes it, and how it compares with a database."""

import calendar

import pytest

from immich_core import library_backups
from immich_core.backups import CHECKSUM

DUMP, OLDER = "immich_20261124T203000Z_v3.3.1_immich.dump", "immich_20261123T203000Z_v3.3.0_immich.dump"
EMPTY = "immich_20261125T203000Z_v3.3.1_immich.empty.dump"
CONFIG = {
    "host": "photos.example.org",
    "bandwidth": None,
    "external": [],
    "keep": {"daily": 7, "weekly": None, "yearly": 0},
}


def listed(dump, digit, **more):
    """One of what `restic snapshots --json` prints."""
    tags = [library_backups.TAG, dump]
    return {"id": digit * 64, "time": "2026-11-24T21:30:05.5+01:00", "hostname": "h", "tags": tags, **more}


@pytest.mark.parametrize(
    ("repository", "path"),
    (
        ("/mnt/usb//immich/", "/mnt/usb/immich"),
        ("local:/mnt/usb", "/mnt/usb"),
        ("sftp:backup@nas:/srv", None),
        ("s3:https://s3.example.org/photos", None),
    ),
)
def test_which_repository_is_on_this_host(repository, path):
    assert library_backups.local_path(repository) == path


@pytest.mark.parametrize(
    ("repository", "goes_to"),
    (
        ("sftp:backup@nas.example.org:/srv/immich", "backup@nas.example.org"),
        ("sftp:nas:immich", "nas"),
        ("sftp://backup@nas.example.org:2222//srv/immich", "-p 2222 backup@nas.example.org"),
        ("sftp://backup@[2001:db8::7]:2222/immich", "-p 2222 backup@2001:db8::7"),
    ),
)
def test_ssh_asks_nobody_and_trusts_no_unknown_host(repository, goes_to):
    assert library_backups.sftp_command(repository) == f"ssh -F {library_backups.SSH_CONFIG} {goes_to} -s sftp"
    text = library_backups.ssh_config(key=True, known_hosts=False)
    assert "BatchMode yes\nStrictHostKeyChecking yes\n" in text
    assert "IdentityFile" in text
    assert "UserKnownHostsFile" not in text


@pytest.mark.parametrize("repository", ("/srv/a", "s3:https://s3.example.org/a", "sftp:nas", "sftp://nas"))
def test_other_repositories_need_no_ssh(repository):
    assert library_backups.sftp_command(repository) is None


def test_a_rest_server_gets_its_login_in_the_way_that_every_restic_knows():
    login = {"RESTIC_REST_USERNAME": "ana", "RESTIC_REST_PASSWORD": "p@ss:w/ö"}
    assert (
        library_backups.with_login("rest:https://nas:8000/a/", login)
        == "rest:https://ana:p%40ss%3Aw%2F%C3%B6@nas:8000/a/"
    )
    assert library_backups.with_login("rest:https://nas:8000/a/", {}) == "rest:https://nas:8000/a/"
    assert library_backups.with_login("/srv/a", login) == "/srv/a"


def test_no_variable_takes_restic_elsewhere():
    refused = ("RESTIC_REPOSITORY", "RESTIC_PASSWORD_COMMAND", "PATH", "LD_PRELOAD", "HOME")
    assert all(map(library_backups.OWN_VARIABLES.fullmatch, refused))
    assert not any(map(library_backups.OWN_VARIABLES.fullmatch, ("AWS_ACCESS_KEY_ID", "RESTIC_REST_USERNAME")))


def test_the_dump_comes_first_and_the_parent_is_named():
    words = library_backups.backup_words(CONFIG, DUMP, "a" * 64)
    assert words[-3:] == [f"database/{DUMP}", f"database/{DUMP}{CHECKSUM}", "library"]
    assert words[words.index("--parent") + 1] == "a" * 64
    assert [words[index + 1] for index, word in enumerate(words) if word == "--tag"] == [library_backups.TAG, DUMP]
    assert "--force" in library_backups.backup_words({**CONFIG, "bandwidth": 100}, DUMP, None)
    more = library_backups.backup_words({**CONFIG, "external": ["external/mnt/a"]}, DUMP, None)
    assert more[-2:] == ["library", "external/mnt/a"]


def test_only_the_folder_itself_is_left_out_and_its_marker_stays():
    """An account with the storage label `thumbs` has its photos in `library/thumbs`."""
    assert library_backups.excludes(["thumbs", "a[1]$/"]) == [
        "/run/immich-library/library/thumbs/*",
        "!/run/immich-library/library/thumbs/.immich",
        r"/run/immich-library/library/a\[1\]$$/*",
        r"!/run/immich-library/library/a\[1\]$$/.immich",
    ]


def test_what_is_kept():
    words = library_backups.forget_words(CONFIG)
    assert words[-4:] == ["--keep-last", "1", "--keep-daily", "7"]
    assert words[words.index("--host") + 1] == "photos.example.org"
    assert library_backups.forget_words({**CONFIG, "keep": {"daily": 0, "weekly": None}}) is None


def test_each_week_another_part_is_read_and_all_of_it_in_time():
    week = library_backups.WEEK
    parts = [library_backups.check_words(4, moment * week + 5)[1] for moment in range(100, 104)]
    assert sorted(parts) == [f"--read-data-subset={number}/4" for number in (1, 2, 3, 4)]
    assert library_backups.is_check_due({}, 5 * week)
    assert library_backups.is_check_due({"checked": 3 * week}, 5 * week)
    assert library_backups.is_check_due({"checked": 9 * week}, 5 * week), "the clock was wrong"
    assert not library_backups.is_check_due({"checked": 4.5 * week}, 5 * week)


def test_of_a_repository_only_the_formulas_own_snapshots_count():
    other = listed(DUMP, "d", tags=["holiday"])
    no_dump = listed(DUMP, "e", tags=[library_backups.TAG])
    summary = {"total_bytes_processed": 5, "total_files_processed": 2}
    found = library_backups.snapshots([other, no_dump, listed(OLDER, "a"), listed(DUMP, "b", summary=summary)])
    assert [(each["id"][0], each["dump"], each["size"]) for each in found] == [("b", DUMP, 5), ("a", OLDER, None)]
    assert found[0]["time"] == "2026-11-24T20:30:05Z"
    assert library_backups.snapshots(None) == []


def test_a_backup_is_found_by_its_name_or_its_snapshot():
    there = library_backups.snapshots([listed(DUMP, "b"), listed(OLDER, "a")])
    assert library_backups.find(there, OLDER)["id"] == "a" * 64
    assert library_backups.find(there, "bbbbbbbb")["dump"] == DUMP
    assert library_backups.find(there, "b") is None


def test_the_newest_of_a_database_that_somebody_uses():
    there = library_backups.snapshots([listed(EMPTY, "c"), listed(DUMP, "b"), listed(OLDER, "a")])
    assert [each["dump"] for each in library_backups.of_database(there, "immich")] == [DUMP, OLDER]
    assert library_backups.of_database(there, "other") == []


def test_both_halves_of_a_backup_are_one_entry():
    local = [{"name": DUMP, "path": f"/var/backups/immich/{DUMP}"}, {"name": EMPTY, "path": "/x"}]
    summary = {"total_bytes_processed": 5000, "total_files_processed": 2}
    there = library_backups.snapshots([listed(DUMP, "b", summary=summary), listed(OLDER, "a")])
    record = {"rate": 1000.0, "last": {"snapshot": "aaaaaaaa", "bytes": 7000, "files": 3}}
    now = calendar.timegm((2026, 11, 25, 8, 0, 0))
    empty, both, remote = library_backups.listed_with(local, there, record, now)
    assert empty["library"] is None
    assert both["library"] == {"snapshot": "bbbbbbbb", "age": 11.5, "size": 5000, "files": 2, "seconds": 5}
    assert (remote["path"], remote["name"], remote["version"], remote["time"]) == (
        None,
        OLDER,
        "v3.3.0",
        "2026-11-23T20:30:00Z",
    )
    assert remote["library"]["seconds"] == 7, "this restic notes no size: what the program has noted of the last one"
    assert library_backups.listed_with(local, there, {}, now)[2]["library"]["seconds"] is None


@pytest.mark.parametrize(
    ("path", "below"),
    (
        ("/data/upload/a/b.jpg", "upload/a/b.jpg"),
        ("/usr/src/app/upload/library/ana/2026/b.jpg", "library/ana/2026/b.jpg"),
        ("/data/upload/../../etc/shadow", None),
        ("/data/thumbs/a.webp", None),
        ("/mnt/photos/a.jpg", None),
        ("upload/a.jpg", None),
    ),
)
def test_where_a_file_of_the_database_is(path, below):
    assert library_backups.in_library(path) == below


@pytest.mark.parametrize(
    ("path", "place"),
    (
        ("/mnt/photos/a/b.jpg", "external/mnt/photos/a/b.jpg"),
        ("/mnt/photos2/a.jpg", None),
        ("/mnt/photos/../../../etc/shadow", None),
        ("/data/upload/a.jpg", None),
    ),
)
def test_where_a_snapshot_has_a_file_of_an_external_library(path, place):
    assert library_backups.in_external(path, ["external/mnt/photos"]) == place
    assert library_backups.in_external(path, []) is None


def test_missing_and_orphaned_files():
    files = {"upload/a.jpg", "upload/b.jpg", "upload/b.jpg.xmp", "upload/.immich", "thumbs/c.webp"}
    found = library_backups.missing_and_orphaned({"upload/a.jpg": "1", "library/d.jpg": "2"}, files)
    assert found == (["library/d.jpg"], ["upload/b.jpg"])


def test_a_file_that_was_deleted_or_moved_before_the_snapshot_is_not_lost():
    assets = {"upload/lost.jpg": "1", "upload/deleted.jpg": "2", "upload/moved.jpg": "3"}
    now = [["upload/lost.jpg", "1"], ["library/moved.jpg", "3"]]
    assert library_backups.explained(list(assets), assets, now, ["library/moved.jpg"]) == (["upload/lost.jpg"], 1, 1)
    assert library_backups.explained(["upload/moved.jpg"], assets, now, []) == (["upload/moved.jpg"], 0, 0)
