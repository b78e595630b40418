"""The reference says what the code says."""

import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_code_says():
    done = subprocess.run([sys.executable, REPO / "bin/docs", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_module_that_knows_nothing_of_immich_has_a_page():
    borrowed = {path.stem for folder in ("_modules", "_states") for path in (REPO / folder).glob("*.py")}
    borrowed = {name for name in borrowed if not name.startswith("immich")}
    told = "\n".join(path.read_text(encoding="utf8") for path in (REPO / "docs/modules").glob("*.md"))
    assert {name for name in borrowed if f"module `{name}`" not in told and f"State `{name}`" not in told} == set()


def settings(schema, path=()):
    for key, below in schema.get("properties", {}).items():
        if below.get("type") == "object" and "properties" in below:
            yield from settings(below, (*path, key))
            continue
        yield ":".join((*path, key))
        yield from settings(below.get("items", {}), (*path, key, "*"))


def test_every_setting_has_a_line_of_its_own():
    schema = json.loads((REPO / "immich/schema.json").read_text(encoding="utf8"))
    lines = (REPO / "docs/settings.md").read_text(encoding="utf8").splitlines()
    told = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert told == list(settings(schema))


def test_every_sls_is_told():
    text = (REPO / "docs/states.md").read_text(encoding="utf8")
    for path in (REPO / "immich").rglob("*.sls"):
        name = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".init")
        assert f"\n## {name}\n\n" in text


def test_what_a_person_calls_is_told():
    text = (REPO / "docs/modules/immich.md").read_text(encoding="utf8")
    for function in ("doctor", "backup", "backups", "restore", "restore_drill", "restore_recover"):
        assert f"### immich.{function}\n" in text
