"""The formula as a package of Salt's package manager, built as docs/howto/install.md says."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]


def test_package_installs_what_the_repository_has(tmp_path):
    spm = str(Path(sys.executable).with_name("spm"))
    places = ("spm_build_dir", "spm_cache_dir", "formula_path", "pillar_path", "reactor_path", "spm_share_dir")
    config = {place: str(tmp_path / place) for place in places}
    config |= {"root_dir": str(tmp_path / "root"), "log_file": str(tmp_path / "log")}
    config |= {"spm_logfile": str(tmp_path / "log"), "spm_db": str(tmp_path / "spm_cache_dir/packages.db")}
    (tmp_path / "spm").write_text(yaml.safe_dump(config), encoding="utf-8")

    subprocess.run([spm, "-c", tmp_path, "build", "."], cwd=REPO, check=True)
    (package,) = (tmp_path / "spm_build_dir").glob("immich-*.spm")
    subprocess.run([spm, "-c", tmp_path, "local", "install", "-y", package], check=True)

    for folder in ("immich", "_beacons", "_modules", "_output", "_states", "_utils"):
        for directory, _, files in os.walk(REPO / folder):
            for name in files:
                installed = tmp_path / "formula_path" / Path(directory).relative_to(REPO) / name
                assert name.endswith(".pyc") or installed.exists(), installed
