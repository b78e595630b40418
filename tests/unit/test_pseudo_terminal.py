"""Programs that show how far they are on a terminal only."""

import time

import pytest

from host_core import command, podman, pseudo_terminal


def test_a_program_sees_a_terminal_and_what_it_writes_is_heard_at_once():
    heard = []
    ended = pseudo_terminal.run(
        ["sh", "-c", "test -t 1 && stty size <&1; sleep 3; echo last; exit 3"], heard.append, 30
    )
    assert ended == ("50 200\r\nlast\r\n", "", 3)
    assert heard[0] == "50 200\r\n"
    assert len(heard) > 2  # once in a second in which nothing was written


def test_a_program_that_does_not_end_is_killed():
    began = time.monotonic()
    assert pseudo_terminal.run(["sleep", "99"], str, 0.5).code is None
    assert time.monotonic() - began < 60


def test_a_pull_fails_with_the_registrys_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(command.CommandError, match=r"^podman pull: there is no such program$"):
        podman.pull("registry.test/a:1", str)
    (tmp_path / "podman").write_text("#!/bin/sh\necho Copying blob aa done; echo Error: no $2; exit 125\n")
    (tmp_path / "podman").chmod(0o755)
    with pytest.raises(command.CommandError, match=r"^podman pull: Error: no registry\.test/a:1$"):
        podman.pull("registry.test/a:1", str)
