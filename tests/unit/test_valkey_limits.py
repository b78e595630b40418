"""What bounds Valkey's memory, and what of the formula's users an older server knows."""

import pytest

from immich_core import valkey_memory, valkey_users

MIB = 1024**2


def held(used=1, limit=0):
    return {"used": used * MIB, "limit": limit * MIB, "policy": "noeviction", "busy_reply_threshold": 5000}


@pytest.mark.parametrize(
    ("maxmemory", "server", "refused"),
    (
        ("1g", held(), False),
        ("64m", held(used=100), True),
        ("64m", held(used=64), True),
        ("64m", held(used=100, limit=64), False),  # it refuses writes already
        ("64m", held(used=100, limit=200), True),
    ),
)
def test_a_limit_below_what_the_server_holds_is_refused(maxmemory, server, refused):
    assert bool(valkey_memory.refusal(maxmemory, server)) is refused


@pytest.mark.parametrize(
    ("maxmemory", "server", "host_megabytes", "limit"),
    (
        (None, held(), 16384, "2048mb"),
        (None, held(), 1024, "512mb"),
        (None, held(used=700), 1024, "1400mb"),
        (None, held(limit=300), 16384, None),
        ("1g", held(limit=300), 16384, "1gb"),
    ),
)
def test_a_server_without_a_limit_gets_a_part_of_the_hosts_memory(maxmemory, server, host_megabytes, limit):
    found = valkey_memory.directives(maxmemory, server, host_megabytes)
    assert list(found.items()) == ([("maxmemory-policy", "noeviction"), ("maxmemory", limit)] if limit else [])


@pytest.mark.parametrize(
    ("product", "version", "known"),
    (("Redis", "7.0.15", False), ("Redis", "7.2.4", True), ("Redis", "8.0.0", True), ("Valkey", "7.2.5", True)),
)
def test_a_server_gets_no_rule_that_it_does_not_know(product, version, known):
    own = {"name": "immich", "rules": valkey_users.RULES, "allows": valkey_users.ALLOWS}
    (user,) = valkey_users.fitted([own], {"product": product, "version": version})
    assert ("+client|setinfo" in user["rules"].split()) is known
    assert ("CLIENT SETINFO" in user["allows"]) is known
    assert "+client|setname" in user["rules"].split()
