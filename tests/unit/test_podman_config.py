"""The configuration of `podman compose`, as Podman reads it."""

import sys
from pathlib import Path

import pytest
from jinja2 import Environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "provider", ("/usr/bin/podman-compose", "/srv/\U00010000A", '/srv/a"b', "/srv/a\\u0041<&'{{}}")
)
def test_any_path_is_a_provider(provider):
    template = (REPO / "immich/podman/files/50-immich.conf.j2").read_text(encoding="utf8")
    text = Environment().from_string(template).render(compose_provider=provider)
    assert tomllib.loads(text)["engine"]["compose_providers"] == [provider]
