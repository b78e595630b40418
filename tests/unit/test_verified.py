"""The state that verifies: every finding in its comment, whoever cannot be asked."""

from pathlib import Path

import pytest
import yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError

from _states import immich_app
from immich_core import components, findings

REGISTRY = yaml.safe_load((Path(__file__).resolve().parents[2] / "immich/components.yaml").read_text(encoding="utf8"))
PROXY = {"units": ["proxy.service"], "checks": ["proxy.verify", "proxy.absent"], "warnings": ["proxy.warnings"]}
SETTINGS = {"components": {**components.observed(REGISTRY, REGISTRY), "example": PROXY}}


@pytest.fixture
def salt(monkeypatch):
    """The execution functions that the registry names: nothing is found by any of them."""
    entries = SETTINGS["components"].values()
    functions = {name: lambda _settings: [] for entry in entries for name in (*entry["checks"], *entry["warnings"])}
    functions["systemd_unit.status"] = lambda _unit: {"active": "active"}
    monkeypatch.setattr(immich_app, "__salt__", functions, raising=False)
    monkeypatch.setattr(immich_app, "__opts__", {"test": False}, raising=False)
    return functions


def refuse(_):
    raise CommandExecutionError("Cannot connect to PostgreSQL")


def test_nothing_is_found(salt):
    ret = immich_app.verified("x", SETTINGS)
    assert ret == {"name": "x", "changes": {}, "result": True, "comment": "Everything is as declared"}


def test_every_finding_is_in_the_comment_causes_first(salt):
    salt["immich_gateway.verify"] = lambda _settings: [findings.finding("x", "gateway", "It is gone", "bring it back")]
    salt["immich_postgres.verify"] = refuse
    salt["systemd_unit.status"] = lambda _unit: {"active": "failed"}
    del salt["proxy.absent"]
    ret = immich_app.verified("x", SETTINGS)
    assert ret["result"] is False
    assert ret["comment"].splitlines() == [
        "It is gone. Next step: bring it back",
        "immich_postgres.verify: Cannot connect to PostgreSQL",
        "proxy.service: is failed. Next step: systemctl start proxy.service || journalctl -n 20 -u proxy.service",
        "proxy.absent is not loaded",
    ]


def test_what_deserves_a_look_is_a_warning(salt):
    found = findings.finding("x", "backups", "The last backup failed", "journalctl -u immich-backup")  # not a warning
    salt["immich.backup_warnings"] = lambda _settings: [found]
    salt["immich_postgres.refusals"] = lambda _settings: [{**found, "severity": findings.NOTE}]
    salt["proxy.warnings"] = refuse
    ret = immich_app.verified("x", SETTINGS)
    assert ret["result"] is True
    assert ret["warnings"] == [
        "The last backup failed. Next step: journalctl -u immich-backup",
        "proxy.warnings: Cannot connect to PostgreSQL",
    ]


@pytest.mark.parametrize(("component", "asked"), (("app", False), ("postgres", True)))
def test_a_dry_run_waits_for_immich_only_on_a_host_that_has_it(monkeypatch, salt, component, asked):
    monkeypatch.setattr(immich_app, "__opts__", {"test": True}, raising=False)
    salt["systemd_unit.status"] = lambda _unit: {"active": "inactive"}
    salt["immich_postgres.verify"] = salt["immich_app.verify_answer"] = refuse
    ret = immich_app.verified("x", {"components": {component: SETTINGS["components"][component]}})
    assert ret["result"] is None
    assert ("Cannot connect to PostgreSQL" in ret["comment"]) is asked


@pytest.mark.parametrize("error", (SaltInvocationError("no such password"), OSError("gone"), KeyError("port")))
def test_a_check_that_breaks_hides_no_other(salt, error):
    def broken(_settings):
        raise error

    salt["immich_valkey.verify"] = broken
    salt["proxy.verify"] = lambda _settings: [findings.finding("x", "proxy", "It is gone")]
    ret = immich_app.verified("x", SETTINGS)
    assert ret["comment"].splitlines() == [f"immich_valkey.verify: {error}", "It is gone"]
