"""Fixtures of the tests that run inside a test host: Salt's loaders over the formula's own modules."""

import collections
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
INSIDE_HOST = Path("/srv/formula/immich").exists()

# Tests of modules run inside a host, scenarios outside, with hosts in their hands. Each side collects its own.
collect_ignore = ["scenarios"] if INSIDE_HOST else ["unit", "functional"]


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


@pytest.fixture(scope="session")
def minion_opts():
    """A masterless minion's configuration that loads the repository's modules and states in place."""
    import salt.config  # absent outside a host, where nothing asks for this fixture

    opts = salt.config.minion_config("/etc/salt/minion")
    opts["file_client"] = "local"
    opts["__cli"] = "salt-call"  # functions of `state` hand their pillar on
    opts["module_dirs"] = [str(REPO)]
    opts["modules_dirs"] = [str(REPO / "_modules")]
    opts["states_dirs"] = [str(REPO / "_states")]
    opts["utils_dirs"] = [str(REPO / "_utils")]
    return opts


@pytest.fixture(scope="session")
def session_loaders(minion_opts, tmp_path_factory):
    """Making loaders takes longer than most tests, so all share them."""
    from tests.loaders import Run

    run = Run(dict(minion_opts, pillar={}, test=False, cachedir=str(tmp_path_factory.mktemp("cache"))))
    # What is there now stays: tests that collect garbage need not look through all of Salt each time.
    gc.collect()
    gc.freeze()
    return run


@pytest.fixture
def loaders(session_loaders):
    """Salt's loaders as one run has them: an empty ``__context__``, and an empty pillar.

    Change ``loaders.opts["pillar"]`` in place to give a test its pillar.
    """
    session_loaders.context.clear()
    session_loaders.opts["pillar"].clear()
    return session_loaders


@pytest.fixture
def modules(loaders):
    return loaders.modules


@pytest.fixture
def states(loaders):
    """The states, each call of which is a run of its own."""
    return loaders.states


@pytest.fixture
def quick_states(loaders):
    """A function that runs a state by its name in the run of ``modules``, and returns its plain dictionary."""

    def run(function, *args, test=False, **kwargs):
        return loaders.quick[test][function](*args, **kwargs)

    return run


@pytest.fixture
def at_once():
    """A function that calls another one in four processes at the same time and gives their answers."""

    def run(function):
        fork = multiprocessing.get_context("fork")
        start, answers = fork.Barrier(4), fork.Queue()

        def work():
            start.wait()
            answers.put(function())

        processes = [fork.Process(target=work) for _ in range(4)]
        for process in processes:
            process.start()
        answered = [answers.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        return answered

    return run


@pytest.fixture(params=[False, True], ids=["real", "test=True"])
def testmode(request):
    """Both ways of running a state."""
    return request.param
