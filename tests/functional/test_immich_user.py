"""As whom the containers run, and what becomes of files when that changes: on real files, as root."""

import grp
import os
import pwd
import stat
from functools import partial

import pytest

from immich_core import container_users
from immich_host import identity
from immich_io import host_users, owners

OWN = 60883
PAIR = f"{OWN}:{OWN}"


def folder(path, owner=0, files=()):
    path.mkdir()
    os.chown(path, owner, owner)
    for name in files:
        (path / name).mkdir() if name == "lost+found" else (path / name).write_text(name)
    return str(path)


# What is there, what the pillar says and who was the user before; and who it is.
DECISIONS = {
    "nothing is there": (None, None, None, PAIR),
    "an empty folder of root's": ((0, ()), None, None, PAIR),
    "a file system that was just made": ((0, ("lost+found",)), None, None, PAIR),
    "made by a run that ended early": ((OWN, ()), None, None, PAIR),
    "an empty folder of somebody's": ((1000, ()), None, None, "1000:1000"),
    "photos of root's": ((0, ("upload",)), None, None, "0:0"),
    "photos of somebody's": ((1000, ("upload",)), None, None, "1000:1000"),
    "an installation with root": ((1000, ("upload",)), None, "0:0", "0:0"),
    "an installation that is being migrated": ((0, ("upload",)), None, "0:0, partly 7:7", "0:0"),
    "own": ((0, ("upload",)), "own", "0:0", PAIR),
    "root": (None, "root", PAIR, "0:0"),
    "numbers": (None, "02000:3000", PAIR, "2000:3000"),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_the_user_is_who_it_was_or_who_owns_the_folder_or_the_formulas_own(tmp_path, case):
    there, said, former, expected = DECISIONS[case]
    path = str(tmp_path / "photos") if there is None else folder(tmp_path / "photos", *there)
    assert container_users.decided(said, OWN, partial(host_users.owner, path), former) == expected


def test_whose_a_folder_is_root_need_not_be_let_in_to_know(tmp_path, monkeypatch):
    """As on a network share with root_squash, which no test host has: everywhere else root may list every folder."""

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    path = folder(tmp_path / "photos", 1000, ("upload",))
    monkeypatch.setattr(os, "listdir", refused)
    assert host_users.owner(path) == "1000:1000"
    assert container_users.decided(None, OWN, partial(host_users.owner, path), None) == "1000:1000"


def test_the_settings_say_the_user_of_the_record(modules, settings, loaders, monkeypatch):
    assert (settings["server"]["user"], settings["machine_learning"]["user"]) == (PAIR, "60884:60884")
    loaders.context.clear()
    monkeypatch.setattr(identity, "known", lambda directory=None: {"server_user": "0:0"})
    found = modules.immich_settings.get()
    assert (found["server"]["user"], found["machine_learning"]["user"]) == ("0:0", "60884:60884")


def test_root_owns_files_by_name():
    """Salt's file states take `user: 0` for nothing said: a file of another owner stayed unreadable."""
    assert container_users.numbers("0:0") == {"user": "root", "group": "root"}
    assert container_users.numbers("2000:3000, partly 7:7") == {"user": 2000, "group": 3000}


@pytest.fixture
def accounts():
    """Makes users of this host, and takes them away again."""
    made = []

    def make(name, number):
        made.append(name)
        os.system(f"groupadd -g {number} {name} && useradd -r -M -u {number} -g {number} {name} 2>/dev/null")

    yield make
    for name in made:
        os.system(f"userdel {name} 2>/dev/null; groupdel {name} 2>/dev/null")


def test_a_name_or_a_number_of_somebody_elses_is_in_the_way(settings, accounts):
    assert host_users.obstacles(settings) == []
    accounts("immich-server", 60999)
    accounts("photographer", 60884)
    assert [each["path"] for each in host_users.obstacles(settings)] == [
        *["immich:server:own_user:name"] * 2,
        *["immich:machine_learning:own_user:id"] * 2,
    ]
    for part in ("server", "machine_learning"):
        settings[part]["user"] = "0:0"
    assert host_users.obstacles(settings) == []


def test_an_account_is_made_and_removed_as_the_dry_run_says(states, accounts, testmode):
    name, number = "immich-tried", 60998
    made = states.immich_system_user.present(name, number, test=testmode)
    assert (made.result, made.changes) == (None if testmode else True, {name: {"old": None, "new": number}})
    if testmode:
        assert name not in {each.pw_name for each in pwd.getpwall()}
        accounts(name, number)
    held = pwd.getpwnam(name)
    assert (held.pw_uid, held.pw_gid, grp.getgrnam(name).gr_gid) == (number, number, number)
    assert testmode or (held.pw_dir, held.pw_shell) == ("/nonexistent", "/usr/sbin/nologin")
    assert states.immich_system_user.present(name, number).changes == {}
    # Of the same name, and somebody else's.
    assert states.immich_system_user.absent(name, number + 1).changes == {}
    gone = states.immich_system_user.absent(name, number, test=testmode)
    assert (gone.result, gone.changes) == (None if testmode else True, {name: {"old": number, "new": None}})
    assert (name in {each.gr_name for each in grp.getgrall()}) is testmode
    states.immich_system_user.absent(name, number)
    assert states.immich_system_user.absent(name, number).changes == {}


@pytest.fixture
def library(tmp_path):
    """A folder with what a container could leave in it, and something outside that must stay root's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("root's")
    path = tmp_path / "library"
    (path / "upload").mkdir(parents=True)
    (path / "upload/a.jpg").write_text("photo")
    (path / "upload" / os.fsdecode(b"\xff\n")).write_text("photo")
    (path / "upload/shell").write_text("shell")
    (path / "upload/shell").chmod(0o4755)
    (path / "upload").chmod(0o2755)
    (path / "file").symlink_to(tmp_path / "outside/file")
    (path / "folder").symlink_to(tmp_path / "outside")
    os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return path


def owners_of(path):
    return {each.lstat().st_uid for each in (path, *path.rglob("*"))}


def test_a_folder_is_given_to_another_user_and_nothing_else_is(library, tmp_path):
    assert owners.count(str(library), PAIR) == 7
    assert owners.change_owner(str(library), PAIR) == 7
    assert owners_of(library / "upload") == {OWN}
    assert {name: (library / name).lstat().st_uid for name in ("file", "folder", "null")} == {
        "file": OWN,
        "folder": OWN,
        "null": 0,
    }
    assert owners_of(tmp_path / "outside") == {0}
    assert stat.S_IMODE((library / "upload/shell").stat().st_mode) == 0o755
    assert stat.S_IMODE((library / "upload").stat().st_mode) == 0o2755
    # A setuid file of the right owner loses its bit, too.
    (library / "upload/shell").chmod(0o4755)
    assert owners.change_owner(str(library), PAIR) == 1
    assert owners.count(str(library), PAIR) == 0
    assert owners.change_owner(str(library), "0:0") == 7
    assert owners_of(library) == {0}


def test_a_run_that_was_cut_is_taken_up(library, monkeypatch):
    """The folder itself comes last, so that its owner tells whether all have changed."""
    chown, calls = os.chown, []

    def dies(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise OSError("killed")
        chown(*args, **kwargs)

    monkeypatch.setattr(os, "chown", dies)
    with pytest.raises(OSError, match="killed"):
        owners.change_owner(str(library), PAIR)
    assert library.stat().st_uid == 0
    assert owners.change_owner(str(library), PAIR) == 4


def test_what_is_mounted_below_stays_and_is_told(library, tmp_path):
    point = library / "thumbs \\1"
    point.mkdir()
    assert os.system(f"mount --bind '{tmp_path}/outside' '{point}'") == 0
    try:
        assert owners.mounts_of_others(str(library), PAIR) == [str(point)]
        assert owners.mounts_of_others(str(library), "0:0") == []
        owners.change_owner(str(library), PAIR)
        assert owners_of(tmp_path / "outside") == {0}
    finally:
        os.system(f"umount '{point}'")


def test_directories_without_end_are_refused_and_not_followed(tmp_path):
    top = os.open(folder(tmp_path / "library"), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=top)
        below = os.open("d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    os.close(top)
    with pytest.raises(OSError, match="nested more than 100 directories deep"):
        owners.change_owner(str(tmp_path / "library"), PAIR)
    assert os.system(f"rm -rf {tmp_path}/library") == 0


def test_a_folder_is_open_where_somebody_gets_to_it_and_its_programs_run(tmp_path):
    """On a file system of its own: /tmp may be mounted with nosuid."""
    top = tmp_path / "disk"
    top.mkdir()
    for each in top.parents:
        each.chmod(each.stat().st_mode | 0o001)
    assert os.system(f"mount -t tmpfs -o mode=0755 tmpfs {top}") == 0
    try:
        (top / "photos").mkdir()
        path = str(top / "photos")
        assert owners.open_to_others(path)
        top.chmod(0o750)
        assert not owners.open_to_others(path)
        top.chmod(0o755)
        (top / "photos").chmod(0o750)
        assert not owners.open_to_others(path)
        # A share of a group's, and a folder of somebody's own; what is root's alone is closed.
        for owner, group, mode, expected in (
            (0, 1000, 0o750, True),
            (0, 1000, 0o740, False),
            (1000, 0, 0o770, True),
            (1000, 0, 0o670, False),
            (0, 0, 0o770, False),
        ):
            os.chown(path, owner, group)
            os.chmod(path, mode)
            assert owners.open_to_others(path) is expected, (owner, group, mode)
        os.chmod(path, 0o755)
        os.chown(top, 1000, 1000)
        top.chmod(0o700)
        assert owners.open_to_others(path)
        assert not owners.open_to_others(f"{path}/gone")
        assert os.system(f"mount -o remount,nosuid {top}") == 0
        assert not owners.open_to_others(path)
    finally:
        os.system(f"umount {top}")


def test_an_empty_folder_of_roots_is_given_to_the_containers_user(states, tmp_path, testmode):
    made, used = folder(tmp_path / "made"), folder(tmp_path / "used", files=["a"])
    changed = states.immich_folder.present(made, user=OWN, group=OWN, test=testmode)
    assert (changed.result, changed.changes) == (
        None if testmode else True,
        {"owner": {"old": "root", "new": PAIR}},
    )
    assert os.stat(made).st_uid == (0 if testmode else OWN)
    assert states.immich_folder.present(used, user=OWN, group=OWN).changes == {}
    states.immich_folder.present(made, user=OWN, group=OWN)
    assert states.immich_folder.present(made, user=OWN, group=OWN).changes == {}


def test_a_new_folder_is_the_containers_and_the_way_to_it_roots(states, tmp_path):
    path = tmp_path / "a/b/photos"
    assert states.immich_folder.present(str(path), user=OWN, group="root").result
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (OWN, 0, 0o750)
    assert (path.parent.stat().st_uid, stat.S_IMODE(path.parent.parent.stat().st_mode)) == (0, 0o755)
