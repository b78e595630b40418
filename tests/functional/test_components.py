"""A component is a folder and an entry: one is added to a copy of the formula, applied, documented and removed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.test_other_systems import PILLAR, Minion

pytestmark = pytest.mark.once

REPO = Path(__file__).resolve().parents[2]
ENTRY = """
example:
  brings: a greeting, where containers find the host
  requires: [identity]
  roles: [proxy]
  units: [example.service]
  checks: [example.verify]
  page: howto/configure.md
"""
INIT = """# A greeting. Depends on immich.identity.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The greeting is present:
  file.managed:
    - name: GREETING
    - contents: {{ settings.components.example.units | json }}
    - require:
      - sls: immich.identity
{%- endif %}
"""
CLEAN = """# Removes the greeting.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The greeting is absent:
  file.absent:
    - name: GREETING
{%- endif %}
"""
VERIFIED = """
{%- from "immich/settings.jinja" import settings with context %}

Its components are as required:
  immich_app.verified:
    - settings: {{ settings | json }}
"""
TOKEN = "token-of-the-hook"
GRAINS = {"os_family": "Debian", "os": "Debian", "osfinger": "Debian-13"}


@pytest.fixture(scope="module")
def formula(tmp_path_factory):
    """A copy of the formula with one more component."""
    copy = tmp_path_factory.mktemp("formula")
    for folder in ("immich", "_modules", "_output", "_states", "_utils", "bin", "docs"):
        shutil.copytree(REPO / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "immich/components.yaml").open("a", encoding="utf8") as registry:
        registry.write(ENTRY)
    (copy / "immich/example").mkdir()
    for name, text in (("init", INIT), ("clean", CLEAN), ("verified", VERIFIED)):
        (copy / f"immich/example/{name}.sls").write_text(text.replace("GREETING", str(copy / "greeting")))
    return copy


@pytest.fixture(scope="module")
def answers(formula, tmp_path_factory):
    """What a minion with that formula says and does."""
    pillar = {**PILLAR, "backup": {"on_failure": f"notify {TOKEN}"}}
    minion = Minion(tmp_path_factory.mktemp("minion"), GRAINS, pillar=pillar, file_roots={"base": [str(formula)]})
    minion.calls(["saltutil.sync_all"])
    calls = (
        ["state.show_sls", "immich"],
        ["state.show_sls", "immich.clean"],
        ["state.apply", "immich.example.verified"],
        ["immich.doctor"],
        ["state.apply", "immich.example"],
        ["file.read", str(formula / "greeting")],
        ["state.apply", "immich.example.clean"],
    )
    keys = ("all", "clean", "verified", "doctor", "applied", "greeting", "removed")
    return dict(zip(keys, minion.calls(*calls)))


def test_it_is_one_of_all_components(answers):
    assert answers["all"]["The greeting is present"]["__sls__"] == "immich.example"
    assert answers["clean"]["The greeting is absent"]["__sls__"] == "immich.example.clean"


def test_states_get_no_more_of_the_settings_than_they_need(answers):
    """What is rendered is logged at debug level, and cached on a master."""
    states = {name: json.dumps(state) for name, state in answers["all"].items()}
    assert [name for name, state in states.items() if TOKEN in state] == ["The hook of a failed backup is present"]
    assert {"show_changes": False} in answers["all"]["The hook of a failed backup is present"]["file"]
    assert [name for name, state in states.items() if '"components"' in state] == ["Immich is as declared"]
    assert [name for name, state in states.items() if '"includes"' in state] == []


def test_it_is_applied_with_what_it_requires(answers):
    states = {state["__id__"]: state["result"] for state in answers["applied"].values()}
    assert states["The installation is the one on record"] is True
    assert states["The greeting is present"] is True
    assert "example.service" in answers["greeting"]


def test_verification_looks_at_its_units_and_asks_its_checks(answers):
    (verified,) = answers["verified"].values()
    assert verified["result"] is False
    assert "example.service: is inactive. Next step: systemctl start example.service" in verified["comment"]
    assert "example.verify is not loaded" in verified["comment"]


def test_so_does_the_doctor(answers):
    rows = [row for row in answers["doctor"] if row["part"] == "components"]
    unit = next(row for row in rows if row["seen"] == "example.service: is inactive")
    assert unit["result"] == "failed"
    assert unit["remedy"].startswith("systemctl start example.service")
    assert any(row["seen"] == "example.verify is not loaded" for row in rows)


def test_it_is_removed(answers, formula):
    removed = {state["__id__"]: state["changes"] for state in answers["removed"].values()}
    assert removed["The greeting is absent"] == {"removed": str(formula / "greeting")}


def test_it_is_documented(formula):
    subprocess.run([sys.executable, formula / "bin/docs"], check=True)
    page = (formula / "docs/states.md").read_text(encoding="utf8")
    assert "| [`immich.example`](#immichexample) | a greeting, where containers find the host" in page
    assert "## immich.example.clean\n\nRemoves the greeting." in page


def test_a_host_of_another_role_does_not_have_it(formula, tmp_path):
    pillar = {"roles": ["postgres"], "postgres": {"password": "postgres-secret-1"}}
    minion = Minion(tmp_path, GRAINS, pillar=pillar, file_roots={"base": [str(formula)]})
    applied, removed, other, rows = minion.calls(
        ["saltutil.sync_all"],
        ["state.show_low_sls", "immich"],
        ["state.show_low_sls", "immich.clean"],
        ["state.apply", "immich.podman"],
        ["immich.doctor"],
    )
    components = {"identity", "programs", "postgres", "backup"}
    assert {chunk["__sls__"] for chunk in applied} == {
        "immich.bootstrap",
        "immich.bootstrap.host",
        *(f"immich.{name}" for name in components | {"verify"}),
    }
    verified = next(chunk for chunk in applied if chunk["__id__"] == "Immich is as declared")
    assert verified["settings"]["components"]["postgres"]["checks"] == ["immich_postgres.verify"]
    assert verified["require"] == [{"sls": "immich.backup"}, {"sls": "immich.postgres"}]
    assert {chunk["__sls__"] for chunk in removed} == {
        "immich.bootstrap",
        "immich.bootstrap.alone",
        *(f"immich.{name}.clean" for name in components - {"identity"}),
    }
    packages = [chunk["pkgs"] for chunk in applied if chunk["state"] == "pkg"]
    assert packages == [["postgresql-17", "postgresql-17-pgvector"]]
    assert [(state["__id__"], state["result"]) for state in other.values()] == [
        ("The pillar is valid", True),
        ("This host is ready for Immich", True),
        ("immich.podman is of this host's roles", False),
    ]
    assert "has no component podman" in list(other.values())[-1]["comment"]
    parts = {row["part"] for row in rows}
    assert {"PostgreSQL service", "disk space", "backups"} <= parts
    assert parts & {"Podman", "compose file", "Valkey service", "immich.service", "Immich", "uploads"} == set()
