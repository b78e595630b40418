"""A run compares the modules that immich_settings names: one missing there is never synced anew."""

import runpy
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ("modules", "output", "states", "utils"))
def test_every_module_of_the_formula_is_compared(kind):
    named = runpy.run_path(str(REPO / "_modules/immich_settings.py"))["_OWN_FILES"][kind]
    folder = REPO / f"_{kind}"
    assert list(named) == sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py"))
