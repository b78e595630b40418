"""The Salt extension in a Salt that does not have the formula, built and installed without network."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.functional.examples import PILLAR, STATES, examples, surroundings

# Debian 12's setuptools builds no wheel without a package that hosts do not have.
pytestmark = pytest.mark.once

REPO = Path(__file__).resolve().parents[2]
PACKAGE = "saltext/pgsql_valkey_podman"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("saltext", "_modules", "_states", "_utils"):
        shutil.copytree(REPO / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPO / name, folder / "source")
    pip("wheel", "--no-build-isolation", "-w", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def salt_call(wheel, tmp_path):
    """A function that runs ``salt-call`` with the extension, and returns what it prints and the data in that."""
    pip("install", "--target", tmp_path / "lib", wheel)
    for name in ("files", "pillar"):
        (tmp_path / name).mkdir()
    minion = {"file_client": "local", "id": "borrower", "root_dir": str(tmp_path), "log_file": str(tmp_path / "log")}
    minion |= {"file_roots": {"base": [str(tmp_path / "files")]}, "pillar_roots": {"base": [str(tmp_path / "pillar")]}}
    (tmp_path / "minion").write_text(yaml.safe_dump(minion), encoding="utf8")
    program = Path(sys.executable).with_name("salt-call")

    def run(*arguments):
        done = subprocess.run(
            [program, "-c", tmp_path, "--out=json", *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")},
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        return said, json.loads(done.stdout)["local"] if done.stdout.startswith("{") else None

    return run


def pip(command, *arguments):
    subprocess.run([sys.executable, "-m", "pip", command, "-q", "--no-deps", "--no-index", *arguments], check=True)


def test_it_has_each_module_and_state_that_knows_nothing_of_immich(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("modules", "states"):
        borrowed = {path.name for path in (REPO / f"_{kind}").glob("*.py") if not path.name.startswith("immich")}
        assert {Path(name).name for name in packed if name.startswith(f"{PACKAGE}/{kind}/")} == borrowed
    assert not [name for name in packed if "immich" in name]


def test_each_state_works(salt_call, tmp_path, session_loaders):
    sls = "\n".join(examples()[function] for function in STATES)
    (tmp_path / "files/borrowed.sls").write_text(sls, encoding="utf8")
    (tmp_path / "pillar/top.sls").write_text("base: {'*': [passwords]}", encoding="utf8")
    (tmp_path / "pillar/passwords.sls").write_text(yaml.safe_dump(PILLAR), encoding="utf8")
    with surroundings(session_loaders.states, tmp_path):
        said, answer = salt_call("state.apply", "borrowed")
    assert isinstance(answer, dict), said
    failed = {tag: state["comment"] for tag, state in answer.items() if state["result"] is not True}
    assert failed == {}
    assert sorted(".".join(tag.split("_|-")[::3]) for tag in answer) == sorted(STATES)


def test_what_is_synced_wins(salt_call, tmp_path):
    """A module, and a package of `_utils` that a module of the extension imports."""
    (tmp_path / "files/_modules").mkdir()
    (tmp_path / "files/_modules/systemd_unit.py").write_text("def status(name):\n    return 'synced'\n")
    shutil.copytree(REPO / "_utils/pgsql_core", tmp_path / "files/_utils/pgsql_core")
    driver = "def required_by(module):\n    return False, 'the synced package'\n"
    (tmp_path / "files/_utils/pgsql_core/driver.py").write_text(driver)

    assert salt_call("systemd_unit.status", "dbus.service")[1]["active"] == "active"
    assert salt_call("pgsql_server.version")[1] >= 140000
    salt_call("saltutil.sync_all")
    assert salt_call("systemd_unit.status", "dbus.service")[1] == "synced"
    assert "the synced package" in salt_call("pgsql_server.version")[0]
