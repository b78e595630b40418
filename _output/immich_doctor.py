"""
Show what ``immich.doctor`` returns as a table
==============================================

One line for each part, and below what is not well the remedy. Long lines are broken at the width of the terminal.
"""

import shutil
import textwrap

import salt.utils.color

__virtualname__ = "immich_doctor"

COLORS = {"ok": "GREEN", "warning": "YELLOW", "failed": "LIGHT_RED"}


def __virtual__():
    return __virtualname__


def output(data, **_):
    """
    Return the text for a dictionary of minions, each with the rows of ``immich.doctor``.

    data
        ``{minion id: [{"part": …, "result": …, "seen": …, "remedy": …}]}``. Anything else, such as an error, is shown
        as it is.
    """
    colors = salt.utils.color.get_colors(__opts__.get("color"), __opts__.get("color_theme"))
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 160))
    lines = []
    for minion, rows in data.items():
        lines.append(f"{minion}:")
        lines += _table(rows, colors, width) if _are_rows(rows) else [f"    {rows}"]
    return "\n".join(lines)


def _are_rows(rows):
    return isinstance(rows, list) and all(isinstance(row, dict) and "part" in row for row in rows)


def _table(rows, colors, width):
    first = max((len(row["part"]) for row in rows), default=0)
    lines, part = [], None
    for row in rows:
        lines += _lines(row, first, colors, width, "" if row["part"] == part else row["part"])
        part = row["part"]
    count = {result: sum(row["result"] == result for row in rows) for result in COLORS}
    cause = next((row["part"] for row in rows if row["result"] == "failed"), None)
    lines.append("")
    lines.append(
        f"{count['ok']} ok, {count['warning']} warning, {count['failed']} failed"
        + (f": begin with {cause}" if cause else "")
    )
    return [f"    {line}".rstrip() for line in lines]


def _lines(row, first, colors, width, part):
    color, end = colors[COLORS.get(row["result"], "YELLOW")], colors["ENDC"]
    room = width - 4 - first - 11
    seen = textwrap.wrap(row["seen"], room, break_long_words=False, break_on_hyphens=False) or [""]
    remedy = textwrap.wrap(row["remedy"], room - 3, break_long_words=False, break_on_hyphens=False)
    arrows = [f"{'→ ' if number == 0 else '  '}{line}" for number, line in enumerate(remedy)]
    head = f"{part:<{first}}  {color}{row['result']:<7}{end}  {seen[0]}"
    return [head, *(f"{'':<{first + 11}}{line}" for line in (*seen[1:], *arrows))]
