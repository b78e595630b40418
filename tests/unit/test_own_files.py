"""A run compares the files that own_files names: one missing there is never synced again."""

from pathlib import Path

import pytest

from immich_core.own_files import FUNCTIONS, OWN_FILES

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ("beacons", "modules", "output", "states", "utils"))
def test_every_file_that_salt_syncs_is_compared(kind):
    folder = REPO / f"_{kind}"
    assert OWN_FILES[kind] == sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py"))


def test_each_execution_module_is_named_by_a_function():
    """By those the doctor sees which are not loaded."""
    assert len(FUNCTIONS) == len(set(FUNCTIONS)) == len(OWN_FILES["modules"])
    assert "immich.doctor" in FUNCTIONS
