"""What tests of modules share, and which of them this host's release has."""

import pytest


def pytest_collection_modifyitems(config, items):
    """Tests of what this host's release does not have are not collected: see `release.only`."""
    here, elsewhere = [], []
    for item in items:
        (here if all(mark.args[0] for mark in item.iter_markers("only")) else elsewhere).append(item)
    items[:] = here
    config.hook.pytest_deselected(items=elsewhere)


@pytest.fixture(scope="session")
def pg_server(session_loaders):
    """The host's PostgreSQL."""
    from tests.functional.pgsql_server import Pg  # psycopg2 is not where the scenarios are collected

    return Pg(session_loaders)
