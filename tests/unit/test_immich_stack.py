"""What a container can do to the program that follows its log, as far as no container is needed for it."""

import importlib.machinery
import importlib.util
import json
import os
import socket
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

from immich_core import stack_status

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("immich_stack", f"{REPO}/immich/app/files/immich-stack")
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("immich_stack", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def supervisor(program):
    return program.Supervisor(SimpleNamespace())


def test_a_line_stays_one_under_the_name_of_its_container(supervisor, capsys):
    """At a NUL the journal begins another line, as if the program itself had written it."""
    supervisor.pass_on("immich-server", "\tx\0immich-stack: forged\x1b[2J \x1b[32mgreen\x9b1m\x85\u2028\r\n")
    assert capsys.readouterr().out == "immich-server | \tx immich-stack: forged green 1m\n"


def test_what_podman_says_of_a_failure_is_one_plain_line(program, monkeypatch, capsys):
    def refused(_):
        raise program.StackError("podman start: \x1b]0;title\x07crun:\nno \x9b31m\u202esuch\0immich-stack: forged")

    monkeypatch.setattr(program, "Stack", refused)
    monkeypatch.setattr(sys, "argv", ["immich-stack", "converge", "--directory", "/nowhere"])
    assert program.main() == 1
    assert capsys.readouterr().out == "immich-stack: podman start: crun: no  31m such immich-stack: forged\n"


# A line without end, in whose second part, as it is read, words of the program itself seem to begin.
ENDLESS = """#!/usr/bin/python3
import sys
if sys.argv[1] == "container":
    print(1)
else:
    sys.stdout.write("x" * 4096 + "immich-stack: forged")
    for _ in range(50):
        sys.stdout.write("y" * 1000000)
"""


def test_a_line_without_end_is_split_and_each_part_has_the_name(supervisor, program, monkeypatch, tmp_path):
    (tmp_path / "podman").write_text(ENDLESS, encoding="utf8")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    parts = []
    monkeypatch.setattr(program, "say", lambda text: parts.append((text[:40], len(text))))
    tracemalloc.start()
    try:
        supervisor._follow("immich-server", "c0ffee")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parts[1][0].startswith("immich-server | immich-stack: forged")
    assert len(parts) > 500
    assert {text[:16] for text, _ in parts} == {"immich-server | "}
    assert max(length for _, length in parts) <= 4096 + len("immich-server | ")
    assert peak < 3_000_000
    assert supervisor.ended.get_nowait() == "immich-server"


def test_a_flood_is_passed_over_and_said_once(supervisor, capsys):
    for number in range(100_000):
        supervisor.pass_on("immich-server", f"{number:04000}\n")
    supervisor.pass_on("immich-machine-learning", "quiet\n")
    lines = capsys.readouterr().out.splitlines()
    assert 500 < len(lines) < 1000
    assert [line for line in lines if "more than the journal's limit: see podman logs immich-server" in line] == lines[
        -2:-1
    ]
    assert lines[-1] == "immich-machine-learning | quiet"


def test_after_a_pause_lines_are_passed_on_again(program, monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(program, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    allowance = program.Allowance()
    short = [allowance.takes("short") for _ in range(5000)]
    assert short.index(False) == sum(short) == 3057
    now.seconds += 60
    assert not allowance.takes("short")
    now.seconds += 60
    assert all(allowance.takes("short") for _ in range(1000))


def test_the_lock_is_never_anybody_elses(program, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "LOCK", str(tmp_path / "lock"))
    modes = []
    monkeypatch.setattr(program.fcntl, "flock", lambda file, how: modes.append(os.fstat(file).st_mode & 0o777))
    before = os.umask(0)
    try:
        with program.lock():
            pass
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic link"), program.lock():
            pass
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert not (tmp_path / "elsewhere").exists()


def test_what_systemd_is_told_is_one_field(program, monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        program.notify(STATUS="Error: one\nMAINPID=1", READY=1)
        assert systemd.recv(1000).split(b"\n") == [b"STATUS=Error: one MAINPID=1", b"READY=1"]


def test_an_exit_is_in_the_status_as_data_and_in_words(supervisor, capsys):
    supervisor.stack = SimpleNamespace(
        main="immich-server", ping_url="http://127.0.0.1:2283", last_words=lambda *_args, **_kwargs: "no such model"
    )
    assert stack_status.read(supervisor.status()).serving
    container = {"Id": "c0ffee", "ExitCode": 1, "StartedAt": 0, "ExitedAt": 1}
    supervisor.note_exit("immich-machine-learning", container)
    words = "1 time(s) in a row, last with code 1: no such model"
    assert supervisor.status() == f"immich-machine-learning exited: {words}"
    assert stack_status.read(supervisor.status()).exited == {"immich-machine-learning"}
    assert capsys.readouterr().out == f"immich-machine-learning exited {words}; restarting it in 2 s\n"


def test_a_server_that_exits_again_and_again_is_given_up_with_the_reason(supervisor, program):
    words = {"last_words": lambda *_args, **_kwargs: "password authentication failed"}
    supervisor.stack = SimpleNamespace(main="immich-server", **words)
    container = {"Id": "c0ffee", "ExitCode": 1}
    for _ in range(2):
        supervisor.note_exit("immich-server", container)
    with pytest.raises(program.StackError, match=r"immich-server exited 3 time\(s\) in a row, last with code 1: pass"):
        supervisor.note_exit("immich-server", container)


def test_what_podman_compose_hands_on_to_no_container_is_handed_on(program):
    """podman-compose 1.3.0 leaves out the limit of processes, and 1.0.3 groups and DNS servers."""
    services = {"one": {"pids_limit": 500, "group_add": ["44", "105"], "dns": ["192.0.2.53"]}, "other": {}}
    handed_on = {name: program.Stack.handed_on(SimpleNamespace(services=services), name) for name in services}
    assert handed_on == {
        "one": [
            "--podman-run-args=--pids-limit=500",
            "--podman-run-args=--group-add=44",
            "--podman-run-args=--group-add=105",
            "--podman-run-args=--dns=192.0.2.53",
        ],
        "other": [],
    }


def test_a_volume_that_is_not_there_is_refused(program, tmp_path):
    volumes = [{"type": "bind", "source": f"{tmp_path}/a$$b", "target": "/data"}]
    text = {"x-immich-stack": {"compose": [], "main": "s", "ping": "", "timeout": 1}, "services": {"s": {}}}
    text["services"]["s"]["volumes"] = volumes
    (tmp_path / "docker-compose.yml").write_text(json.dumps(text))
    stack = program.Stack(str(tmp_path))
    with pytest.raises(program.StackError, match=r"a\$b, a volume of s, is not there: is a mount missing\?"):
        stack.refuse_missing_mounts(["s"])
    (tmp_path / "a$b").mkdir()
    stack.refuse_missing_mounts(["s"])
