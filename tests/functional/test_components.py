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
MODULE = """'A greeting on this host.'

import os

from immich_core import findings


def verify(settings):
    'Return as a finding that the greeting is of nobody.'
    there = os.path.exists("GREETING")
    seen = f"the greeting of port {settings['port']} is {'nobody' if there else 'absent'}"
    return [findings.finding("greeting", "greeting", seen, "greet somebody")]
"""
TOKEN = "token-of-the-hook"
GRAINS = {"os_family": "Debian", "os": "Debian", "osfinger": "Debian-13"}


@pytest.fixture(scope="module")
def formula(tmp_path_factory):
    """A copy of the formula with one more component."""
    copy = tmp_path_factory.mktemp("formula")
    for folder in ("immich", "_beacons", "_modules", "_output", "_states", "_utils", "bin", "docs"):
        shutil.copytree(REPO / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "immich/components.yaml").open("a", encoding="utf8") as registry:
        registry.write(ENTRY)
    (copy / "immich/example").mkdir()
    files = {"immich/example/init.sls": INIT, "immich/example/clean.sls": CLEAN, "_modules/example.py": MODULE}
    for name, text in files.items():
        (copy / name).write_text(text.replace("GREETING", str(copy / "greeting")))
    return copy


@pytest.fixture(scope="module")
def rendered(formula, tmp_path_factory):
    """What a minion with that formula and all roles makes of it."""
    pillar = {**PILLAR, "backup": {"on_failure": f"notify {TOKEN}"}}
    minion = Minion(tmp_path_factory.mktemp("minion"), GRAINS, pillar=pillar, file_roots={"base": [str(formula)]})
    shown = minion.calls(
        ["saltutil.sync_all"], ["state.show_low_sls", "immich"], ["state.show_low_sls", "immich.clean"]
    )
    return dict(zip(("all", "clean"), shown))


@pytest.fixture(scope="module")
def answers(formula, tmp_path_factory):
    """What a minion with that formula says and does that has the component, and nothing else that runs."""
    folder = tmp_path_factory.mktemp("minion")
    minion = Minion(folder, GRAINS, pillar={"roles": ["proxy"]}, file_roots={"base": [str(formula)]})
    calls = (
        ["saltutil.sync_all"],
        ["state.apply", "immich"],
        ["file.read", str(formula / "greeting")],
        ["immich.doctor"],
        ["state.apply", "immich.example.clean"],
    )
    return dict(zip(("applied", "greeting", "doctor", "removed"), minion.calls(*calls)))


def chunk(low, name):
    return next(each for each in low if each["__id__"] == name)


def test_it_is_one_of_all_components(rendered):
    assert chunk(rendered["all"], "The greeting is present")["__sls__"] == "immich.example"
    assert chunk(rendered["clean"], "The greeting is absent")["__sls__"] == "immich.example.clean"
    assert {"sls": "immich.example"} in chunk(rendered["all"], "Immich is as declared")["require"]


def test_states_get_no_more_of_the_settings_than_they_need(rendered):
    """What is rendered is logged at debug level, and cached on a master."""
    states = {each["__id__"]: json.dumps(each) for each in rendered["all"]}
    assert [name for name, state in states.items() if TOKEN in state] == ["The hook of a failed backup is present"]
    assert chunk(rendered["all"], "The hook of a failed backup is present")["show_changes"] is False
    assert [name for name, state in states.items() if '"components"' in state] == ["Immich is as declared"]
    assert [name for name, state in states.items() if '"includes"' in state] == []


def test_it_is_applied_with_what_it_requires(answers):
    states = {state["__id__"]: state["result"] for state in answers["applied"].values()}
    assert states["The installation is the one on record"] is True
    assert states["The greeting is present"] is True
    assert "example.service" in answers["greeting"]


def test_verification_looks_at_its_units_and_calls_its_checks_after_it_is_applied(answers):
    verified = next(state for state in answers["applied"].values() if state["__id__"] == "Immich is as declared")
    assert verified["result"] is False
    unit, check = verified["comment"].splitlines()
    assert unit.startswith("example.service: is inactive. Next step: systemctl start example.service")
    assert check == "the greeting of port 2283 is nobody. Next step: greet somebody"


def test_so_does_the_doctor(answers):
    rows = [row for row in answers["doctor"] if row["part"] == "components"]
    assert [(row["result"], row["seen"]) for row in rows] == [
        ("failed", "example.service: is inactive"),
        ("failed", "the greeting of port 2283 is nobody"),
    ]
    assert rows[1]["remedy"] == "greet somebody"


def test_it_is_removed(answers, formula):
    removed = {state["__id__"]: state["changes"] for state in answers["removed"].values()}
    assert removed["The greeting is absent"] == {"removed": str(formula / "greeting")}


def test_it_is_documented(formula):
    subprocess.run([sys.executable, formula / "bin/docs"], check=True)
    page = (formula / "docs/states.md").read_text(encoding="utf8")
    assert "| [`immich.example`](#immichexample) | a greeting, where containers find the host" in page
    assert "## immich.example.clean\n\nRemoves the greeting." in page
    module = (formula / "docs/modules/example.md").read_text(encoding="utf8")
    assert "### example.verify" in module


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
    assert {each["__sls__"] for each in applied} == {
        "immich.bootstrap",
        "immich.bootstrap.host",
        *(f"immich.{name}" for name in components | {"verify"}),
    }
    verified = chunk(applied, "Immich is as declared")
    assert verified["settings"]["components"]["postgres"]["checks"] == ["immich_postgres.verify"]
    assert verified["require"] == [{"sls": f"immich.{name}"} for name in ("identity", "programs", "postgres", "backup")]
    assert {each["__sls__"] for each in removed} == {
        "immich.bootstrap",
        "immich.bootstrap.alone",
        *(f"immich.{name}.clean" for name in components - {"identity"}),
    }
    packages = [each["pkgs"] for each in applied if each["state"] == "pkg"]
    assert packages == [["postgresql-17", "postgresql-17-pgvector"]]
    assert [(state["__id__"], state["result"]) for state in other.values()] == [
        ("The pillar is valid", True),
        ("This host is ready for Immich", True),
        ("The roles of this host include immich.podman", False),
    ]
    assert "has no component podman" in list(other.values())[-1]["comment"]
    parts = {row["part"] for row in rows}
    assert {"PostgreSQL service", "disk space", "backups"} <= parts
    assert parts & {"Podman", "compose file", "Valkey service", "immich.service", "Immich", "uploads"} == set()
