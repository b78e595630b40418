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
