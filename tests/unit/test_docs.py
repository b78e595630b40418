"""The reference says what the docstrings say."""

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_docstrings_say():
    done = subprocess.run([sys.executable, REPO / "bin/docs", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_module_that_knows_nothing_of_immich_has_a_page():
    borrowed = {path.stem for folder in ("_modules", "_states") for path in (REPO / folder).glob("*.py")}
    borrowed = {name for name in borrowed if not name.startswith("immich")}
    told = "\n".join(path.read_text(encoding="utf8") for path in (REPO / "docs/modules").glob("*.md"))
    assert {name for name in borrowed if f"module `{name}`" not in told and f"State `{name}`" not in told} == set()
