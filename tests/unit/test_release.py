"""FORMULA, extension, changelog and documents name one released version, by "Release" in CONTRIBUTING.md."""

import re
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
VERSION = yaml.safe_load((REPO / "FORMULA").read_text(encoding="utf8"))["version"]
# How a user pins a release: in a master's gitfs, or in a clone.
PINS = {"gitfs": re.compile(r"^ *- base: (\S+)$", re.M), "clone": re.compile(r"\bgit clone .*?--branch (\S+)")}


def released():
    """The headings of the changelog, newest first, without "Unreleased": version and date."""
    headings = re.findall(r"^## (.+)$", (REPO / "CHANGELOG.md").read_text(encoding="utf8"), re.M)
    assert headings[0] == "[Unreleased]"
    return [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", heading).groups() for heading in headings[1:]]


def test_formula_has_the_version_of_the_changelog():
    releases = released()
    assert ".".join(releases[0][:3]) == VERSION
    order = [tuple(map(int, release[:3])) for release in releases]
    assert order == sorted(set(order), reverse=True)
    assert [release[3] for release in releases] == sorted((release[3] for release in releases), reverse=True)


def test_extension_has_that_version():
    """In its metadata, and in the name of the file that docs/howto/extension.md installs."""
    metadata = re.findall(r'^version = "(.+?)"', (REPO / "pyproject.toml").read_text(encoding="utf8"), re.M)
    page = (REPO / "docs/howto/extension.md").read_text(encoding="utf8")
    assert {*metadata, *re.findall(r"saltext_pgsql_valkey_podman-(.+?)-py3", page)} == {VERSION}


def test_documents_pin_the_tag_of_that_version():
    pages = [*REPO.glob("*.md"), *REPO.glob("docs/**/*.md")]
    for way, pattern in PINS.items():
        pinned = {page.name: tags for page in pages if (tags := pattern.findall(page.read_text(encoding="utf8")))}
        assert pinned, f"no document pins by {way}"
        assert {tag for tags in pinned.values() for tag in tags} == {f"v{VERSION}"}, pinned
