"""Programs of the host are run with a deadline and a limit, and fail in one way."""

import os
import signal
import threading
import time

import pytest

from host_core import command, podman, systemctl


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a shell script first in the path of programs, under a name."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def install(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return install


def test_what_a_program_prints_is_returned_without_its_complaints():
    assert command.run(["sh", "-c", "echo warning >&2; echo out; printf '\\344'"]) == "out\n\N{REPLACEMENT CHARACTER}"
    assert command.read(["sh", "-c", "echo out; echo err >&2; exit 3"], 10, 100) == ("out\n", "err\n", 3)
    assert command.read(["sh", "-c", "echo out; echo err >&2"], 10, 100, merged=True) == ("out\nerr\n", "", 0)


@pytest.mark.parametrize(
    ("script", "code", "words"),
    (
        ("echo out; echo why >&2; exit 3", 3, "why"),
        ("echo out; exit 3", 3, "out"),
        ("exit 3", 3, "exit code 3"),
        ("kill -TERM $$", -signal.SIGTERM, "exit code -15"),
        ("exec sleep 99", None, "it did not end within 0.5 s and 1000 bytes"),
        ("exec >&- 2>&-; exec sleep 99", None, "it did not end within 0.5 s and 1000 bytes"),
        ("exec yes", None, "it did not end within 0.5 s and 1000 bytes"),
        ("exec yes >&2", None, "it did not end within 0.5 s and 1000 bytes"),
    ),
)
def test_a_program_that_fails_says_why(script, code, words):
    began = time.monotonic()
    with pytest.raises(command.CommandError) as caught:
        command.run(["sh", "-c", script], seconds=0.5 if code is None else 60, size=1000)
    assert (caught.value.code, caught.value.words) == (code, words)
    assert str(caught.value) == f"sh: {words}"
    assert time.monotonic() - began < 60


def test_an_exit_code_need_not_be_an_error_but_a_deadline_is():
    assert command.run(["sh", "-c", "echo out; exit 3"], check=False) == "out\n"
    with pytest.raises(command.CommandError, match="did not end within"):
        command.run(["sleep", "99"], seconds=0.1, check=False)


def test_a_program_that_is_not_there():
    with pytest.raises(command.CommandError, match=r"^t-nowhere list: there is no such program$"):
        command.run(["t-nowhere", "list", "--all"])


@pytest.mark.parametrize(
    ("words", "title"),
    (
        (["podman", "network", "create", "--subnet"], "podman network create"),
        (["podman", "rm", "--force", "shop"], "podman rm"),
        (["podman", "start", "0123456789abcdef"], "podman start"),
        (["/usr/bin/systemctl", "start", "shop.service"], "systemctl start"),
    ),
)
def test_an_error_names_the_program_and_its_subcommand(words, title):
    assert str(command.CommandError(words, 1, "why")) == f"{title}: why"


def test_a_program_that_is_interrupted_does_not_go_on(tmp_path):
    """The deadline of a caller, as of the doctor, must not wait for what it interrupts."""

    def interrupt(*_):
        raise TimeoutError

    def interrupt_once_it_runs():
        while not (tmp_path / "pid").exists():
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    waiting = threading.Thread(target=interrupt_once_it_runs, daemon=True)
    waiting.start()
    try:
        with pytest.raises(TimeoutError):
            command.run(["sh", "-c", f"cd {tmp_path}; echo $$ >new; mv new pid; exec sleep 99"])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_program_speaks_english_and_not_to_systemd(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert command.run(["sh", "-c", "echo $NOTIFY_SOCKET $LC_ALL"]) == "C.UTF-8\n"


def test_podman_tells_a_container_that_is_gone_from_other_errors(program):
    program("podman", 'echo "Error: no such container $2" >&2; exit 125')
    with pytest.raises(podman.GoneError, match=r"^podman start shop: Error: no such container shop$"):
        podman.run("start", "shop")
    program("podman", "echo 'Error: database is locked' >&2; exit 125")
    with pytest.raises(command.CommandError, match="database is locked") as caught:
        podman.run("start", "shop")
    assert not isinstance(caught.value, podman.GoneError)


def test_systemctl_is_told_apart_by_its_verb(program):
    program("systemctl", 'echo "$@"; [ "$1" = show ] || { echo "Unit $2 not found." >&2; exit 5; }')
    assert systemctl.run("show", "shop.service") == "show shop.service"
    with pytest.raises(command.CommandError, match=r"^systemctl start: Unit shop\.service not found\.$"):
        systemctl.run("start", "shop.service")


def test_a_file_that_is_no_program_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "immich-thing"
    path.write_text("")
    with pytest.raises(command.CommandError, match="immich-thing: it cannot be run: Permission denied"):
        command.run([str(path)])


def test_a_container_whose_monitor_was_killed_is_removed_at_the_second_try(program, tmp_path):
    """What the real one says is seen in tests/scenarios/test_service.py."""
    tried = f"echo $* >>{tmp_path}/tried; test $(wc -l <{tmp_path}/tried) = 2"
    program("podman", f"{tried} || {{ echo 'Error: c conmon exited prematurely, exit code …' >&2; exit 1; }}")
    podman.remove("c", "d", seconds=5)
    assert (tmp_path / "tried").read_text() == "rm --force --time 5 c d\n" * 2
    program("podman", f"echo x >>{tmp_path}/once; echo 'Error: busy' >&2; exit 1")
    with pytest.raises(command.CommandError, match="busy"):
        podman.remove("c")
    assert (tmp_path / "once").read_text() == "x\n"


def test_a_program_does_not_need_the_folder_it_was_called_in(tmp_path, monkeypatch):
    """salt-call may be typed in a folder that root cannot enter: a share with root_squash, or somebody's FUSE."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert command.run(["pwd"]) == "/\n"


def test_an_error_is_raised_as_the_callers_own():
    with pytest.raises(KeyError, match="t-nowhere: there is no such program"), command.raised_as(KeyError):
        command.run(["t-nowhere"])
