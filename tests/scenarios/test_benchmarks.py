"""The benchmarks run, and say what they promise to say. What they measure is not judged here."""

import json
import subprocess

import pytest

from tests.host.cache import REPO

pytestmark = pytest.mark.long


def test_scale_prints_its_figures_as_one_object():
    command = [REPO / "benchmarks/scale", "--json", "--size", "10", "--part", "2", "--rounds", "1"]
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert (figures["size"], figures["part"], figures["rounds"]) == (10, 2, 1)
    for unit in ("acl_user", "acl_managed_user", "role", "database", "network"):
        # So few of them take less than the start of salt-call wavers: these are numbers of either sign.
        assert isinstance(figures[f"{unit}_ms"], float), unit
        assert isinstance(figures[f"{unit}_first_ms"], float), unit
    for subject in ("acl", "acl_managed", "role", "database", "network"):
        for ratio in (f"{subject}_vs_ansible", f"{subject}_first_vs_ansible", f"{subject}_floor_ms"):
            assert figures[ratio] > 0, ratio
    for subject in ("role", "database"):
        assert figures[f"{subject}_vs_core"] > 0, subject


def test_run_prints_its_figures_as_one_object():
    command = [REPO / "benchmarks/run", "--json", "--rounds", "1"]
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert figures["rounds"] == 1
    for ratio in ("converged_vs_floor", "converged_vs_ansible", "first_vs_ansible", "memory_vs_floor"):
        assert figures[ratio] > 0, ratio
    for run in ("converged", "changed", "first"):
        for tool in ("formula", "ansible", "core"):
            assert figures[f"{run}_{tool}_seconds"] > 0, (run, tool)
    for run in ("changed", "first"):
        # The start of the containers was found, of each tool, and is not the whole run.
        for tool in ("formula", "ansible", "core"):
            assert figures[f"{run}_{tool}_containers_seconds"] > 0, (run, tool)
    for tool in ("formula", "ansible", "core"):
        assert figures[f"converged_{tool}_containers_seconds"] == 0, tool
    assert figures["converged_formula_processes"]["podman"] > 0
    assert figures["converged_formula_connections"] == {"postgres": 2, "valkey": 1}
