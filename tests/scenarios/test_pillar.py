"""Wrong input is told all at once, by its pillar path, before anything but the bootstrap changes."""

import pytest

from tests.scenarios.conftest import PILLAR, changed, merged, pillar_with

WRONG = {
    "immich:postgres:password": {"postgres": {"password": "short"}},
    "immich:valkey:admin_password": {"valkey": {"admin_password": None}},
    "immich:valkey:pasword": {"valkey": {"pasword": "x" * 12}},
    "immich:port": {"port": "http"},
    "immich:timezone": {"timezone": "Australia/ACT"},
    "immich:upload_location": {"upload_location": "srv/upload"},
    "immich:server:environment:DB_SSL_MODE": {"server": {"environment": {"DB_SSL_MODE": ""}}},
    "immich:external_libraries:0": {"external_libraries": [5]},
    "immich:version": {"version": 3},
    "immich:machine_learning:enabled": {"machine_learning": {"enabled": "perhaps"}},
}


@pytest.fixture(scope="module")
def wrong(deployed_host):
    """A deployed host with a pillar that is wrong in many places at once, and what an apply says of it."""
    pillar = PILLAR
    for changes in WRONG.values():
        pillar = merged(pillar, changes)
    deployed_host.pillar(pillar)
    files = "find /etc /opt /srv/immich -newer /srv/pillar/immich.sls -type f"
    before = deployed_host.out(files)
    return deployed_host.apply(check=False), before, deployed_host.out(files)


def test_nothing_changes_and_one_state_says_it_all(wrong):
    states, before, after = wrong
    assert changed(states) == {}
    assert before == after
    assert len([state for state in states if state["result"] is False]) == 1


@pytest.mark.parametrize("path", WRONG)
def test_each_error_is_named_by_its_path(wrong, path):
    text = "\n".join(state["comment"] for state in wrong[0])
    assert f"{path}:" in text or f"{path} " in text, text


def test_no_password_is_in_what_it_says(wrong):
    assert "short\n" not in "\n".join(state["comment"] for state in wrong[0])


def test_the_likely_name_of_an_unknown_key_is_told(wrong):
    text = "\n".join(state["comment"] for state in wrong[0])
    assert "password" in text.split("immich:valkey:pasword", 1)[1].splitlines()[0]


def refusal(host, **changes):
    host.pillar(pillar_with(**changes))
    failed = [state for state in host.apply(check=False) if state["result"] is False]
    return "\n".join(state["comment"] for state in failed)


def network(subnet, gateway=None):
    gateway = gateway or subnet.replace("0/", "1/").split("/")[0]
    return {"external_networks": [{"name": "immich", "subnet": subnet, "gateway": gateway}]}


@pytest.mark.long
def test_what_the_host_already_has_is_looked_at(ready_host):
    host = ready_host
    host.run("podman network create --subnet 172.31.0.0/24 busy")
    host.run("setsid python3 -m http.server 2283 >/dev/null 2>&1 &")
    host.wait_for("curl -s http://127.0.0.1:2283/ >/dev/null")
    assert "immich:port" in refusal(host)
    assert "busy" in refusal(host, podman=network("172.31.0.0/16"))
    assert "198.51.100.0/24" in refusal(host, podman=network("198.51.100.0/24"))
    assert "gateway" in refusal(host, podman=network("172.20.0.0/16", "172.21.0.1"))
    assert "subnet" in refusal(host, podman=network("172.20.0.0/33"))
    assert host.run("test -e /opt/podman/immich", check=False).returncode != 0
    host.pillar({})
    text = "\n".join(state["comment"] for state in host.apply(check=False) if state["result"] is False)
    for path in ("immich:postgres:password", "immich:valkey:password", "immich:valkey:admin_password"):
        assert path in text
