"""A change restarts what it must and nothing else."""

import json
import re
import subprocess
import time

import pytest

from tests.scenarios.conftest import PRINTABLE, changed, foreign_connections, get, pillar_with, post, recreated
from tests.scenarios.test_interrupted import KILL_AT
from tests.scenarios.test_service import ids


def pids(host):
    """Main processes of the shared services: another number is a restart."""
    units = "postgresql@17-main valkey-server immich"
    return host.out(f"systemctl show -p MainPID --value {units}").split()


def applied(host, **changes):
    """Apply a changed pillar, after a dry run that must have told the same states."""
    host.pillar(pillar_with(**changes))
    planned = changed(host.apply(test=True))
    done = changed(host.apply())
    assert set(planned) == set(done)
    assert changed(host.apply()) == {}
    return done


def test_an_unknown_version_or_a_dead_registry_stops_nothing(host):
    before = ids(host)
    host.pillar(pillar_with(version="v3.3.77"))
    failed = [state for state in host.apply(check=False) if state["result"] is False]
    assert "v3.3.77" in failed[0]["comment"]
    assert "Nothing was stopped" in failed[0]["comment"]
    host.lan.registry.stop()
    host.pillar(pillar_with(version="v3.3.2"))
    try:
        failed = [state for state in host.apply(check=False) if state["result"] is False]
    finally:
        host.lan.registry.start()
    assert failed[0]["id"] == "Immich's images are present"
    assert ids(host) == before
    assert get(host, "/api/server/ping") == {"res": "pong"}


@pytest.mark.long
def test_a_machine_learning_setting_recreates_machine_learning_alone(host):
    before, services = ids(host), pids(host)
    applied(host, machine_learning={"environment": {"MACHINE_LEARNING_WORKERS": "2"}})
    after = ids(host)
    assert after["immich-server"] == before["immich-server"]
    assert after["immich-machine-learning"] != before["immich-machine-learning"]
    assert pids(host) == services


@pytest.mark.long
def test_machine_learning_can_be_disabled_and_is_looked_after_when_enabled_again(host):
    before = ids(host)
    applied(host, machine_learning={"enabled": False})
    assert ids(host) == {"immich-server": before["immich-server"]}
    assert "machine-learning" not in host.out("systemctl show -p StatusText immich")
    applied(host, machine_learning={"enabled": True})
    host.run("podman kill immich-machine-learning")
    host.wait_for("systemctl show -p StatusText immich | grep -q 'immich-machine-learning exited:'")
    host.wait_for("podman inspect --format '{{.State.Running}}' immich-machine-learning | grep -q true")


@pytest.mark.long
def test_another_gateway_address_can_be_chosen(host):
    applied(host, host_gateway="10.99.0.1")
    assert "10.88.0.1" not in host.out("ip -4 -br address show dev lo")
    assert "10.99.0.1" in host.out("podman exec immich-server cat /etc/hosts")
    host.reboot()
    host.wait_for("systemctl is-active immich", 300)
    assert host.out("systemctl is-active valkey-server postgresql@17-main").split() == ["active", "active"]
    assert changed(host.apply()) == {}


OTHER_SUBNET = {"external_networks": [{"name": "immich", "subnet": "172.22.0.0/16", "gateway": "172.22.0.1"}]}


@pytest.mark.long
def test_immich_is_stopped_and_started_around_a_change_of_its_network(own_host):
    host = own_host
    host.pillar(pillar_with(podman=OTHER_SUBNET))
    # Without the SLS that stops and starts Immich nothing is stopped, and a dry run says so.
    for test in (True, False):
        failed = [state for state in host.apply("immich.podman", test=test, check=False) if state["result"] is False]
        assert "immich-server" in failed[0]["comment"]
    planned = {state["id"]: set(state["changes"]) for state in host.apply(test=True) if state["changes"]}
    states = host.apply()
    assert {state["id"]: set(state["changes"]) for state in states if state["changes"]} == planned
    comments = {state["id"]: state["comment"] for state in states}
    assert (
        "the network immich is recreated"
        in comments["Immich is stopped before its network, password or identity changes"]
    )
    assert "downtime was" in comments["Immich is running"]
    assert "172.22.0.1" in host.out("podman network inspect immich")
    assert changed(host.apply()) == {}
    assert post(host, "/standin/jobs")["denied"] == []


def test_a_network_that_others_use_is_not_taken_away(host):
    image = "ghcr.io/immich-app/immich-machine-learning:v3.3.1"
    host.run(f"podman run --detach --name other --network immich --entrypoint sleep {image} 1000")
    before = ids(host)
    host.pillar(pillar_with(podman=OTHER_SUBNET))
    for test in (True, False):
        failed = [state for state in host.apply(test=test, check=False) if state["result"] is False]
        assert "Network immich is not as specified" in failed[0]["comment"]
        assert "other" in failed[0]["comment"]
    assert ids(host) == before
    assert get(host, "/api/server/ping") == {"res": "pong"}
    host.run("podman rm --force --time 0 other")


def test_somebody_elses_valkey_user_restarts_nothing(host):
    before, services = ids(host), pids(host)
    user = {"username": "other", "password": "another-password", "keypattern": "other:*", "commands": "+@read +@write"}
    done = applied(host, valkey={"acl_users": [user]})
    assert list(done) == ["The Valkey users are as listed"]
    assert ids(host) == before
    assert pids(host) == services
    login = "valkey-cli --no-auth-warning --user other --pass another-password"
    assert host.out(f"{login} set other:a 1") == "OK"
    host.run("systemctl restart valkey-server")
    assert host.out(f"{login} get other:a") == "1"


@pytest.mark.long
def test_a_moved_library_is_refused_until_the_pillar_says_so(own_host):
    host = own_host
    before = ids(host)
    host.pillar(pillar_with(upload_location="/srv/photos"))
    failed = [state for state in host.apply(check=False) if state["result"] is False]
    assert "upload_location_moved_from: /srv/immich/upload" in failed[0]["comment"]
    assert ids(host) == before
    assert host.run("test -e /srv/photos", check=False).returncode == 1
    host.run("systemctl stop immich; mv /srv/immich/upload /srv/photos")
    applied(host, upload_location="/srv/photos", upload_location_moved_from="/srv/immich/upload")
    assert get(host, "/api/server/ping") == {"res": "pong"}


def test_immich_answers_at_several_addresses_and_waits_for_them(own_host):
    host, vpn, ipv6 = own_host, "10.8.0.1", "fd00:198::11"
    host.run(f"ip -6 address add {ipv6}/64 dev host0 nodad; ip address add {vpn}/32 dev lo")
    host.lan.run("ip", "-6", "address", "add", "fd00:198::1/64", "dev", "br0", "nodad")
    host.lan.run("ip", "route", "add", vpn, "via", host.address)
    addresses = {"bind_address": [host.address, vpn, ipv6]}
    done = applied(host, **addresses)
    assert "Podman network immich is present" in done
    for address in (host.address, vpn, f"[{ipv6}]"):
        assert "pong" in host.lan.run("curl", "-sf", f"http://{address}:2283/api/server/ping")
    assert host.run("curl -s http://127.0.0.1:2283/", check=False).returncode == 7
    # A neighbour who routes packets to the containers gets nowhere, by IPv6 neither.
    ipv6_inside = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}"
    inside = host.out(f"podman inspect --format '{ipv6_inside}' immich-server")
    host.lan.run("ip", "-6", "route", "add", f"{inside}/128", "via", ipv6)
    past = ["curl", "-s", "--max-time", "2", f"http://[{inside}]:2283/api/server/ping"]
    assert subprocess.run([*host.lan.enter, *past], check=False).returncode == 28
    # The VPN goes down: nothing is changed, and Immich waits for it when it starts.
    host.run(f"ip address delete {vpn}/32 dev lo")
    before = ids(host)
    (failed,) = [state for state in host.apply(check=False) if state["result"] is False]
    assert f"immich:bind_address: {vpn} is on no interface" in failed["comment"]
    assert ids(host) == before
    host.run("systemctl restart --no-block immich")
    host.wait_for(f"systemctl show -p StatusText immich | grep -q 'Waiting for {vpn} of immich:bind_address'")
    host.run(f"ip address add {vpn}/32 dev lo")
    host.wait_for("systemctl is-active immich", 300)
    # Every address of IPv6, and none of IPv4.
    applied(host, bind_address="::")
    assert "pong" in host.lan.run("curl", "-sf", f"http://[{ipv6}]:2283/api/server/ping")
    assert host.run(f"curl -s http://{host.address}:2283/", check=False).returncode != 0
    host.wait_for(f"curl -sf -X POST http://[{ipv6}]:2283/standin/ml")  # the server gives machine learning two seconds


def test_settings_of_the_server_reach_its_container(own_host):
    host = own_host
    host.run("mkdir -p /srv/archive/2019 && echo photo >/srv/archive/2019/a.jpg; systemctl stop immich")
    host.run("cp -a /srv/immich/upload /srv/immich/of-2000")
    applied(
        host,
        port=8080,
        bind_address="127.0.0.1",
        external_libraries=["/srv/archive"],
        server={"environment": {"IMMICH_LOG_LEVEL": "debug"}, "user": "2000:2000", "read_only": False},
        machine_learning={"user": "3000:3000"},
        upload_location="/srv/immich/of-2000",
        upload_location_moved_from="/srv/immich/upload",
    )
    assert get(host, "/api/server/ping", port=8080) == {"res": "pong"}
    assert "127.0.0.1:8080" in host.out("podman port immich-server")
    inside = "podman exec immich-server"
    assert host.out(f"{inside} cat /srv/archive/2019/a.jpg") == "photo"
    assert host.run(f"{inside} touch /srv/archive/x", check=False).returncode != 0
    assert host.out(f"{inside} id -u") == "2000"
    assert host.out(f"{inside} printenv IMMICH_LOG_LEVEL TZ") == "debug\nEurope/Paris"
    assert host.out("stat -c '%u %a' /opt/podman/immich/secrets/db_password") == "2000 400"
    # The root is writable where that is said, and nowhere else: of machine learning, only its cache is.
    inside = "podman exec immich-machine-learning"
    assert host.out("podman inspect --format '{{.HostConfig.ReadonlyRootfs}}' immich-server") == "false"
    assert host.out(f"{inside} id -u") == "3000"
    assert host.out(f"{inside} printenv HF_XET_CACHE MPLCONFIGDIR") == "/cache/huggingface-xet\n/cache/matplotlib"
    host.run(f"{inside} sh -c 'mkdir -p $HF_XET_CACHE $MPLCONFIGDIR && touch $HF_XET_CACHE/a $MPLCONFIGDIR/a /tmp/a'")
    host.wait_for("curl -sf -X POST http://127.0.0.1:8080/standin/ml")  # the server gives machine learning two seconds
    assert host.out("stat -c %u /srv/immich/model-cache /srv/immich/model-cache/*/").split() == ["3000"] * 4
    assert "Read-only" in host.run(f"{inside} touch /usr/src/a", check=False).stderr


FORMER_SERVES = "The former settings were put back, and Immich serves again"
RECORD = "/opt/podman/immich/update.json"
PROGRAM = "/usr/local/lib/immich-formula/immich-stack"


# Half of what a start may take by default: nobody has waited for what is not to come.
SOON = 300


def failed_start(host, **changes):
    """What `Immich is running` says of settings with which the server does not serve; it says so soon."""
    host.pillar(pillar_with(**changes))
    states = {state["id"]: state for state in host.apply(check=False)}
    assert states["Immich is running"]["result"] is False
    assert states["Immich is running"]["duration"] < SOON * 1000
    return states["Immich is running"]["comment"]


def test_settings_with_which_the_server_does_not_serve_are_rolled_back(host):
    compose = host.read("/opt/podman/immich/docker-compose.yml")
    # The port moves and passwords change in the same run: those are not rolled back, and nothing runs twice.
    known = recreated(host)
    passwords = {"postgres": {"password": PRINTABLE[13:] + PRINTABLE[:13]}, "valkey": {"password": PRINTABLE[17:]}}
    broken = {"port": 8080, "server": {"environment": {"STANDIN_CRASH_AFTER": "0"}}}
    said = failed_start(host, **broken, **passwords)
    assert "The stand-in was told to crash" in said
    assert 'services:immich-server:environment:STANDIN_CRASH_AFTER: null becomes "0"' in said
    assert 'services:immich-server:ports: ["0.0.0.0:2283:2283"] becomes ["0.0.0.0:8080:2283"]' in said
    assert re.search(rf"{FORMER_SERVES}, after \d+\.\d+ s without an answer", said)
    assert "There were no errors" not in said
    assert recreated(host, known + 2) == known + 2
    assert post(host, "/standin/jobs")["denied"] == []
    assert host.read("/opt/podman/immich/docker-compose.yml") == compose
    assert host.out("systemctl is-active immich") == "active"
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1
    assert "STANDIN_CRASH_AFTER" in json.dumps(changed(host.apply(test=True)))
    host.pillar(pillar_with(**passwords))
    assert "Immich is running" not in changed(host.apply())


@pytest.mark.long
def test_a_change_of_settings_that_was_killed_is_rolled_back_by_the_next_run(host):
    broken = {"server": {"environment": {"STANDIN_START_DELAY": "86400"}}, "service": {"start_timeout": 30}}
    host.pillar(pillar_with(**broken))
    waiting = "podman exec immich-server printenv STANDIN_START_DELAY"
    assert host.out(KILL_AT.format(condition=f"{waiting} >/dev/null 2>&1")) == "killed"
    said = failed_start(host, **broken)
    assert "did not answer within 30 s" in said
    assert FORMER_SERVES in said
    # Killed again, and an update follows: what served last is what is put back.
    host.pillar(pillar_with(**broken))
    assert host.out(KILL_AT.format(condition=f"{waiting} >/dev/null 2>&1")) == "killed"
    said = failed_start(host, version="v3.3.97", service={"start_timeout": 30})
    assert "v3.3.1 serves again" in said
    assert get(host, "/api/server/ping") == {"res": "pong"}
    # Where the server did not serve before, there is nothing to put back.
    host.run("systemctl stop immich")
    said = failed_start(host, server={"environment": {"STANDIN_CRASH_AFTER": "0"}})
    assert "The stand-in was told to crash" in said
    assert "put back" not in said
    host.pillar(pillar_with())
    host.apply()
    assert changed(host.apply()) == {}


def no_foreign_connections(host):
    """True as soon as there is none: a server notes the end of a connection after its client."""
    for _ in range(60):
        found = foreign_connections(host)
        if not found:
            return True
        time.sleep(0.5)
    raise AssertionError(found)


@pytest.mark.long
def test_no_connection_stays_open(host):
    for pillar in ({"postgres": {"password": PRINTABLE + "x"}}, {}):
        host.pillar(pillar_with(**pillar))
        host.apply()
        assert no_foreign_connections(host)
    host.salt("immich.doctor")
    assert no_foreign_connections(host)


@pytest.mark.long
def test_limits_reach_the_container(own_host):
    """As far as a host without the cgroup controllers shows: there Podman makes the container and cannot start it."""
    host = own_host
    host.pillar(pillar_with(server={"memory_limit": "2g", "pids_limit": 500}))
    # Where it serves, the former settings would be put back.
    host.run("systemctl stop immich")
    host.apply(check=False)
    host.run(
        "systemctl stop immich; /usr/local/lib/immich-formula/immich-stack converge --directory /opt/podman/immich",
        check=False,
    )
    limits = host.out("podman inspect --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' immich-server")
    assert limits == f"{2 << 30} 500"
    if {"memory", "pids"} <= set(host.read("/sys/fs/cgroup/cgroup.controllers").split()):
        assert get(host, "/api/server/ping") == {"res": "pong"}
    else:
        host.wait_for("journalctl -u immich | grep -Eq 'crun: .*(memory.max|controller .pids. is not available)'")


def test_a_new_version_pulls_first_and_recreates_both(host):
    """The last test of this file: its host has a newer version then."""
    before, services = ids(host), pids(host)
    done = applied(host, version="v3.3.2")
    assert list(done)[:2] == ["Immich's images are present", "Immich's update is prepared"]
    assert not set(ids(host).values()) & set(before.values())
    assert pids(host) == services
    assert get(host, "/api/server/version")["patch"] == 2
