"""Salt's loaders of this host's minion over the formula's modules."""

import gc
import multiprocessing
from pathlib import Path

import pytest
import salt.config

from tests.loaders import Run

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def minion_opts():
    """A masterless minion's configuration that loads the repository's modules and states in place."""
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
    run = Run(dict(minion_opts, pillar={}, test=False, cachedir=str(tmp_path_factory.mktemp("cache"))))
    # What is there now stays: tests that collect garbage need not look through all of Salt each time.
    gc.collect()
    gc.freeze()
    return run


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
        answered = [answers.get(timeout=600) for _ in processes]
        for process in processes:
            process.join()
        return answered

    return run


@pytest.fixture(scope="session")
def pg_server(session_loaders):
    """The host's PostgreSQL."""
    from tests.functional.pgsql_server import Pg  # psycopg2 is not where the scenarios are collected

    return Pg(session_loaders)
