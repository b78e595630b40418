"""Connection arguments that do not exist, in configuration or pillar: what asks a server fails with their names."""

from types import SimpleNamespace

import pytest

from _modules import immich_valkey, valkey_acl
from _states import immich_app, immich_identity, immich_update
from _states import immich_valkey as valkey_states
from _states import valkey_acl as acl_states
from immich_core import identity
from immich_io import installation

VALKEY, POSTGRES = "Unknown connection settings: pasword", "Unknown in a PostgreSQL connection: pasword"


def given(monkeypatch, modules, **dunders):
    for module in modules:
        for name, value in dunders.items():
            monkeypatch.setattr(module, f"__{name}__", value, raising=False)


@pytest.fixture
def of_valkey(monkeypatch, testmode):
    """In the minion's configuration."""
    opts, pillar = {"valkey": {"pasword": "x"}, "test": testmode}, {}
    salt = {
        **{f"valkey_acl.{name}": getattr(valkey_acl, name) for name in ("server", "pipeline", "compare")},
        "immich_valkey.logins": immich_valkey.logins,
    }
    modules = (immich_valkey, valkey_acl, valkey_states, acl_states)
    states = {"valkey_acl.managed": acl_states.managed}
    given(monkeypatch, modules, salt=salt, states=states, opts=opts, pillar=pillar, context={})


def test_preflight_names_them_and_renders(of_valkey, settings):
    settings["valkey"]["maxmemory"] = "1g"
    unit = f"{settings['lookup']['valkey']['service']}.service"
    serving = {"port": 6379, "address": "127.0.0.1", "holder": {"unit": unit}}
    (found,) = immich_valkey.obstacles(settings, SimpleNamespace(with_holders=lambda _ports: [serving]))
    assert (found["code"], found["seen"], found["path"]) == ("valkey-not-asked", VALKEY, "valkey")


def test_a_state_of_valkey_fails_with_them(of_valkey):
    ret = valkey_states.users_managed("x", users=[{"name": "immich"}], connection=[None])
    assert (ret["result"], ret["changes"]) == (False, {})
    assert VALKEY in ret["comment"]


@pytest.fixture
def of_postgres(loaders, modules, settings, monkeypatch, testmode, tmp_path):
    """In the pillar, on a host with another role on record: the settings."""
    loaders.opts["pillar"]["pgsql"] = {"pasword": "x"}
    monkeypatch.setattr(installation, "RECORD", tmp_path / "installation.json")
    opts = {"test": testmode}
    given(monkeypatch, (immich_app, immich_identity, immich_update), salt=modules, opts=opts, context={}, lowstate=[])
    settings["project_dir"] = str(tmp_path / "project")
    installation.note(**{**identity.declared(settings), "role": "photographer"})
    return settings


@pytest.mark.parametrize(
    "state",
    (
        immich_app.compose_file_managed,
        immich_identity.compared,
        immich_identity.network_replaced,
        immich_identity.recorded,
        immich_update.possible,
        immich_update.prepared,
    ),
)
def test_a_state_that_asks_postgresql_fails_with_them(of_postgres, state):
    ret = state("x", of_postgres)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert POSTGRES in ret["comment"]
