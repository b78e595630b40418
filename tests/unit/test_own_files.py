"""The first run compares the modules that settings.jinja names: one missing there is never synced anew."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ("modules", "output", "states", "utils"))
def test_every_module_of_the_formula_is_compared(kind):
    text = (REPO / "immich/settings.jinja").read_text(encoding="utf8")
    named = re.search(rf'"{kind}": \[(.*?)\]', text, re.S).group(1)
    assert re.findall(r'"(\w+)"', named) == sorted(path.stem for path in (REPO / f"_{kind}").glob("*.py"))
