"""The settings of a short pillar, for whoever needs some."""

import copy

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
