"""Text of others on a terminal: nothing in it is acted on, and what is printable stays."""

import pytest

from host_core import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    (
        ("Ana's photo of Zürich 🏔", "Ana's photo of Zürich 🏔"),
        ("a\x1b[31mred\x1b[39m", "ared"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1bMb\x1bPc", "abc"),
        ("a\x1b[3", "a3"),  # what is left of a sequence that is cut short is none
        ("two\nlines\tof\rtext", "two lines of text"),
        ("\x9b31m\x00\x7f", " 31m  "),
        ("x\u2028y\u202ez\u2066", "x y z "),
    ),
)
def test_what_a_terminal_acts_on_is_taken_out(text, shown):
    assert terminal.plain(text) == shown


def test_ends_of_lines_stay_where_they_are_wanted():
    assert terminal.plain("a\n\tb\x1b[2J\r\n", keep="\n\t") == "a\n\tb \n"


def test_one_line_has_single_spaces_and_a_length():
    assert terminal.one_line("  of\x1b[1m Ana\n\n and\tBen ", 9) == "of Ana an"
    assert len(terminal.one_line("x" * 10**6)) == terminal.LONGEST_LINE
