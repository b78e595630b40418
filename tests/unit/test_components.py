"""Which components a host has, what each SLS includes, and the registry itself."""

import re
from pathlib import Path

import pytest
import yaml

from immich_core import components

REPO = Path(__file__).resolve().parents[2]
REGISTRY = yaml.safe_load((REPO / "immich/components.yaml").read_text(encoding="utf8"))
ALL = ["postgres", "valkey", "server", "microservices", "machine_learning", "proxy"]
BOTH = ["postgres", "valkey"]
KEYS = {"brings", "requires", "requires_managed", "roles", "trace", "packages", "units", "checks", "warnings", "page"}
KEYS |= {"before", "clean", "obstacles", "only_with"}


def of_host(roles, email="ana@example.org"):
    """Components of a host with these roles and a pillar that declares accounts, or none."""
    return components.of_host(REGISTRY, {"roles": roles, "admin": {"email": email}})


@pytest.mark.parametrize(
    ("roles", "expected"),
    (
        (ALL, list(REGISTRY)),
        (["postgres"], ["identity", "programs", "postgres", "backup", "verify"]),
        (["valkey"], ["identity", "valkey", "verify"]),
        (["machine_learning"], ["identity", "preflight", "podman", "gateway", "verify"]),
        (["proxy"], ["identity", "verify"]),
    ),
)
def test_components_of_a_host(roles, expected):
    assert of_host(roles) == expected


def test_a_component_that_the_pillar_declares_nothing_of_is_on_no_host():
    assert of_host(ALL, email=None) == [name for name in REGISTRY if name != "accounts"]


def test_a_host_includes_what_it_has_and_no_more():
    host = of_host(["postgres"])
    includes = components.includes(REGISTRY, host, [], ["postgres"])
    assert includes["immich"] == [f"immich.{name}" for name in host]
    assert includes["immich.postgres"] == ["immich.identity"]
    assert includes["immich.verify"] == [f"immich.{name}" for name in host if name != "verify"]
    assert includes["immich.postgres.clean"] == ["immich.backup.clean"]


def test_what_requires_all_is_applied_last_wherever_its_entry_stands():
    registry = {"last": {"requires": "all"}, "first": {}, "second": {"requires": ["first"]}}
    registry["foreign"] = {"roles": ["proxy"]}
    host = components.of_host(registry, {"roles": ["postgres"]})
    assert host == ["first", "second", "last"]
    includes = components.includes(registry, host, [], [])
    assert includes["immich.last"] == ["immich.first", "immich.second"]
    # Nothing is removed before what it requires.
    assert includes["immich.clean"] == ["immich.last.clean", "immich.second.clean", "immich.first.clean"]
    assert includes["immich.first.clean"] == ["immich.last.clean", "immich.second.clean"]


def test_what_former_roles_have_left_is_removed_and_not_applied():
    host = of_host(["postgres"])
    includes = components.includes(REGISTRY, host, ["app", "valkey"], ["postgres", "valkey"])
    assert includes["immich"] == [f"immich.{name}" for name in host]
    removed = ["backup", "app", "valkey", "postgres", "programs"]
    assert includes["immich.clean"] == [f"immich.{name}.clean" for name in removed]
    assert includes["immich.valkey.clean"] == ["immich.app.clean"]
    # Where nothing of it was left, a removal by its name touches nothing else.
    assert includes["immich.gateway.clean"] == []


def test_what_waits_for_an_sls_is_what_the_host_has_of_it():
    assert components.waiting(REGISTRY, list(REGISTRY)) == {
        "immich.preflight.stopped": ["immich.podman", "immich.postgres", "immich.valkey"]
    }
    assert components.waiting(REGISTRY, ["identity", "preflight", "podman"]) == {
        "immich.preflight.stopped": ["immich.podman"]
    }
    assert components.waiting(REGISTRY, ["identity", "postgres"]) == {}


def test_a_component_of_another_role_is_named():
    host = of_host(["postgres"])
    settings = {
        "roles": ["postgres"],
        "components": components.observed(REGISTRY, host),
        "includes": components.includes(REGISTRY, host, [], ["postgres"]),
    }
    for sls in ("", "immich", "immich.postgres", "immich.bootstrap.host", "immich.programs"):
        assert components.other_role(settings, sls) is None
    for sls in ("immich.app", "immich.podman.installed"):
        found = components.other_role(settings, sls)
        assert found["path"] == "immich:roles"
        assert f"do not apply {sls} here" in found["remedy"]


def test_each_component_that_can_be_removed_has_a_trace_of_its_own():
    traces = components.traces(REGISTRY)
    assert set(traces) == {name for name, entry in REGISTRY.items() if entry.get("clean", True)}
    assert len(set(traces.values())) == len(traces)
    assert all(path.startswith(("/etc/", "/usr/local/", "/var/lib/immich-formula/")) for path in traces.values())


def test_a_server_that_is_managed_elsewhere_needs_no_gateway():
    managed, elsewhere = (components.includes(REGISTRY, list(REGISTRY), [], each) for each in (BOTH, ["postgres"]))
    assert managed["immich.valkey"] == ["immich.identity", "immich.gateway"]
    assert elsewhere["immich.valkey"] == ["immich.identity"]


def test_what_requires_a_component_is_removed_before_it():
    includes = components.includes(REGISTRY, list(REGISTRY), [], BOTH)
    assert includes["immich.clean"] == [
        f"immich.{name}.clean"
        for name in ("metrics", "backup", "accounts", "app", "valkey", "postgres", "gateway", "podman", "programs")
    ]
    assert includes["immich.postgres.clean"] == ["immich.backup.clean", "immich.app.clean"]
    assert includes["immich.backup.clean"] == ["immich.metrics.clean"]


def test_observed_has_each_key_whatever_an_entry_leaves_out():
    registry = {"a": {"units": ["a.service"]}, "b": {"checks": ["b.verify"], "page": "howto/b.md"}}
    assert components.observed(registry, ["a", "b"]) == {
        "a": {"units": ["a.service"], "checks": [], "warnings": [], "obstacles": []},
        "b": {"units": [], "checks": ["b.verify"], "warnings": [], "obstacles": []},
    }


@pytest.mark.parametrize("name", REGISTRY)
def test_an_entry_fits_its_folder(name):
    entry, folder = REGISTRY[name], REPO / "immich" / name
    assert set(entry) <= KEYS
    assert set(entry.get("roles", ALL)) <= set(ALL)
    assert (folder / "init.sls").is_file()
    assert (folder / "clean.sls").is_file() is entry.get("clean", True)
    assert "page" not in entry or (REPO / "docs" / entry["page"]).is_file()
    for sls, waiting in entry.get("before", {}).items():
        assert sls.partition(".")[0] == name
        assert (REPO / f"immich/{sls.replace('.', '/')}.sls").is_file()
        assert set(waiting) <= set(REGISTRY)
    before = list(REGISTRY)[: list(REGISTRY).index(name)]
    for each in [*components.requires(REGISTRY, name), *entry.get("requires_managed", [])]:
        component, _, part = each.partition(".")
        assert (REPO / "immich" / component / f"{part or 'init'}.sls").is_file()
        # A component is applied after those it requires; a part of another, or of its own, brings what it needs itself.
        assert part or component in before


@pytest.mark.parametrize("kind", ("checks", "warnings", "obstacles"))
def test_checks_are_functions_of_the_modules_of_the_formula(kind):
    named = {function for entry in REGISTRY.values() for function in entry.get(kind, [])}
    found = set()
    for path in (REPO / "_modules").glob("immich*.py"):
        text = path.read_text(encoding="utf8")
        module = re.search(r'^__virtualname__ = "(\w+)"', text, re.M)
        found |= {f"{module[1] if module else path.stem}.{name}" for name in re.findall(r"^def (\w+)", text, re.M)}
    assert named
    assert named <= found


def test_every_folder_has_an_entry():
    folders = {path.parent.name for path in (REPO / "immich").glob("*/init.sls")}
    assert folders - {"bootstrap"} == set(REGISTRY)
