"""
How far a restore is, on the terminal and in the journal
========================================================
"""

import contextlib
import functools
import os
import threading
import time

from host_core import terminal
from immich_io import progress

# What the journal knows it by.
TAG = "immich-restore"
say = functools.partial(progress.say, tag=TAG)


def bytes_done(verb, path):
    """A function that tells now and then how far something is with a file, given the bytes done."""
    tell, size, begin = progress.now_and_then(TAG), os.path.getsize(path), time.monotonic()

    def report(done):
        seconds = round(time.monotonic() - begin)
        tell(f"{verb}: {megabytes(done)} of {megabytes(size)}, {done * 100 // size} %, {seconds} s")

    return report


@contextlib.contextmanager
def objects_restored():
    """A function to tell what pg_restore does. Of indexes, which come last, it says the one that takes long."""
    now_and_then, built, complete = progress.now_and_then(TAG), {}, threading.Event()

    def take(what):
        if not what.startswith("creating INDEX"):
            return
        if not built:
            say("Restoring: building the indexes")
        built.update(what=what, begin=time.monotonic())

    def watch():
        while not complete.wait(1):
            if built:
                now_and_then(f"Restoring: {built['what']}, {round(time.monotonic() - built['begin'])} s")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield take
    finally:
        complete.set()


def megabytes(number):
    """A number of bytes in words."""
    return f"{number / 1024**2:.1f} MB"


def first_of(names):
    """The first five of some names, which may be anybody's."""
    names = [terminal.one_line(name, 100) for name in names]
    return ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])
