"""What the benchmarks' other tools copy to a host."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
LIBRARY = "/usr/local/lib/immich-formula/"


@pytest.mark.parametrize("program", ("immich-stack", "immich-backup"))
def test_a_program_has_all_that_it_imports(tmp_path, program):
    for each in yaml.safe_load((REPO / "benchmarks/playbooks/run/vars.yml").read_text(encoding="utf8"))["programs"]:
        if each["dest"].startswith(LIBRARY):
            copy = tmp_path / each["dest"][len(LIBRARY) :]
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(REPO / each["src"], copy)
    subprocess.run([sys.executable, tmp_path / program, "--help"], env={}, stdout=subprocess.DEVNULL, check=True)
