"""Fuzzed pillars, really applied: Immich serves under them, or a clear error says why not and nothing changed."""

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.pillars import MARK, RIGHT, WRONG
from tests.scenarios.conftest import PILLAR, changed, get, merged

# All that the formula manages on a host, in a form that can be compared. Times and logs are not among it.
SNAPSHOT = r"""
find /etc/systemd /etc/immich* /etc/containers /etc/tmpfiles.d /etc/valkey /etc/postgresql /opt /usr/local/lib /srv \
  -xdev \( -path /srv/formula -o -path /srv/pillar -o -path '*/upload/*' -o -path '/opt/salt' -o -path '/opt/pypi*' \) \
  -prune -o -type f -exec sha256sum {} + -o -type d -printf '%p %m %u %g\n' | sort
systemctl list-unit-files 'immich*' --no-legend
cd / && runuser -u postgres -- psql -At \
  -c 'SELECT rolname, rolpassword, rolsuper FROM pg_authid ORDER BY 1' \
  -c 'SELECT datname, datdba, datacl FROM pg_database ORDER BY 1' \
  -c 'SELECT * FROM pg_hba_file_rules' -c 'SHOW listen_addresses'
valkey-cli --no-auth-warning --user immich-formula --pass "$(cat /etc/immich-formula/valkey.password)" ACL LIST | sort
podman network ls --format '{{.Name}} {{.ID}}' | sort
podman ps --all --format '{{.Names}} {{.ID}} {{.State}} {{.StartedAt}}' | sort
ip -brief address show dev lo
"""
# What a host without a registry of its own cannot have, or the scenarios have elsewhere.
MOVES = ("upload_location", "upload_location_moved_from", "storage", "storage_moved_from")
NOT_HERE = ("lookup", "version", "host_gateway", "network", "clean", *MOVES)


def fuzz(strategy, examples):
    """A decorator: so many pillars of a strategy, each once. To shrink one that fails would take hours."""
    few = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    return lambda test: few(given(pillar=strategy)(test))


def deployable(pillar):
    """A right pillar as one for this host: its own services, the stand-in images, networks that nothing else has."""
    pillar = {key: value for key, value in pillar.items() if key not in NOT_HERE}
    for service in ("postgres", "valkey"):
        kept = ("password", "admin_password", "acl_users", "vector_extension")
        pillar[service] = {key: value for key, value in pillar.get(service, {}).items() if key in kept}
    for part in ("server", "machine_learning"):
        # Limits want cgroup controllers, which a test host may not have: test_changes.py has them.
        left_out = ("image", "user", "own_user", "memory_limit", "pids_limit")
        pillar[part] = {key: value for key, value in pillar.get(part, {}).items() if key not in left_out}
    others = [each for each in pillar.get("podman", {}).get("external_networks", []) if each["name"] != "immich"]
    pillar["podman"] = {"external_networks": [each for each in others if each["subnet"] != "172.20.0.0/16"]}
    pillar["bind_address"] = "0.0.0.0"
    return merged(PILLAR, pillar)


def told(states):
    return "\n".join(str(state["comment"]) for state in states)


@pytest.mark.long
def test_wrong_pillars_change_nothing(deployed_host):
    host, ends = deployed_host, {"refused": 0, "right": 0}
    before = host.out(SNAPSHOT)

    @fuzz(WRONG.filter(renderable), 12)
    def applied(pillar):
        host.pillar(pillar)
        if host.salt("immich_settings.errors") == []:
            ends["right"] += 1
            return
        states = host.apply(check=False)
        failed = [state for state in states if state["result"] is False]
        assert "immich:" in told(failed) or "immich " in told(failed)
        assert "Traceback" not in told(states)
        assert MARK not in json.dumps(states)
        assert changed(states) == {}
        ends["refused"] += 1

    applied()
    assert host.out(SNAPSHOT) == before
    assert ends["refused"] > ends["right"], ends


@pytest.mark.long
def test_right_pillars_end_in_a_deployment(deployed_host):
    """On the host that the wrong ones have left as it was."""
    host, ends = deployed_host, {"serves": 0, "refused": 0}

    @fuzz(RIGHT.map(deployable), 5)
    def applied(pillar):
        for library in pillar.get("external_libraries", []):
            folder = library if isinstance(library, str) else library["path"]
            host.run('IFS= read -r folder; mkdir -p -- "$folder"', stdin=f"{folder}\n")
        host.pillar(pillar)
        before = host.out(SNAPSHOT)
        states = host.apply(check=False)
        assert "Traceback" not in told(states)
        assert MARK not in json.dumps(states)
        if [state for state in states if state["result"] is False]:
            assert host.out(SNAPSHOT) == before, told(states)
            ends["refused"] += 1
            return
        assert get(host, "/api/server/ping", pillar.get("port", 2283)) == {"res": "pong"}
        assert changed(host.apply(test=True)) == {}
        ends["serves"] += 1

    applied()
    assert ends["serves"] > ends["refused"], ends


def renderable(pillar):
    """Whether JSON, in which the scenarios write their pillars, has all of it."""
    try:
        return json.loads(json.dumps(pillar)) is not None
    except (TypeError, ValueError):
        return False
