"""A run compares the files that own_files names: one missing there is never synced again."""

from pathlib import Path

import pytest

from immich_core.own_files import OWN_FILES

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ("modules", "output", "states", "utils"))
def test_every_file_that_salt_syncs_is_compared(kind):
    folder = REPO / f"_{kind}"
    assert OWN_FILES[kind] == sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py"))
