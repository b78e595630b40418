"""What every SLS of the formula starts with: whether this host's obstacles keep it from being applied."""

import json
from pathlib import Path

import jinja2
import pytest

REPO = Path(__file__).resolve().parents[2]
RENDERED = '{% from "immich/settings.jinja" import obstacles, start with context %}{{ start(sls) }}'


@pytest.mark.parametrize(
    ("sls", "removes"),
    (
        ("immich", False),
        ("immich.app", False),
        ("immich.standalone", False),
        ("immich.unclean", False),
        ("immich.clean", True),
        ("immich.app.clean", True),
        ("immich.bootstrap.alone", True),
    ),
)
def test_obstacles_keep_everything_but_removals_from_being_applied(sls, removes):
    asked = []
    salt = dict.fromkeys(("pgsql_server.version", "valkey_acl.get"))
    salt["immich_settings.up_to_date"] = lambda: True
    salt["immich_settings.get"] = lambda: {"backup": {"on_failure": None}, "includes": {sls: []}, "components": {}}
    salt["immich_preflight.obstacles"] = lambda _settings, name: asked.append(name) or []
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(REPO), extensions=["jinja2.ext.do"])
    environment.filters["json"] = json.dumps
    text = environment.from_string(RENDERED).render(sls=sls, salt=salt, opts={"module_dirs": True, "test": False})
    assert asked == ([] if removes else [sls])
    assert ("immich.bootstrap.alone" in text) is (removes and sls != "immich.bootstrap.alone")
