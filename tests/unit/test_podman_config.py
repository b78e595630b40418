"""The configuration of `podman compose`, as Podman reads it."""

from pathlib import Path

import pytest
import tomllib  # Python 3.11, the oldest of the test hosts
from jinja2 import Environment

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.once
@pytest.mark.parametrize(
    "provider", ("/usr/bin/podman-compose", "/srv/\U00010000A", '/srv/a"b', "/srv/a\\u0041<&'{{}}")
)
def test_any_path_is_a_provider(provider):
    template = (REPO / "immich/podman/files/50-immich.conf.j2").read_text(encoding="utf8")
    text = Environment().from_string(template).render(compose_provider=provider)
    assert tomllib.loads(text)["engine"]["compose_providers"] == [provider]
