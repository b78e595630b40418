"""The benchmarks run, without Ansible, and say what they promise to say. What they measure is not judged here."""

import json
import subprocess

import pytest

from tests.host.cache import REPO

pytestmark = pytest.mark.long


def figures_of(*command, check=True):
    command = [REPO / "benchmarks" / command[0], *command[1:], "--json", "--rounds", "1"]
    return json.loads(subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True).stdout)


def test_scale_prints_its_figures_as_one_object():
    figures = figures_of("scale", "--size", "10", "--part", "2", "--without-ansible")
    assert (figures["size"], figures["part"], figures["rounds"]) == (10, 2, 1)
    for unit in ("acl_user", "acl_managed_user", "role", "database", "network"):
        # So few of them take less than the start of salt-call wavers: these are numbers of either sign.
        assert isinstance(figures[f"{unit}_ms"], float), unit
        assert isinstance(figures[f"{unit}_first_ms"], float), unit
    for subject in ("role", "database"):
        assert figures[f"{subject}_floor_ms"] > 0, subject
        # Of what was measured on a part, beyond that start, and scaled up.
        assert isinstance(figures[f"{subject}_vs_core"], float), subject


def test_run_prints_its_figures_as_one_object():
    figures = figures_of("run", "--without-ansible")
    assert figures["rounds"] == 1
    for ratio in ("converged_vs_floor", "converged_vs_core", "first_vs_core", "memory_vs_floor"):
        assert figures[ratio] > 0, ratio
    for tool in ("formula", "core"):
        for run in ("converged", "changed", "first"):
            assert figures[f"{run}_{tool}_seconds"] > 0, (run, tool)
            # The start of the containers was found, and is not the whole run; a converged one has none.
            assert (figures[f"{run}_{tool}_containers_seconds"] > 0) is (run != "converged"), (run, tool)
    assert figures["converged_formula_processes"]["podman"] > 0
    assert figures["converged_formula_connections"] == {"postgres": 2, "valkey": 1}


def test_library_prints_its_figures_as_one_object():
    # So small a library misses marks: what does not grow with it is most of it.
    figures = figures_of("library", "--sizes", "200", check=False)["sizes"]["200"]
    for name in (
        "raw_dump_s",
        "dump_s",
        "raw_fill_s",
        "fill_s",
        "fill_cpu_s",
        "raw_down_s",
        "down_s",
        "template_s",
        "size_mb",
    ):
        assert figures[name] > 0, name
    assert figures["fill_s"] < figures["restore_s"]
    assert 10 < figures["peak_mib"] < 200
