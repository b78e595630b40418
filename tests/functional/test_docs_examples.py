"""
Each state in the reference, docs/modules, that knows nothing of Immich is applied as it stands there, and changes
nothing when applied again.
"""

import pytest

from tests.functional.examples import PILLAR, STATES, examples, surroundings

# What they ask for is so already.
WITHOUT_CHANGES = (
    "systemd_unit.running",
    "systemd_unit.enabled",
    "systemd_unit.loaded",
    "systemd_unit.files_absent",
    "valkey_config.in_file",
)


@pytest.fixture(scope="module")
def _surroundings(session_loaders, tmp_path_factory):
    with surroundings(session_loaders.states, tmp_path_factory.mktemp("valkey")):
        yield


def test_every_state_has_an_example_that_is_run_here():
    assert sorted(examples()) == sorted(STATES)


@pytest.mark.usefixtures("_surroundings")
@pytest.mark.parametrize("function", STATES)
def test_example(loaders, function):
    loaders.opts["pillar"].update(PILLAR)
    for changes in (function not in WITHOUT_CHANGES, False):
        (state,) = loaders.modules.state.template_str(examples()[function])
        assert state.result is True, state.comment
        assert bool(state.changes) is changes
        loaders.context.clear()
