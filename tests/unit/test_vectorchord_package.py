"""A package of VectorChord is looked at before it is installed."""

import pytest

from immich_core import vectorchord_package

CONTENTS = """\
drwxr-xr-x root/root         0 2026-01-01 00:00 ./
-rw-r--r-- root/root       120 2026-01-01 00:00 ./usr/share/postgresql/17/extension/vchord.control
-rw-r--r-- root/root      9999 2026-01-01 00:00 ./usr/lib/postgresql/17/lib/vchord.so
lrwxrwxrwx root/root         0 2026-01-01 00:00 ./usr/share/doc/a b -> ../c
"""
PACKAGE = {"name": "postgresql-17-vchord", "version": "0.4.3-1", "architecture": "amd64", "majors": [17]}


def test_a_package_says_for_which_postgresql_it_is():
    assert vectorchord_package.described("postgresql-17-vchord 0.4.3-1 amd64", CONTENTS) == PACKAGE
    without = CONTENTS.replace("vchord.so", "other.so")
    assert vectorchord_package.described("postgresql-17-vchord 0.4.3-1 amd64", without)["majors"] == []
    with pytest.raises(ValueError, match="unpack"):
        vectorchord_package.described("", "")


@pytest.mark.parametrize(
    ("differs", "words"),
    (
        ({}, None),
        ({"architecture": "all"}, None),
        ({"majors": []}, "it is not a package of VectorChord"),
        ({"majors": [15, 16]}, "is for PostgreSQL 15, 16, and this host's is 17"),
        ({"architecture": "arm64"}, "is for arm64, and this host is amd64"),
        ({"version": "2.0.0-1"}, "Immich needs vchord ≥ 0.3 < 2"),
    ),
)
def test_a_package_that_does_not_fit_is_refused(differs, words):
    why = vectorchord_package.unfit({**PACKAGE, **differs}, 17, "amd64")
    assert (words in why) if words else why is None
