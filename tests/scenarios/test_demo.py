"""bin/demo, as somebody without a terminal runs it."""

import re
import subprocess

import pytest

from tests.host.cache import CACHE, REPO
from tests.scenarios.conftest import untimed


@pytest.mark.long
def test_the_demo_deploys_shows_and_ends():
    done = subprocess.run(
        [REPO / "bin/demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout
    # What is built first, on a fresh clone, comes on top.
    assert len([line for line in untimed(done.stdout) if "] building " not in line]) <= 65, done.stdout
    for said in ("The plan for demo", "nothing to do", "a photo was uploaded", "allowed: none", "failed: none"):
        assert said in done.stdout
    assert re.search(r"on the disk: this host [\d.]+ GB", done.stdout)
    assert "data:image/png;base64," in (CACHE / "demo.html").read_text(encoding="utf8")
