"""The state that verifies: every finding in its comment, whoever cannot be asked."""

import pytest
from salt.exceptions import CommandExecutionError

from _states import immich_app
from immich_core import findings

SETTINGS = {"components": {"proxy": {"units": ["proxy.service"], "checks": ["proxy.verify", "proxy.absent"]}}}


@pytest.fixture
def salt(monkeypatch):
    """The execution functions that the state asks: nothing is found by any of them."""
    functions = {f"{module}.verify": lambda _settings: [] for module in (*immich_app.VERIFIED, "proxy")}
    functions |= {
        "immich_app.listens_everywhere": lambda *_: [],
        "immich.backup_warnings": lambda _settings: [],
        "immich_app.server_warnings": lambda _settings: [],
        "immich_valkey.refusals": lambda _settings: {"found": []},
        "immich_postgres.refusals": lambda _settings: {"found": []},
        "netns.listening": list,
        "proxy.absent": lambda _settings: [],
        "systemd_unit.status": lambda _unit: {"active": "active"},
    }
    monkeypatch.setattr(immich_app, "__salt__", functions, raising=False)
    monkeypatch.setattr(immich_app, "__opts__", {"test": False}, raising=False)
    return functions


def refuse(_):
    raise CommandExecutionError("Cannot connect to PostgreSQL")


def test_nothing_is_found(salt):
    ret = immich_app.verified("x", SETTINGS)
    assert ret == {"name": "x", "changes": {}, "result": True, "comment": "Everything is as declared"}


def test_every_finding_is_in_the_comment(salt):
    salt["immich_postgres.verify"] = refuse
    salt["immich_gateway.verify"] = lambda _settings: [findings.finding("x", "gateway", "It is gone", "bring it back")]
    salt["systemd_unit.status"] = lambda _unit: {"active": "failed"}
    del salt["proxy.absent"]
    ret = immich_app.verified("x", SETTINGS)
    assert ret["result"] is False
    assert ret["comment"].splitlines() == [
        "Cannot connect to PostgreSQL",
        "It is gone. Next step: bring it back",
        "proxy.service: is failed. Next step: systemctl start proxy.service || journalctl -n 20 -u proxy.service",
        "proxy.absent is not loaded",
    ]


def test_what_deserves_a_look_is_a_warning(salt):
    found = findings.finding("x", "refused by Valkey", "Valkey denied ECHO", "extra_rules", severity="warning")
    salt["immich_valkey.refusals"] = lambda _settings: {"found": [found]}
    salt["immich_postgres.refusals"] = refuse
    ret = immich_app.verified("x", SETTINGS)
    assert ret["result"] is True
    assert ret["warnings"] == [
        "Valkey denied ECHO. Next step: extra_rules",
        "What was refused to Immich is not known: Cannot connect to PostgreSQL",
    ]
