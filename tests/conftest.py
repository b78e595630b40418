"""What tests cost, and the fixtures of all that call the formula's modules through Salt's loader."""

import collections
import contextlib
import copy
import logging
import os
import resource
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
INSIDE_HOST = Path("/srv/formula/immich").exists()

# What needs services and root runs inside a host, scenarios outside, with hosts in their hands.
collect_ignore = ["scenarios"] if INSIDE_HOST else ["functional"]

PILLAR = {
    "timezone": "Europe/Paris",
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-12", "admin_password": "admin-secret-123"},
}

SECONDS, CORE_SECONDS = collections.Counter(), collections.Counter()
_core_seconds_before = 0


def _core_seconds():
    """Seconds of a core that this process has taken, and all that have ended below it: hosts too, once powered off."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _core_seconds_of_host():
    """Seconds of a core that all processes of this host have taken, with those that have ended: its services too."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, and is counted by its parent
            ticks += sum(map(int, path.read_bytes().rpartition(b")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _since_last(now):
    global _core_seconds_before
    taken, _core_seconds_before = now - _core_seconds_before, now
    return taken


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A skip under CI is a failure: nobody looks at skips."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    report.core_seconds = 0 if INSIDE_HOST else _since_last(_core_seconds())
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Inside a host its processes are looked at once a file: that takes milliseconds."""
    ran = yield
    if INSIDE_HOST and (nextitem is None or nextitem.location[0] != item.location[0]):
        CORE_SECONDS[item.location[0]] += _since_last(_core_seconds_of_host())
    return ran


def pytest_collection_modifyitems(config, items):
    """Tests of what this system has not are not collected: see the marker `only`."""
    here, elsewhere = [], []
    for item in items:
        (here if all(mark.args[0] for mark in item.iter_markers("only")) else elsewhere).append(item)
    items[:] = here
    config.hook.pytest_deselected(items=elsewhere)


def pytest_collection_finish():
    """What booting the host and collecting took is no file's."""
    if INSIDE_HOST:
        _since_last(_core_seconds_of_host())


def pytest_runtest_logreport(report):
    SECONDS[report.location[0]] += report.duration
    CORE_SECONDS[report.location[0]] += report.core_seconds


def pytest_terminal_summary(terminalreporter):
    """What each file costs, for the table in CONTRIBUTING.md: `.ci/run` has a limit.

    Seconds of a core do not depend on what else the machine does. Inside a host they are with its services.
    """
    slow = [(path, seconds) for path, seconds in SECONDS.most_common() if seconds >= 1]
    if slow:
        terminalreporter.section("seconds by file, and seconds of a core")
    for path, seconds in slow:
        terminalreporter.write_line(f"{seconds:6.0f} {CORE_SECONDS[path]:6.0f} {path}")


def pytest_unconfigure():
    """Salt hands what it logged to its first handler once more as the process ends, after pytest has closed it."""
    logging.raiseExceptions = False


@pytest.fixture
def loaders(session_loaders):
    """Salt's loaders as one run has them: an empty ``__context__``, and an empty pillar.

    Which they are, the folder's own conftest.py says: those of a host's minion, or some that ask no machine.
    Change ``loaders.opts["pillar"]`` in place to give a test its pillar.
    """
    session_loaders.context.clear()
    session_loaders.opts["pillar"].clear()
    return session_loaders


@pytest.fixture
def modules(loaders):
    return loaders.modules


@pytest.fixture
def settings(loaders, modules):
    """The settings of a short pillar."""
    loaders.opts["pillar"]["immich"] = copy.deepcopy(PILLAR)
    return modules.immich_settings.get()


@pytest.fixture(params=[False, True], ids=["real", "test=True"])
def testmode(request):
    """Both ways of running a state."""
    return request.param
