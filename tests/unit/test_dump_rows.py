"""Rows of a dump are counted in blocks of any size. Nothing runs here."""

import pytest

from pgsql_core import dump_rows
from pgsql_core.dump_rows import RowCounter
from pgsql_core.errors import ServerError

LARGE = b"SELECT pg_catalog.lowrite(0, '\\x" + b"ab" * 300 + b"');\n"
DUMP = (
    b"SET statement_timeout = 0;\n\n"
    b"COPY public.asset (id, name) FROM stdin;\n1\ta\n2\t\\\\.\n\\N\tx\\ny\n\\.\n\n"
    b"COPY public.none (id) FROM stdin;\n\\.\n\n"
    b'COPY public."a (b) FROM stdin;\n\\.\nc" ("d\ne") FROM stdin;\n7\n\\.\n\n'
    b"COPY public.version (version) FROM stdin;\n3.3.0\n3.3.1\n\\.\n\n" + LARGE
)
TABLES = {"public.asset": 3, "public.none": 0, "public.a (b) FROM stdin;\n\\.\nc": 1, "public.version": 2}


def counted(blocks, rows_of=("public.version",)):
    counter = RowCounter(rows_of)
    for block in blocks:
        counter.take(block)
    return counter


@pytest.mark.parametrize("size", (1, 2, 3, 4, 5, 7, 16, 64, len(DUMP)))
def test_rows_are_counted_whatever_the_blocks_are(size):
    found = counted(DUMP[at : at + size] for at in range(0, len(DUMP), size))
    assert found.tables == TABLES
    assert list(found.rows["public.version"]) == [{"version": "3.3.0"}, {"version": "3.3.1"}]
    assert found.size == counted([DUMP]).size


def test_rows_that_are_kept_and_rows_that_are_not_are_as_many():
    assert counted([DUMP], rows_of=TABLES).tables == TABLES == counted([DUMP], rows_of=()).tables


def test_a_line_of_any_length_takes_no_more_memory_than_its_blocks():
    counter = counted([b"COPY public.t (v) FROM stdin;\n"], rows_of=("public.t",))
    for _ in range(40):
        counter.take(b"x" * dump_rows.LONGEST_LINE)
        assert len(counter._rest) < 2 * dump_rows.LONGEST_LINE
    counter.take(b"\nshort\n\\.\n")
    assert counter.tables == {"public.t": 2}
    assert [len(row["v"]) for row in counter.rows["public.t"]] == [dump_rows.LONGEST_ROW, 5]


def test_more_tables_than_fit_are_refused(monkeypatch):
    monkeypatch.setattr(dump_rows, "MOST_TABLES", 3)
    with pytest.raises(ServerError, match="more than 3 tables"):
        counted([DUMP])
