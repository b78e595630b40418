"""What every SLS of the formula starts with: whether this host's obstacles keep it from being applied."""

import json
from pathlib import Path

import jinja2
import pytest
import yaml

from _modules import immich_preflight

REPO = Path(__file__).resolve().parents[2]
RENDERED = """
{% from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
rest: {{ settings | json }}
"""
SETTINGS = {
    "backup": {"on_failure": "a token", "keep": 7},
    "includes": {"immich.app": ["immich.podman"]},
    "before": {"immich.preflight.stopped": ["immich.podman"]},
    "components": {},
}


@pytest.fixture
def rendered(monkeypatch):
    """A function: what an SLS starts with on a host with obstacles, or before the modules are there."""

    def rendered(sls, obstacles=(), synced=True):
        monkeypatch.setattr(immich_preflight, "__salt__", {"immich_settings.get": lambda: SETTINGS}, raising=False)
        monkeypatch.setattr(immich_preflight, "obstacles", lambda _settings, _sls: list(obstacles))
        salt = {"immich_settings.up_to_date": lambda: synced, "immich_preflight.of_sls": immich_preflight.of_sls}
        # As Salt has it: what is undefined fails the rendering.
        strict = {"undefined": jinja2.StrictUndefined, "extensions": ["jinja2.ext.do"]}
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(REPO), **strict)
        environment.filters["json"] = json.dumps
        text = environment.from_string(RENDERED).render(sls=sls, salt=salt, opts={"module_dirs": True, "test": False})
        return yaml.safe_load(text)

    return rendered


@pytest.mark.parametrize("sls", ("immich", "immich.app", "immich.standalone", "immich.unclean"))
def test_obstacles_keep_what_is_no_removal_from_being_applied(rendered, sls):
    start = rendered(sls, [{"code": "port-taken"}])
    assert start == {"include": ["immich.bootstrap", "immich.bootstrap.host"], "rest": {}}


@pytest.mark.parametrize("sls", ("immich.clean", "immich.app.clean"))
def test_a_removal_is_applied_whatever_is_in_the_way(rendered, sls):
    start = rendered(sls, [{"code": "port-taken"}])
    assert start == {"include": ["immich.bootstrap", "immich.bootstrap.alone"], "rest": SETTINGS}


def test_a_component_includes_what_it_requires(rendered):
    assert rendered("immich.app")["include"] == ["immich.bootstrap", "immich.bootstrap.host", "immich.podman"]


def test_what_waits_for_a_part_is_a_requisite_of_it_alone(rendered):
    rendered("immich.app")
    assert immich_preflight.of_sls("immich.preflight.stopped")["before"] == [{"sls": "immich.podman"}]
    assert immich_preflight.of_sls("immich.preflight")["before"] == []


def test_a_component_of_another_role_is_one_failed_state(rendered):
    start = rendered("immich.app", [{"code": "other-role"}])
    assert start["The roles of this host include immich.app"] == {
        "immich.host_ready": [{"obstacles": [{"code": "other-role"}]}]
    }


def test_without_the_modules_it_is_applied_after_they_are_synced(rendered):
    start = rendered("immich.app", synced=False)
    assert start["include"] == ["immich.bootstrap"]
    assert start["rest"] == {}
    assert "immich.app is applied with the modules just synced" in start


def test_states_get_the_settings_without_the_hook_and_the_registry(rendered):
    rendered("immich.app")
    assert immich_preflight.of_sls("immich.app")["handed_down"] == {"backup": {"keep": 7}}
