"""Tests of what this host's release does not have are not collected: see `release.only`."""


def pytest_collection_modifyitems(config, items):
    here, elsewhere = [], []
    for item in items:
        (here if all(mark.args[0] for mark in item.iter_markers("only")) else elsewhere).append(item)
    items[:] = here
    config.hook.pytest_deselected(items=elsewhere)
