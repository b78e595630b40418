"""The lock of backup, restore and update, between real processes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from immich_backup import unit
from immich_io import lock

HOLD = """
import sys
sys.path.insert(0, "/srv/formula/_utils")
from immich_io import lock
options = dict.fromkeys(sys.argv[3:], True)
with lock.held(sys.argv[2], path=sys.argv[1], **options):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run/lock")


@pytest.fixture
def process(path):
    """A function that starts a process which holds the lock until it is told to end, or says why it does not."""
    started = []

    def start(what, *options, at=path):
        one = subprocess.Popen(
            [sys.executable, "-B", "-c", HOLD, at, what, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(one)
        one.said = one.stdout.readline().strip() or one.stderr.read()
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def ended(one):
    one.communicate("\n")
    return one.returncode


def test_the_second_is_told_who_holds_it(process):
    first = process("restore")
    assert first.said == "held"
    assert "Restore under way since 20" in (said := process("update").said)
    assert f"(process {first.pid})" in said
    assert ended(first) == 0
    assert process("update").said == "held"


def test_a_holder_that_was_killed_holds_nothing(process):
    first = process("restore", "lend")
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = process("update")
    assert second.said == "held"
    # What the first has left lends nothing any more.
    assert "Update under way" in process("backup", "borrow").said


def test_only_who_may_borrow_works_under_the_lock_of_another(process):
    process("update", "lend")
    assert "Update under way" in process("backup").said
    assert process("backup", "borrow").said == "held"


def test_a_borrower_keeps_the_lock_when_the_lender_dies(process, path):
    lender = process("update", "lend")
    borrower = process("backup", "borrow")
    lender.kill()
    lender.wait()
    while f'"pid": {borrower.pid}' not in Path(path).read_text(encoding="utf8"):
        time.sleep(0.01)
    assert "Backup under way since" in process("restore").said
    assert ended(borrower) == 0
    assert process("restore").said == "held"


def test_a_run_keeps_it_until_it_is_released(process, path):
    run = {}
    lock.take(run, "update", path)
    lock.take(run, "removal", path)
    assert "Update under way" in process("backup").said
    lock.release(run)
    lock.release(run)
    assert process("backup").said == "held"


def test_who_holds_it_may_take_it_again(path):
    with lock.held("update", path=path):
        with lock.held("backup", lend=True, path=path):
            assert json.loads(Path(path).read_text(encoding="utf8"))["lent"] is True
        record = json.loads(Path(path).read_text(encoding="utf8"))
        assert (record["what"], record["lent"]) == ("update", False)
    assert Path(path).read_text(encoding="utf8") == ""


def test_a_rehearsal_of_a_restore_keeps_no_backup_waiting(modules, process, monkeypatch):
    with lock.held("restore drill", lend=True):  # as the drill does
        backup, update = process("backup", "borrow", at=lock.PATH), process("update", at=lock.PATH)
        ended(backup)  # or it would take the lock over
    assert backup.said == "held"
    assert "Restore drill under way" in update.said
    # What a person types starts the unit then, and does not ask for the lock itself.
    made = modules["immich.backup"]
    monkeypatch.setattr(unit, "run", lambda: "made")
    drill = process("restore drill", "lend", at=lock.PATH)
    assert (drill.said, made()) == ("held", "made")
    ended(drill)
    process("restore", "lend", at=lock.PATH)
    with pytest.raises(CommandExecutionError, match="Restore under way"):
        made()


LOOK = """
import sys
sys.path.insert(0, "/srv/formula/_utils")
from immich_io import lock
print("looking", flush=True)
while True:
    lock.under_way(sys.argv[1])
"""


def test_whoever_only_looks_keeps_nobody_out(path):
    with lock.held("backup", path=path):
        pass
    looking = subprocess.Popen([sys.executable, "-B", "-c", LOOK, path], stdout=subprocess.PIPE, text=True)
    try:
        looking.stdout.readline()
        for _ in range(3000):
            with lock.held("backup", path=path):
                pass
    finally:
        looking.kill()
        looking.communicate()
