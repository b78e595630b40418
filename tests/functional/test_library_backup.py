"""The program that backs up the library, with this release's restic and a repository in a folder."""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DUMP = "immich_20261124T203000Z_v3.3.1_immich.dump"
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
# What restic is called for by a run that checks the repository.
STEPS = ["cat", "unlock", "snapshots", "backup", "ls", "forget", "prune", "check", "snapshots"]
EMPTY = "immich_20261125T203000Z_v3.3.1_immich.empty.dump"
# The program as it is, with all its places below one folder.
PROGRAM = """
import importlib.machinery, importlib.util, sys
folder, repo = sys.argv[1:3]
sys.path.insert(0, repo + "/_utils")
from immich_core import library_backups
from immich_io import backup_files, library_backup_files, lock
for name in ("CONFIG", "PASSWORD", "ENVIRONMENT", "TREE"):
    setattr(library_backups, name, folder + "/" + name.lower())
library_backup_files.STATUS, library_backup_files.RECORD = folder + "/status", folder + "/record"
library_backup_files.RESTORE_STATUS = folder + "/restoring"
backup_files.STATUS = folder + "/dumped"
loader = importlib.machinery.SourceFileLoader("program", repo + "/immich/backup/files/immich-library-backup")
program = importlib.util.module_from_spec(importlib.util.spec_from_loader("program", loader))
loader.exec_module(program)
sys.argv[1:] = sys.argv[3:]
sys.exit(program.main())
"""


class Backup:
    """A library with a dump, and the program beside them."""

    def __init__(self, folder):
        self.folder = folder
        self.library = folder / "tree/library"
        self.dumps = folder / "tree/database"
        for path in ("upload/a", "thumbs", "library/thumbs"):
            (self.library / path).mkdir(parents=True)
        self.dumps.mkdir()
        for name in (DUMP, f"{DUMP}.sha256"):
            (self.dumps / name).write_text(name, encoding="ascii")
        self.files = {}
        for number, path in enumerate(("upload/a/b.jpg", "upload/a/[1]* ?.jpg", "library/thumbs/é\\n.jpg")):
            self.upload(path, os.urandom(50_000 + number))
        for path in ("thumbs/.immich", "thumbs/a.webp", "upload/.immich"):
            (self.library / path).write_text(path, encoding="ascii")
        (folder / "password").write_text("a password of this test\n", encoding="ascii")
        (folder / "environment").write_text("{}", encoding="ascii")
        self.configure()

    def upload(self, path, content):
        (self.library / path).write_bytes(content)
        self.files[path] = hashlib.sha1(content).hexdigest()

    def configure(self, **changes):
        config = {
            "repository": str(self.folder / "repository"),
            "host": "photos",
            "database": "immich",
            "bandwidth": None,
        }
        config |= {"exclude": ["thumbs"], "external": [], "keep": {"daily": 7}, "check_weeks": 2, **changes}
        (self.folder / "config").write_text(json.dumps(config), encoding="utf8")

    def start(self, *words, **kwargs):
        command = [sys.executable, "-c", PROGRAM, self.folder, REPO, *words]
        environment = {**os.environ, "CACHE_DIRECTORY": str(self.folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **kwargs)

    def call(self, *words, given=None):
        """Exit code, output and errors."""
        process = self.start(*words, stdin=subprocess.PIPE)
        out, errors = process.communicate(given)
        return process.returncode, out.decode(), errors.decode()

    def made(self, *words, given=None):
        code, out, errors = self.call(*words, given=given)
        assert code == 0, errors
        return out

    def refused(self, *words):
        code, _, errors = self.call(*words)
        assert code == 1, errors
        return errors.splitlines()[-1]

    def run(self):
        self.made("run")
        return self.status()["result"]

    def status(self):
        return json.loads((self.folder / "status").read_text(encoding="utf8"))

    def compare(self, snapshot, assets, *words):
        given = json.dumps(sorted(assets.items())).encode()
        scratch = self.folder / "scratch"
        try:
            return json.loads(self.made("compare", snapshot, str(scratch), *words, given=given))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def in_the_middle(self):
        """A run that takes a minute, while it uploads."""
        self.upload(f"upload/a/{time.monotonic_ns()}", os.urandom(3_000_000))
        self.configure(bandwidth=50)
        (self.folder / "status").write_text("{}", encoding="ascii")
        process = self.start("run")
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not ("backing up" in str(self.status()) and self.locks()):
            time.sleep(0.1)
        self.configure()
        return process

    @contextlib.contextmanager
    def with_restic(self, script):
        """Another restic, which has done what a shell script does when it becomes the one of the release."""
        wrapper = self.folder / "bin/restic"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("restic")} "$@"\n', encoding="ascii")
        wrapper.chmod(0o755)
        os.environ["PATH"], path = f"{wrapper.parent}:{os.environ['PATH']}", os.environ["PATH"]
        try:
            yield
        finally:
            os.environ["PATH"] = path

    def locks(self):
        return os.listdir(self.folder / "repository/locks")


@pytest.fixture(scope="module", autouse=True)
def restic():
    if not shutil.which("restic"):
        subprocess.run(["apt-get", "-qq", "install", "restic"], stdout=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    """One story: what each test leaves is what the next finds."""
    backup = Backup(tmp_path_factory.mktemp("backup"))
    backup.run()
    return backup


@contextlib.contextmanager
def file_system(folder):
    """A small file system at a folder, and a function that makes it larger."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def newest(backup):
    return json.loads(backup.made("list"))[0]["id"]


def test_a_snapshot_holds_both_halves_and_not_what_is_excluded(backup):
    made = backup.run()
    assert made["files"] == len(backup.files) + 4, "with two markers and two files of the dump"
    assert made["added"] < 10_000, "nothing was read again"
    assert backup.made("dump", newest(backup), DUMP) == DUMP
    assert "not the name of a dump" in backup.refused("dump", newest(backup), "../../password")


def test_it_is_compared_with_a_database(backup):
    for words in (("--sample", "10"), ()):
        answer = backup.compare(newest(backup), backup.files, *words)
        whole = {"files": 3, "compared": 3, "missing": [], "changed": [], "orphaned": [], "orphans": 0}
        assert answer == whole
        assets = {**backup.files, "upload/a/gone.jpg": "0" * 40, "upload/a/[1]* ?.jpg": "1" * 40}
        del assets["upload/a/b.jpg"]
        answer = backup.compare(newest(backup), assets, *words)
        assert answer["missing"] == ["upload/a/gone.jpg"]
        assert answer["changed"] == ["upload/a/[1]* ?.jpg"]
        assert answer["orphaned"] == ["upload/a/b.jpg"]


def test_what_is_missing_or_differs_is_restored_and_what_is_new_stays(backup):
    first, second = (backup.library / path for path in list(backup.files)[:2])
    kept = second.read_bytes()
    first.unlink()
    second.write_bytes(b"changed")
    # A full disk or a failing one can leave a file of the right size and time.
    third = backup.library / list(backup.files)[2]
    former = third.stat()
    third.write_bytes(bytes(former.st_size))
    os.utime(third, ns=(former.st_atime_ns, former.st_mtime_ns))
    (backup.library / "upload/new").touch()
    backup.made("restore", newest(backup))
    assert second.read_bytes() == kept
    assert hashlib.sha1(first.read_bytes()).hexdigest() == backup.files["upload/a/b.jpg"]
    assert hashlib.sha1(third.read_bytes()).hexdigest() == list(backup.files.values())[2]
    assert (backup.library / "upload/new").exists()
    # A file that is damaged has its size: only a restic that has come to its end has found it.
    cut = 'for word; do [ "$word" != restore ] || { echo "Fatal: connection lost" >&2; exit 1; }; done'
    with backup.with_restic(cut):
        assert "connection lost" in backup.refused("restore", newest(backup))


def test_a_killed_run_is_completed_by_the_next_and_a_stopped_one_leaves_no_lock(backup):
    # Whoever reaps restic is this process: what is left of it would keep its lock from being one of the dead.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    process = backup.in_the_middle()
    restic = int(subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, check=True).stdout)
    process.kill()
    process.wait()
    os.kill(restic, signal.SIGKILL)
    os.waitpid(restic, 0)
    dead = set(backup.locks())
    process = backup.in_the_middle()
    held = set(backup.locks())
    assert dead
    assert not dead & held
    assert "already locked" in backup.refused("run"), "by a process that is alive"
    assert held <= set(backup.locks())
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 1
    assert backup.status()["error"] == "it was stopped"
    assert backup.locks() == []
    backup.run()
    assert backup.compare(newest(backup), backup.files)["changed"] == []


@pytest.mark.once
def test_one_that_is_killed_between_its_steps_is_completed_by_the_next(backup):
    record = json.loads((backup.folder / "record").read_text(encoding="utf8"))
    (backup.folder / "record").write_text(json.dumps({**record, "checked": 0}), encoding="utf8")
    count = backup.folder / "count"
    script = f'echo "$1" >>{count}; [ "$(wc -l <{count})" = "$(cat {backup.folder}/step)" ] && kill -9 $PPID && exit 1'
    # The snapshot is made, old ones are forgotten, the repository is checked.
    for step in ("ls", "prune", "snapshots", None):
        backup.upload(f"upload/a/{step}.jpg", os.urandom(1000))
        (backup.folder / "step").write_text(str(STEPS.index(step, 4) + 1 if step else 0), encoding="ascii")
        count.unlink(missing_ok=True)
        with backup.with_restic(script):
            code, _, errors = backup.call("run")
        assert code == (-signal.SIGKILL if step else 0), errors
    assert count.read_text(encoding="ascii").split() == STEPS
    answer = backup.compare(newest(backup), backup.files)
    assert (answer["missing"], answer["changed"], backup.locks()) == ([], [], [])


def test_a_full_disk_fails_and_is_continued_when_there_is_room(backup):
    """That of the repository, and at a restore that of the library."""
    full = backup.folder / "full"
    full.mkdir()
    backup.upload("upload/a/large.jpg", os.urandom(3_000_000))
    with file_system(full) as grow:
        backup.configure(repository=str(full / "repository"))
        assert "no space left" in backup.refused("run")
        grow()
        backup.run()
        with file_system(backup.library) as grow_library:
            said = backup.refused("restore", newest(backup))
            assert "files were not restored: library/" in said
            assert "no space left on device" in said
            grow_library()
            backup.made("restore", newest(backup))
            found = {path: hashlib.sha1((backup.library / path).read_bytes()).hexdigest() for path in backup.files}
    assert found == backup.files
    backup.configure()


def test_external_libraries_are_in_the_snapshot_on_request(backup):
    name = "external/mnt/a [1]"
    folder = backup.library.parent / name
    folder.mkdir(parents=True)
    (folder / "c.jpg").write_text("c", encoding="ascii")
    backup.configure(external=[name, "external/mnt/unplugged"])
    assert backup.refused("run").endswith("the snapshot lacks them: external/mnt/unplugged")
    assert "no directory for external/mnt/unplugged" in backup.refused("restore", newest(backup))
    backup.configure(external=[name])
    answer = backup.compare(newest(backup), {**backup.files, f"{name}/c.jpg": None, f"{name}/gone.jpg": None})
    assert (answer["external"], answer["external_missing"]) == (2, [f"{name}/gone.jpg"])
    assert (answer["missing"], answer["changed"]) == ([], [])
    (folder / "c.jpg").unlink()
    backup.made("restore", newest(backup))
    assert (folder / "c.jpg").read_text(encoding="ascii") == "c"
    backup.configure()


def test_what_a_container_can_leave_there_does_not_stop_it(backup):
    """Links to anywhere, pipes, names of any bytes, and folders that are deeper than a path is long."""
    folder = backup.library / "upload/odd"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/shadow")
    os.mkfifo(folder / "fifo")
    Path(os.fsdecode(bytes(folder) + b"/\xff\x1b[2J\n")).touch()
    (folder / "setuid").touch(mode=0o4755)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(45):
        os.mkdir("d" * 100, dir_fd=here)
        here = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
    backup.run()
    for _ in range(2):
        backup.made("restore", newest(backup))
        assert os.readlink(folder / "link") == "/etc/shadow"
    shutil.rmtree(folder)
    # A file that is not restored counts, whatever else is not.
    original = backup.library / "upload/a/b.jpg"
    original.rename(backup.folder / "b.jpg")
    (original / "in the way").mkdir(parents=True)
    assert "files were not restored: library/upload/a/b.jpg" in backup.refused("restore", newest(backup))
    shutil.rmtree(original)
    (backup.folder / "b.jpg").rename(original)


def test_a_file_that_cannot_be_read_is_named(backup):
    """Root can read any: here restic reports an error that it did not have, and one of a file that is gone by now."""
    lost = "upload/a/b.jpg"
    error = json.dumps({"message_type": "error", "error": {}, "during": "archival", "item": f"library/{lost}"})
    gone = error.replace(lost, "upload/a/gone.jpg")
    lines = f"for word; do case $word in backup) echo '{gone}' >&2; echo '{error}' >&2;; esac; done"
    with backup.with_restic(lines):
        said = backup.refused("run")
    assert said.endswith(f"the snapshot lacks them: library/{lost}")


def test_another_repository_or_none_is_not_begun_anew(backup):
    repository = backup.folder / "repository"
    repository.rename(backup.folder / "elsewhere")
    assert "is gone" in backup.refused("run")
    backup.configure(repository=str(backup.folder / "second"))
    backup.run()
    (backup.folder / "second").rename(repository)
    backup.configure()
    record = json.loads((backup.folder / "record").read_text(encoding="utf8"))
    (backup.folder / "record").write_text(json.dumps({**record, "address": str(repository), "repository": "0" * 64}))
    assert "is another one than that of the last backup" in backup.refused("run")
    shutil.rmtree(repository)
    (backup.folder / "elsewhere").rename(repository)
    (backup.folder / "record").unlink()
    backup.run()
    (backup.folder / "password").write_text("another password\n", encoding="ascii")
    assert "wrong password" in backup.refused("run")
    (backup.folder / "password").write_text("a password of this test\n", encoding="ascii")


def test_a_database_without_users_makes_no_snapshot(backup):
    before = newest(backup)
    for name in (EMPTY, f"{EMPTY}.sha256"):
        (backup.dumps / name).write_text(name, encoding="ascii")
    assert f"immich.restore {DUMP}" in backup.refused("run")
    assert newest(backup) == before
    backup.configure(repository=str(backup.folder / "third"))
    assert "no users" in backup.run()["skipped"]
