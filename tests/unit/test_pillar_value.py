"""A value of the pillar is found as Salt's own functions find it."""

import pytest
import salt.utils.data

from host_core import pillar

PILLAR = {
    "immich": {"postgres": {"password": "secret-12345"}, "empty": None, "1": "text", 2: "number"},
    "list": [{"key": "first"}, {"other": "x"}, "last"],
}


@pytest.mark.parametrize(
    "path",
    (
        "immich:postgres:password",
        "immich:postgres",
        "immich:empty",
        "immich:empty:below",
        "immich:1",
        "immich:2",
        "immich:postgres:password:below",
        "immich:absent",
        "absent",
        "list:0:key",
        "list:key",
        "list:2",
        "list:9",
    ),
)
def test_a_path_leads_where_salt_finds_it(path):
    assert pillar.value(PILLAR, path) == salt.utils.data.traverse_dict_and_list(PILLAR, path, None, delimiter=":")
