"""
A file that is read back from the disk while it is written
==========================================================

What a program writes into a pipe lands in a file, and behind it what the disk holds is read back and handed to another
program. Needs nothing but Python.
"""

import contextlib
import fcntl
import hashlib
import os
import threading

# Bytes after which what was written is read back, and bytes that are held in memory at once.
_STEP, _BLOCK = 16 << 20, 1 << 20
# Seconds between two looks at whether there is so much.
_LOOK_SECONDS = 0.02
# fcntl(2), which Python knows as fcntl.F_SETPIPE_SZ from 3.10 on. Any user may have a pipe of this size.
_F_SETPIPE_SZ, _PIPE = 1031, 1 << 20


class Landing:
    """
    Two threads: one writes, the other reads back.

    source
        File descriptor from which it comes, up to its end.
    path
        The file, which must not be there yet. It is its owner's alone.
    reader
        File descriptor to which what was read back goes. It is closed after that; whoever reads may end before.

    ``written`` and ``read`` are bytes so far, ``checksum`` is the SHA-256 of what came, once it has landed.

    .. code-block:: python

        with Landing(dumping.stdout.fileno(), path, reading.stdin.fileno()) as landing:
            dumping.wait()
        landing.result()
    """

    def __init__(self, source, path, reader):
        self.written = self.read = 0
        self.checksum = None
        self._source, self._reader, self._path = os.dup(source), os.dup(reader), path
        self._error, self._came = None, threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(job,), daemon=True) for job in (self._write, self._back)
        ]

    def __enter__(self):
        for pipe in (self._source, self._reader):
            with contextlib.suppress(OSError):  # a user's pipes may be at their limit
                fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join()
        os.close(self._file)

    @property
    def ended(self):
        """Whether all has landed, or cannot."""
        return not any(thread.is_alive() for thread in self._threads)

    def result(self):
        """Return the checksum once it has ended; raise ``OSError`` if not all has landed as it came."""
        if self._error:
            raise self._error
        return self.checksum

    def _run(self, job):
        try:
            job()
        except OSError as error:
            self._error = self._error or error

    def _write(self):
        found = hashlib.sha256()
        try:
            while self._error is None and (block := os.read(self._source, _BLOCK)):
                found.update(block)
                rest = memoryview(block)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                self.written += len(block)
            self._sum = found.hexdigest()
        finally:
            # Who writes into it ends then.
            os.close(self._source)
            self._came.set()

    def _back(self):
        found = hashlib.sha256()
        try:
            while self._error is None:
                ended = self._came.wait(_LOOK_SECONDS)
                if ended or self.written - self.read >= _STEP:
                    self._read_up_to(self.written, found)
                if ended:
                    break
        finally:
            self._close_reader()
        if self._error is None and found.hexdigest() != self._sum:
            raise OSError(f"{self._path} is not what was written: its SHA-256 differs")
        self.checksum = found.hexdigest()

    def _read_up_to(self, end, found):
        os.fdatasync(self._file)
        # What is read next comes from the disk, and not from memory.
        os.posix_fadvise(self._file, self.read, end - self.read, os.POSIX_FADV_DONTNEED)
        while self.read < end:
            block = os.pread(self._file, min(_BLOCK, end - self.read), self.read)
            if not block:
                raise OSError(f"{self._path} is shorter than what was written")
            found.update(block)
            self._hand_on(memoryview(block))
            self.read += len(block)

    def _hand_on(self, rest):
        try:
            while rest and self._reader is not None:
                rest = rest[os.write(self._reader, rest) :]
        except BrokenPipeError:
            self._close_reader()

    def _close_reader(self):
        if self._reader is not None:
            os.close(self._reader)
        self._reader = None
