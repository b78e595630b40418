"""Running salt-call: its answer as data, and on the screen what is at work meanwhile."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from installer import DeployError

LOG = Path("/var/log/immich-formula.log")
# Lines of salt.state in Salt's log, of level info.
EXECUTING = re.compile(r"Executing state (\S+?)\.(\w+) for \[(.*)\]$")
COMPLETED = re.compile(r"Completed state \[.*\] at time .*\(duration_in_ms=([\d.]+)\)$")
# Salt's log lines on its standard error; what else is there, the formula's modules wrote for the person.
SALTS_OWN = re.compile(r"^\[\w+ *\]|^\s*$")


class InterruptedRunError(Exception):
    """The person pressed Ctrl-C; the text says what was at work, and what goes on."""


class Runner:
    """Runs functions of ``salt`` for ``screen``."""

    def __init__(self, salt, screen, verbose=False):
        self._salt, self._screen, self._verbose = salt, screen, verbose

    def data(self, function, *arguments, formula=None):
        """What a function returns. Raises DeployError where that is no answer."""
        call = _Call(self._salt.command(formula), [function, *arguments])
        return self._answer(call.wait(_Watched(self._screen)), function)

    def plan(self, sls, formula=None):
        """The returns of ``state.apply test=True``, in the order in which they ran. Raises as ``apply`` does."""
        call = _Call(self._salt.command(formula), ["state.apply", sls, "test=True"])
        return self._states(call.wait(_Watched(self._screen)), sls)

    def apply(self, sls, formula=None, titles=None, packages=None):
        """The returns of ``state.apply``, in the order in which they ran. Raises DeployError where Salt cannot begin.

        ``titles`` are names of states by function and name, as they are shown while they are at work; ``packages`` is
        a function that says how far apt is.
        """
        call = _Call(self._salt.command(formula), ["state.apply", sls])
        return self._states(call.wait(_Shown(self._screen, titles or {}, packages, self._verbose)), sls)

    def _states(self, text, sls):
        answer = self._answer(text, f"state.apply {sls}")
        if not isinstance(answer, dict):
            raise DeployError("\n".join(map(str, answer if isinstance(answer, list) else [answer])))
        return ordered(answer)

    def _answer(self, text, what):
        try:
            return json.loads(text)["local"]
        except (ValueError, KeyError, TypeError):
            raise DeployError(f"salt-call {what} returned no answer: see {LOG}\n{text[-2000:]}".rstrip()) from None


def ordered(answer):
    """The states of an answer of ``state.apply``, in the order in which they ran, with ``id`` and ``function``."""
    states = []
    for tag, state in answer.items():
        kind, identifier, name, function = tag.split("_|-")
        states.append({**state, "id": identifier, "name": name, "function": f"{kind}.{function}"})
    return sorted(states, key=lambda state: state.get("__run_num__", 0))


class _Watched:
    """What a run is doing, from Salt's log. Shows nothing."""

    def __init__(self, screen, titles=None):
        self._screen, self._titles = screen, titles or {}
        self.title, self.last, self.function = None, None, ""

    def log(self, line):
        """Take a line of Salt's log."""
        executing, completed = EXECUTING.search(line), COMPLETED.search(line)
        if executing and executing[1] != "immich":  # those run or judge the others
            self.function = f"{executing[1]}.{executing[2]}"
            self.title = self.last = self._titles.get((self.function, executing[3]), executing[3])
            self.begun()
        elif completed and self.title:
            self.completed(float(completed[1]) / 1000)
            self.title, self.function = None, ""

    def begun(self):
        """A state has begun."""

    def completed(self, seconds):
        """The state has ended."""

    def error(self, line):
        """Take a line of Salt's standard error."""

    def tick(self):
        """Some time has passed."""

    def apt_goes_on(self):
        """Say that apt is let finish, after Ctrl-C."""
        self._screen.say(
            "apt is installing packages: this stops when apt has finished. Ctrl-C again does not wait for it."
        )

    @property
    def in_apt(self):
        """Whether apt is at work, which is not to be killed."""
        return False


class _Shown(_Watched):
    """A run before the person's eyes: what is at work, how long, and how far the formula's modules or apt say it is."""

    def __init__(self, screen, titles, packages, verbose):
        super().__init__(screen, titles)
        self._packages, self._verbose = packages, verbose
        self._begin, self._told = 0, ""

    def begun(self):
        self._begin, self._told = time.monotonic(), ""

    def completed(self, seconds):
        self._screen.done(self.title, seconds)

    def error(self, line):
        if self._verbose:
            self._screen.say(line)
        elif not SALTS_OWN.match(line):
            self._told = re.sub(r"\x1b\[[\d;]*m", "", line)

    @property
    def in_apt(self):
        return self.function.startswith("pkg.")

    def tick(self):
        if not self.title:
            return
        told = self._packages() if self._packages and self.in_apt else self._told
        text = f"  {time.monotonic() - self._begin:4.0f} s  {self.title}"
        self._screen.at_work(f"{text}: {told}" if told else f"{text} …")


class _Call:
    """One salt-call, in a session of its own: Ctrl-C at the terminal reaches this program alone, which decides."""

    def __init__(self, command, arguments):
        if not LOG.exists():
            LOG.touch(mode=0o600)
        self._log = open(LOG, encoding="utf8", errors="replace")  # noqa: SIM115 (closed by wait)
        self._log.seek(0, os.SEEK_END)
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        # The formula's modules say how far they are to a terminal only.
        self._errors, inner = pty.openpty()
        command = [*command, "--out=json", "--log-level=warning", f"--log-file={LOG}", "--log-file-level=info"]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self._rest, self._stopping = "", False

    def wait(self, shown):
        """Wait until it has ended; return what it printed. Raises InterruptedRunError."""
        try:
            while self._process.poll() is None:
                try:
                    self._look(shown)
                except KeyboardInterrupt:
                    self._interrupted(shown)
                if self._stopping and not shown.in_apt:
                    self._stop(shown)
            self._look(shown)
        finally:
            self._log.close()
            os.close(self._errors)
        self._out.seek(0)
        return self._out.read().decode(errors="replace")

    def _look(self, shown):
        *lines, self._rest = re.split(r"[\r\n]+", self._rest + self._written())
        for line in lines:
            shown.error(line)
        for line in self._log.read().splitlines():
            shown.log(line)
        shown.tick()

    def _written(self):
        """What was written to standard error within half a second."""
        if not select.select([self._errors], [], [], 0.5)[0]:
            return ""
        try:
            return os.read(self._errors, 65536).decode(errors="replace")
        except OSError:  # the last writer has gone
            time.sleep(0.1)
            return ""

    def _interrupted(self, shown):
        if self._stopping:
            raise InterruptedRunError(
                f"salt-call, PID {self._process.pid}, and apt continue in the background: see {LOG}"
            )
        if not shown.in_apt:
            self._stop(shown)
        # An apt that is killed leaves packages half installed.
        self._stopping = True
        shown.apt_goes_on()

    def _stop(self, shown):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        raise InterruptedRunError(f"Stopped during: {shown.last}" if shown.last else "Stopped.")
