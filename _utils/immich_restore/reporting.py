"""
How far a restore is, on the terminal and in the journal
========================================================
"""

import functools
import os
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
        tell(f"{verb}: {progress.far(done, size, time.monotonic() - begin, megabytes)}")

    return report


class Restoring:
    """
    Tells now and then how far a restore is, by what the server says of it: rows first, and then indexes.

    contents
        What ``pgsql_dump.read`` has returned of the backup.
    """

    def __init__(self, contents):
        self._rows, self._size = contents["tables"], contents["size"]
        self._tell, self._begin = progress.now_and_then(TAG), time.monotonic()
        self._copied, self._building = {}, {}

    def doing(self, what):
        """Take what pg_restore says that it does."""
        if what.startswith("creating INDEX") and not self._building:
            self._building[None] = time.monotonic()
            say("Restoring: building the indexes")

    def watch(self, at_work):
        """Take what the server does, as ``pgsql_dump.restore`` says."""
        now = time.monotonic()
        for each in at_work:
            if each["what"] == "copy":
                self._copied[each["pid"], each["id"]] = each["done"]
            else:
                self._building.setdefault(each["id"], now)
        indexes = [self._index(each, now) for each in at_work if each["what"] == "index"]
        if indexes:
            self._tell(f"Restoring: {'; '.join(indexes)}")
        else:
            # Of a table that is through within a second nothing was seen.
            done = min(sum(self._copied.values()), self._size)
            self._tell(f"Restoring: {progress.far(done, self._size, now - self._begin, megabytes)}")

    def _index(self, each, now):
        far = progress.far(
            each["done"], self._rows.get(each["name"]), now - self._building[each["id"]], "{:.0f}".format
        )
        return f"index of {terminal.one_line(each['name'], 100)}, rows {far}"


def megabytes(number):
    """A number of bytes in words."""
    return f"{number / 1024**2:.1f} MB"


def first_of(names):
    """The first five of some names, which may be anybody's."""
    names = [terminal.one_line(name, 100) for name in names]
    return ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])
