"""The settings of a short pillar, and a full disk, for whoever needs some."""

import copy
import subprocess

import pytest

PILLAR = {
    "timezone": "Europe/Paris",
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-12", "admin_password": "admin-secret-123"},
}


@pytest.fixture
def settings(loaders, modules):
    loaders.opts["pillar"]["immich"] = copy.deepcopy(PILLAR)
    return modules.immich_settings.get()


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a file system with no room left."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    (tmp_path / "update.json").write_text("before")
    (tmp_path / "installation.json").write_text('{"format": 1, "parts": {"role": "before"}}')
    with pytest.raises(OSError, match="No space"), open(tmp_path / "filler", "wb") as filler:
        filler.write(b"x" * 2**17)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)
