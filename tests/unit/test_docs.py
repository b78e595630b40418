"""The reference says what the docstrings say, and its commands fit the functions."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
REFERENCE = "\n".join(path.read_text(encoding="utf8") for path in sorted((REPO / "docs/modules").glob("*.md")))


def commands():
    """Each command that the reference shows, on one line."""
    blocks = re.findall(r"^( *)```bash\n(.*?)^\1```", REFERENCE, re.M | re.S)
    for _, block in blocks:
        yield from (re.sub(r"\s+", " ", command) for command in re.split(r"\n(?=\s*salt)", block.strip()))


def test_the_reference_is_what_the_docstrings_say():
    done = subprocess.run([sys.executable, REPO / "bin/docs", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def headings(page):
    """What the headings of a page are called in links to them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere():
    pages = [*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("benchmarks/*.md")]
    links = [
        (page, *link) for page in pages for link in re.findall(r"\]\(([^):#]*)#?([^):]*)\)", page.read_text("utf8"))
    ]
    dead = [
        f"{page.relative_to(REPO)}: {path}#{heading}"
        for page, path, heading in links
        if not (page.parent / path).exists()
        or (heading and heading not in headings(page.parent / path if path else page))
    ]
    assert dead == []


def test_every_module_that_knows_nothing_of_immich_has_a_page():
    borrowed = {path.stem for folder in ("_modules", "_states") for path in (REPO / folder).glob("*.py")}
    borrowed = {name for name in borrowed if not name.startswith("immich")}
    assert {
        name for name in borrowed if f"module `{name}`" not in REFERENCE and f"State `{name}`" not in REFERENCE
    } == set()


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_reference_fits_its_function(modules, command):
    """Not run, as many would undo one another: what Salt makes of the arguments, the function takes."""
    import salt.utils.args

    words = [word for word in shlex.split(command, comments=True) if word not in ("salt", "salt-call", "--local", "*")]
    positional, named = salt.utils.args.parse_input(words[1:], condition=False)
    inspect.signature(modules[words[0]]).bind(*positional, **named)
