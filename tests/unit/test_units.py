"""Names and order of the formula's units, and how they are written into unit files."""

import copy

from host_core import unit_file
from immich_core import units

SETTINGS = {
    "postgres": {"here": True},
    "valkey": {"here": True},
    "lookup": {
        "postgres": {"service": "postgresql", "unit": "postgresql@17-main"},
        "valkey": {"service": "valkey-server"},
    },
}


def elsewhere(*parts):
    return {**copy.deepcopy(SETTINGS), **{part: {"here": False} for part in parts}}


def test_a_managed_server_has_units_by_its_service_and_its_cluster():
    assert units.of_server(SETTINGS, "postgres") == ["postgresql.service", "postgresql@17-main.service"]
    assert units.of_server(SETTINGS, "valkey") == ["valkey-server.service"]
    assert units.of_server(elsewhere("postgres"), "postgres") == []


def test_immich_starts_after_the_gateway_and_the_servers_of_this_host():
    assert units.before_immich(SETTINGS) == [
        "immich-gateway.service",
        "postgresql.service",
        "postgresql@17-main.service",
        "valkey-server.service",
    ]
    assert units.before_immich(elsewhere("postgres", "valkey")) == ["immich-gateway.service"]


def test_words_of_a_unit_file_are_quoted():
    assert unit_file.quoted("/srv/my photos 100%") == '"/srv/my photos 100%%"'
    assert unit_file.quoted('/srv/"ä"') == '"/srv/\\"ä\\""'
    assert unit_file.command_word("/opt/my $projects 5%") == '"/opt/my $$projects 5%%"'
