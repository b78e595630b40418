"""The life of immich.service, and what people do by hand beside it."""

import pytest

from tests.scenarios.conftest import get

PROJECT = "/opt/podman/immich"


def ids(host):
    lines = host.out("podman ps --no-trunc --format '{{.Names}} {{.ID}}'").splitlines()
    return dict(line.split() for line in lines)


def active(host):
    return host.out("systemctl is-active immich", check=False)


def test_start_returns_when_the_server_answers_and_stop_leaves_the_network(host):
    host.run("systemctl stop immich")
    assert active(host) == "inactive"
    assert ids(host) == {}
    assert "immich" in host.out("podman network ls --format '{{.Name}}'").split()
    host.run("systemctl start immich && curl -sf http://127.0.0.1:2283/api/server/ping")
    host.run("systemctl restart immich && curl -sf http://127.0.0.1:2283/api/server/ping")
    assert "Serving" in host.out("systemctl status immich")


@pytest.mark.long
def test_stop_removes_a_container_whose_monitor_was_killed(host):
    """As systemd does to a unit that is stopped while it starts: Podman fails at first to remove the container."""
    host.run("kill -9 $(podman inspect --format '{{.State.ConmonPid}}' immich-machine-learning)")
    assert host.out("podman container inspect --format '{{.State.Running}}' immich-machine-learning") == "true"
    host.run("systemctl stop immich")
    assert active(host) == "inactive"
    assert host.out("podman ps --all --format '{{.Names}}'") == ""
    host.run("systemctl start immich")


@pytest.mark.long
def test_by_hand_down_makes_the_unit_inactive_for_good(host):
    host.run(f"cd {PROJECT} && podman compose ps && podman compose logs --tail 1 && podman compose down")
    host.wait_for("! systemctl is-active immich")
    host.run("sleep 8")
    assert active(host) == "inactive"
    assert ids(host) == {}
    host.run(f"cd {PROJECT} && podman compose up -d")
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
    host.run(f"systemctl start immich && cd {PROJECT} && podman compose pull")
    assert active(host) == "active"


@pytest.mark.long
def test_by_hand_force_recreate_keeps_the_unit_active_and_its_logs_going(host):
    before = ids(host)
    cursor = host.out("journalctl -u immich -n 1 --show-cursor | sed -n 's/^-- cursor: //p'")
    host.run(f"cd {PROJECT} && podman compose up -d --force-recreate")
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
    host.run("sleep 8")
    assert active(host) == "active"
    assert set(ids(host)) == set(before)
    assert not set(ids(host).values()) & set(before.values())
    for name in ("immich-server", "immich-machine-learning"):
        host.wait_for(f"journalctl -u immich --after-cursor '{cursor}' | grep '{name} | '")


@pytest.mark.long
def test_a_killed_container_comes_back(host):
    host.run("podman kill immich-server")
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
    host.run("podman kill immich-machine-learning")
    host.wait_for("podman inspect --format '{{.State.Running}}' immich-machine-learning | grep -q true", 120)
    assert active(host) == "active"


def test_a_crash_loop_shows_in_the_status_and_start_fails_with_the_reason(host):
    """The reason is the first error, and not the stack frames and colors that the server writes after it."""
    host.run("systemctl stop immich; printf wrong-password >/opt/podman/immich/secrets/db_password")
    done = host.run("systemctl start immich", check=False)
    assert done.returncode != 0
    status = host.out("systemctl show --property ActiveState,StatusText immich", check=False)
    assert "ActiveState=active" not in status
    assert "with code 1: [Microservices:Bootstrap] password authentication failed for user" in status
    assert "\x1b" not in status


SLOW = f"""
import yaml
compose = yaml.safe_load(open("{PROJECT}/docker-compose.yml"))
compose["services"]["immich-server"]["environment"].update(STANDIN_START_DELAY="3600", STANDIN_CRASH_AFTER="2")
yaml.safe_dump(compose, open("{PROJECT}/docker-compose.yml", "w"))
"""


def test_a_slow_host_gives_up_too(host):
    """Each start takes longer than an exit is remembered, and none of them serves: only serving clears the count."""
    host.write("/run/test/slow.py", SLOW)
    program = "/usr/local/lib/immich-formula/immich-stack"
    steady = "^STEADY_SECONDS = 60"
    host.run(f"systemctl stop immich; grep -q '{steady}' {program}")
    host.run(f"sed -i 's/{steady}/STEADY_SECONDS = 1/' {program}")
    done = host.run("python3 /run/test/slow.py && timeout 400 systemctl start immich", check=False, timeout=500)
    assert done.returncode not in (0, 124)
    status = host.out("systemctl show --property StatusText immich")
    assert "exited 3 time(s) in a row" in status
    assert "The stand-in was told to crash" in status


def test_a_compose_file_broken_by_hand_is_named_and_stop_still_stops(host):
    host.run(f"echo '{{broken' >{PROJECT}/docker-compose.yml; systemctl stop immich")
    assert ids(host) == {}
    assert host.run("systemctl start immich", check=False).returncode != 0
    assert "is not the one that Salt wrote" in host.out("systemctl status immich", check=False)
    host.run(f"rm {PROJECT}/docker-compose.yml")
    host.apply()
    assert get(host, "/api/server/ping") == {"res": "pong"}


def test_the_upload_mount_is_needed(host):
    assert "/srv/immich/upload" in host.out("systemctl show -p RequiresMountsFor immich")
    host.run(
        "echo 'tmpfs /srv/immich/upload tmpfs noauto 0 0' >>/etc/fstab; systemctl daemon-reload; systemctl stop immich"
    )
    states = host.apply(check=False)
    failed = [state for state in states if state["result"] is False]
    assert "is not mounted" in failed[0]["comment"]
    host.run("sed -i '/immich.upload tmpfs/d' /etc/fstab; systemctl daemon-reload; systemctl start immich")


def test_machine_learning_that_crashes_shows_in_the_status_while_photos_are_served(host):
    host.run("podman exec immich-machine-learning sh -c 'kill 1'", check=False)
    host.wait_for("systemctl status immich | grep -q 'immich-machine-learning exited:'", 120)
    assert get(host, "/api/server/ping") == {"res": "pong"}
