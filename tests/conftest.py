"""Fixtures of the tests that run inside a test host: Salt's loaders over the formula's own modules."""

import logging
import multiprocessing
import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
INSIDE_HOST = Path("/srv/formula/immich").exists()

# Tests of modules run inside a host, scenarios outside, with hosts in their hands. Each side collects its own.
collect_ignore = ["scenarios"] if INSIDE_HOST else ["unit", "functional"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A skip under CI is a failure: nobody looks at skips."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


def pytest_unconfigure():
    """Salt hands what it logged to its first handler once more as the process ends, after pytest has closed it."""
    logging.raiseExceptions = False


@pytest.fixture(scope="session")
def minion_opts():
    """A masterless minion's configuration that loads the repository's modules and states in place."""
    import salt.config  # absent outside a host, where nothing asks for this fixture

    opts = salt.config.minion_config("/etc/salt/minion")
    opts["file_client"] = "local"
    opts["module_dirs"] = [str(REPO)]
    opts["modules_dirs"] = [str(REPO / "_modules")]
    opts["states_dirs"] = [str(REPO / "_states")]
    opts["utils_dirs"] = [str(REPO / "_utils")]
    return opts


@pytest.fixture(scope="module")
def module_loaders(minion_opts, tmp_path_factory):
    """Making loaders takes longer than most tests, so those of one file share them."""
    from saltfactories.utils.functional import Loaders

    opts = dict(minion_opts, pillar={}, test=False, cachedir=str(tmp_path_factory.mktemp("cache")))
    return Loaders(opts)


@pytest.fixture
def loaders(module_loaders):
    """Salt's loaders as one run has them: an empty ``__context__``, shared by everything, and an empty pillar.

    Change ``loaders.opts["pillar"]`` in place to give a test its pillar; ``loaders.opts["test"]`` is the test mode.
    """
    module_loaders.context.clear()
    module_loaders.opts["pillar"].clear()
    module_loaders.opts["test"] = False
    return module_loaders


@pytest.fixture
def modules(loaders):
    return loaders.modules


@pytest.fixture
def states(loaders):
    return loaders.states


@pytest.fixture(scope="module")
def module_states(module_loaders):
    import salt.loader

    of = module_loaders
    return {
        test: salt.loader.states(
            dict(of.opts, test=test),
            of.modules,
            of.utils,
            of.serializers,
            context=of.context,
            loaded_base_name=f"t{test}",
        )
        for test in (False, True)
    }


@pytest.fixture
def quick_states(loaders, module_states):
    """A function that runs a state by its name past Salt's compiler, of which `states` takes a turn at each call."""

    def run(function, *args, test=False, **kwargs):
        return module_states[test][function](*args, **kwargs)

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
