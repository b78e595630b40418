"""A file is read back from the disk while it is written. No host: pipes and a file."""

import hashlib
import os
import threading

import pytest

from immich_io import landing
from immich_io.landing import Landing

BLOCKS = [bytes([number]) * 100_000 for number in range(100)]
WHOLE = b"".join(BLOCKS)


@pytest.fixture
def land(tmp_path, monkeypatch):
    """A function that has blocks land; returns what it says, the file, and what was handed on."""
    monkeypatch.setattr(landing, "_STEP", 1 << 20)

    def run(blocks=BLOCKS, leave_after=None):
        (source, into), (out, reader), handed = os.pipe(), os.pipe(), []

        def feed():
            with open(into, "wb", buffering=0) as file:
                try:
                    for block in blocks:
                        file.write(block)
                except BrokenPipeError:
                    handed.append("cut")

        def take():
            with open(out, "rb", buffering=0) as file:
                while leave_after is None or len(handed) < leave_after:
                    if not (block := file.read(1 << 16)):
                        break
                    handed.append(block)

        threads = [threading.Thread(target=job) for job in (feed, take)]
        for thread in threads:
            thread.start()
        try:
            with Landing(source, tmp_path / "file", reader) as landed:
                os.close(source)
                os.close(reader)
            return landed, tmp_path / "file", handed
        finally:
            for thread in threads:
                thread.join()

    return run


@pytest.mark.parametrize("blocks", (BLOCKS, BLOCKS[:1], []))
def test_what_comes_lands_and_is_handed_on(land, blocks):
    landed, file, handed = land(blocks)
    whole = b"".join(blocks)
    assert landed.result() == hashlib.sha256(whole).hexdigest()
    assert landed.ended
    assert (landed.written, landed.read) == (len(whole), len(whole))
    assert file.read_bytes() == whole == b"".join(handed)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_reader_that_leaves_does_not_keep_it_from_landing(land):
    landed, file, _ = land(leave_after=2)
    assert landed.result() == hashlib.sha256(WHOLE).hexdigest()
    assert file.read_bytes() == WHOLE


def test_a_disk_that_holds_something_else_is_told(land, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(
        os, "pread", lambda file, count, at: pread(file, count, at).replace(b"\x07\x07", b"\x07\x06", 1)
    )
    landed, _, _ = land()
    with pytest.raises(OSError, match="not what was written"):
        landed.result()


def test_a_full_disk_ends_who_writes(land, monkeypatch):
    write = os.write

    def full(file, data):
        if os.fstat(file).st_size > 2_000_000:
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    landed, _, handed = land()
    assert handed[-1] == "cut" or "cut" in handed
    with pytest.raises(OSError, match="No space left"):
        landed.result()
