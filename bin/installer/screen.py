"""What the person at the terminal sees: lines, and one that says what is at work right now."""

import contextlib
import shutil
import sys
import textwrap
import threading
import time

from host_core import terminal

# Without a terminal, what is at work is told once in so many seconds.
SECONDS_BETWEEN_LINES = 15
# What took less is not worth a line.
WORTH_A_LINE = 3


class Screen:
    """Standard output, 60 to 100 columns wide."""

    def __init__(self, out=None):
        self._out = out or sys.stdout
        self.terminal = self._out.isatty()
        self.width = max(60, min(shutil.get_terminal_size((80, 24)).columns, 100))
        self._said = time.monotonic()

    def say(self, text=""):
        """Show lines as they are."""
        self._write(f"{text}\n")

    def paragraph(self, text, indent=""):
        """Show text, wrapped."""
        for line in text.splitlines():
            self.say(textwrap.fill(line, self.width, initial_indent=indent, subsequent_indent=indent, **WRAP))

    def table(self, rows):
        """Show pairs of a label and its sentences, each of them on lines of its own."""
        for line in table(rows, self.width):
            self.say(line)

    def at_work(self, text):
        """Show what is at work: on a terminal the last line, written over by what comes next."""
        if self.terminal:
            self._write(text[: self.width - 1])
        elif time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self.say(text)

    @contextlib.contextmanager
    def step(self, title):
        """Show that something is at work, and for how long; one line stays of what took long."""
        begin, over = time.monotonic(), threading.Event()

        def tick():
            while not over.wait(1):
                self.at_work(f"  {time.monotonic() - begin:4.0f} s  {title} …")

        self.at_work(f"        {title} …")
        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()
            self._write("")
        self.done(title, time.monotonic() - begin)

    def done(self, title, seconds):
        """Leave a line of what took long."""
        if seconds >= WORTH_A_LINE:
            self.say(f"  {seconds:4.0f} s  {title}")

    def _write(self, text):
        text = terminal.plain(text, keep="\n")
        self._out.write(f"\r\x1b[K{text}" if self.terminal else text)
        self._out.flush()
        if text.endswith("\n"):
            self._said = time.monotonic()


WRAP = {"break_long_words": False, "break_on_hyphens": False}


def table(rows, width):
    """The lines of pairs of a label and its sentences."""
    first = max((len(label) for label, _ in rows), default=0) + 4
    lines = []
    for label, sentences in rows:
        before = f"  {label}"
        for sentence in sentences:
            for line in textwrap.wrap(sentence, width - first, **WRAP):
                lines.append(f"{before:<{first}}{line}")
                before = ""
    return lines
