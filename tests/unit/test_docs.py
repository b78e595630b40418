"""The reference says what the code says, and its commands fit the functions."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
FORMS = REPO / ".github/ISSUE_TEMPLATE"
REFERENCE = "\n".join(path.read_text(encoding="utf8") for path in sorted((REPO / "docs/modules").glob("*.md")))


def commands():
    """Each command that the reference shows, on one line."""
    blocks = re.findall(r"^( *)```bash\n(.*?)^\1```", REFERENCE, re.M | re.S)
    for _, block in blocks:
        yield from (re.sub(r"\s+", " ", command) for command in re.split(r"\n(?=\s*salt)", block.strip()))


def test_the_reference_is_what_the_code_says():
    done = subprocess.run([sys.executable, REPO / "bin/docs", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def headings(page):
    """What the headings of a page are called in links to them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf8"), flags=re.M | re.S)


def test_links_lead_somewhere():
    pages = [*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("benchmarks/*.md")]
    links = [(page, *link) for page in pages for link in re.findall(r"\]\(([^):#]*)#?([^):]*)\)", prose(page))]
    dead = [
        f"{page.relative_to(REPO)}: {path}#{heading}"
        for page, path, heading in links
        if not (page.parent / path).exists()
        or (heading and heading not in headings(page.parent / path if path else page))
    ]
    assert dead == []


def test_an_apply_is_typed_in_the_same_words_everywhere():
    """On a master's minion `--local` finds neither formula nor pillar; without a master, file_client says so."""
    pages = [*REPO.glob("*.md"), *REPO.glob("docs/*.md"), *REPO.glob("docs/howto/*.md")]
    assert [page.name for page in pages if "--local state.apply" in page.read_text(encoding="utf8")] == []


@pytest.mark.parametrize(("folder", "title"), (("_modules", "Execution module"), ("_states", "State")))
def test_every_module_and_state_has_a_page(folder, title):
    named = re.findall(rf"^## {title} `(\w+)`$", REFERENCE, re.M)
    assert sorted(named) == sorted(path.stem for path in (REPO / folder).glob("*.py"))


def test_commands_of_the_reference_can_be_typed():
    """No shell has a variable with the formula's settings."""
    assert [command for command in commands() if "$" in command] == []


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


def test_tables_of_versions_name_the_default():
    default = yaml.safe_load((REPO / "immich/defaults.yaml").read_text(encoding="utf8"))["version"]
    assert f"| **{default}**, the default |" in (REPO / "docs/versions.md").read_text(encoding="utf8")
    assert f"{default} is the default |" in (REPO / "README.md").read_text(encoding="utf8")


@pytest.mark.parametrize("form", sorted(path.name for path in FORMS.glob("*_*.yml")))
def test_issue_forms_follow_githubs_syntax(form):
    """GitHub shows no form that it cannot read (its documentation: "Syntax for issue forms")."""
    fields = yaml.safe_load((FORMS / form).read_text(encoding="utf8"))
    assert {"name", "description", "body"} <= set(fields)
    asked = [field for field in fields["body"] if field["type"] == "textarea"]
    assert all(field["attributes"]["value"] for field in fields["body"] if field not in asked)
    assert len({field["id"] for field in asked}) == len({field["attributes"]["label"] for field in asked}) == len(asked)


def test_every_sls_is_told():
    text = (REPO / "docs/states.md").read_text(encoding="utf8")
    for path in (REPO / "immich").rglob("*.sls"):
        name = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".init")
        assert f"\n## {name}\n\n" in text


def test_what_a_person_calls_is_told():
    text = (REPO / "docs/modules/immich.md").read_text(encoding="utf8")
    for function in ("doctor", "backup", "backups", "restore", "restore_drill", "restore_recover"):
        assert f"### immich.{function}\n" in text


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_of_the_reference_fits_its_function(modules, command):
    """Not run, as many would undo one another: what Salt makes of the arguments, the function takes."""
    import salt.utils.args

    words = [word for word in shlex.split(command, comments=True) if word not in ("salt", "salt-call", "--local", "*")]
    positional, named = salt.utils.args.parse_input(words[1:], condition=False)
    inspect.signature(modules[words[0]]).bind(*positional, **named)
