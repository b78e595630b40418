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
END_OF_ROWS = b"\\.\n"
# bytes.find() takes half as long again.
_LAST_ROW = re.compile(rb"\n\\\.\n")
IDENTIFIER = re.compile(r'"(?:[^"]|"")+"|[^\s".,()]+')
_NAME = f"(?:{IDENTIFIER.pattern})"
COPY_STATEMENT = re.compile(rf"COPY ({_NAME}(?:\.{_NAME})?) (?:\(({_NAME}(?:, {_NAME})*)\) )?FROM stdin;\n")


class RowCounter:
    """Counts rows in what ``pg_restore --data-only`` writes: after `COPY … FROM stdin;` a line each, up to `\\.`

    It is given blocks of any size, and keeps no more of the rows asked for than ROWS_KEPT, the last ones.
    """

    def __init__(self, rows_of):
        self.tables, self.size = {}, 0
        self.rows = {table: collections.deque(maxlen=ROWS_KEPT) for table in rows_of}
        self._table = self._columns = None
        self._begins, self._heading, self._rest = True, b"", b""

    def take(self, block):
        data, at = self._rest + block, 0
        while at < len(data):
            counted_alone = self._table is not None and self._table not in self.rows
            after = self._skip(data, at) if counted_alone else self._line(data, at)
            if after == at:
                break
            at = after
        self._rest = data[at:]

    def _skip(self, data, at):
        """Count rows without looking at them, up to the end of the table or of what is there; where that is."""
        if self._begins and data.startswith(END_OF_ROWS, at):
            self._table = None
            return at + len(END_OF_ROWS)
        found = _LAST_ROW.search(data, at)
        if found:
            end = found.start() + 1
        else:
            # What may be the beginning of the end is looked at again with the next block.
            end = next((len(data) - n for n in (2, 1) if _may_end(data, len(data) - n, at, self._begins)), len(data))
        self.tables[self._table] += data.count(b"\n", at, end)
        self.size += end - at
        if end > at:
            self._begins = data.endswith(b"\n", at, end)
        return end

    def _line(self, data, at):
        """Take one line, or the part of a long one that is there; where it ends."""
        end = data.find(b"\n", at, at + LONGEST_LINE) + 1
        if not end:
            if len(data) - at < LONGEST_LINE:
                return at
            end = at + LONGEST_LINE
        self._take_line(data[at:end])
        return end

    def _take_line(self, part):
        begins, self._begins = self._begins, part.endswith(b"\n")
        if self._table is None:
            self.size += len(part) // 2  # a large object, in hexadecimal
            if begins or self._heading:
                self._begin(part)
        elif begins and part == END_OF_ROWS:
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


def _may_end(data, start, at, begins):
    """Whether the rest of some data may be the first bytes of END_OF_ROWS, at the beginning of a line."""
    if start < at or not END_OF_ROWS.startswith(data[start:]):
        return False
    return begins if start == at else data[start - 1 : start] == b"\n"


def _unquoted(name):
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
