"""
Rows of a dump, counted as ``pg_restore`` writes them
=====================================================
"""

import collections
import re

from pgsql_core.errors import ServerError

# Bytes of one line that a client program prints: names in it come from the dump's author. The longest that
# counts has the names of 1,600 columns, each of 63 bytes that are doubled, and quotes.
LONGEST_LINE = 256 * 1024
# Tables of a dump that are counted: by their names alone a small file could fill the memory.
MOST_TABLES = 100000
# What is kept of the rows of a dump, and of each of them in bytes.
ROWS_KEPT, LONGEST_ROW = 10000, 4096
IDENTIFIER = re.compile(r'"(?:[^"]|"")+"|[^\s".,()]+')
_NAME = f"(?:{IDENTIFIER.pattern})"
COPY_STATEMENT = re.compile(rf"COPY ({_NAME}(?:\.{_NAME})?) (?:\(({_NAME}(?:, {_NAME})*)\) )?FROM stdin;\n")


class RowCounter:
    """Counts rows in what ``pg_restore --data-only`` writes: after `COPY … FROM stdin;` a line each, up to `\\.`

    It is given lines, a long one in parts, and keeps no more of the rows asked for than ROWS_KEPT, the last ones.
    """

    def __init__(self, rows_of):
        self.tables, self.size = {}, 0
        self.rows = {table: collections.deque(maxlen=ROWS_KEPT) for table in rows_of}
        self._table = self._columns = None
        self._begins, self._heading = True, b""

    def take(self, part):
        begins, self._begins = self._begins, part.endswith(b"\n")
        if self._table is None:
            self.size += len(part) // 2  # a large object, in hexadecimal
            if begins or self._heading:
                self._begin(part)
        elif begins and part == b"\\.\n":
            self._table = None
        else:
            self.size += len(part)
            if begins:
                self._count(part)

    def _count(self, row):
        self.tables[self._table] += 1
        if self._table in self.rows:
            values = row[:LONGEST_ROW].decode("utf-8", "replace").removesuffix("\n").split("\t")
            self.rows[self._table].append(dict(zip(self._columns, values)))

    def _begin(self, part):
        """Take the statement before the rows, of more than one line where a name in it has line feeds."""
        self._heading += part
        match = COPY_STATEMENT.fullmatch(self._heading.decode("utf-8", "replace"))
        if match or not self._heading.startswith(b"COPY ") or len(self._heading) > LONGEST_LINE:
            self._heading = b""
        if match and len(self.tables) >= MOST_TABLES:
            raise ServerError(f"It has more than {MOST_TABLES} tables.")
        if match:
            self._table = ".".join(map(_unquoted, IDENTIFIER.findall(match[1])))
            self._columns = [_unquoted(name) for name in IDENTIFIER.findall(match[2] or "")]
            self.tables.setdefault(self._table, 0)


def _unquoted(name):
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
