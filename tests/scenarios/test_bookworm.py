"""Debian 12 and Salt 3006, from bare to serving: PostgreSQL 15, Redis 7.0, Podman 4.3, podman-compose 1.0.3.

Then Salt 3007 takes over. The newest Salt runs everywhere else.

What it cannot do is asserted too, with the reason. Its containers run without cgroups here, as ``tests/host/images.py``
says: limits of memory and processes are not part of this.
"""

import json

import pytest

from tests.host import images
from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry
from tests.scenarios.conftest import PASSWORDS, PILLAR, changed, get, pillar_with, post

pytestmark = pytest.mark.long
PROJECT = "/opt/podman/immich"
# As on a host without the repository of the PostgreSQL project.
NO_PGVECTOR = "Package: postgresql-15-pgvector\nPin: release *\nPin-Priority: -1\n"


@pytest.fixture(scope="module")
def lan():
    with Lan() as lan:
        Registry(lan, stored())
        yield lan


@pytest.fixture(scope="module")
def refused(lan):
    """A bare host, and what the first apply said without a repository that has pgvector."""
    with Host("host", lan=lan, suite="bookworm", layers=images.with_other_salt()) as host:
        use_registry(host)
        host.pillar(PILLAR)
        host.write("/etc/apt/preferences.d/no-pgvector", NO_PGVECTOR)
        yield host, host.apply(check=False)


@pytest.fixture(scope="module")
def deployed(refused):
    """The host with that repository, and the states of its first apply."""
    host, _ = refused
    host.run("rm /etc/apt/preferences.d/no-pgvector")
    states = host.apply()
    return host, states


@pytest.fixture
def host(deployed):
    return deployed[0]


def failed(states):
    return [state for state in states if state["result"] is False and "requisite failed" not in state["comment"]]


def test_without_a_package_of_pgvector_the_run_ends_at_it(refused):
    """Debian 12 has none, VectorChord neither: a repository of the PostgreSQL project has to be there."""
    host, states = refused
    first = next(state for state in failed(states) if "modules just synced" not in state["id"])
    assert first["id"] == "PostgreSQL is installed"
    assert "postgresql-15-pgvector" in first["comment"]
    assert host.run("ls /etc/systemd/system/immich.service", check=False).returncode


def test_first_apply_and_the_next(deployed):
    host, states = deployed
    assert host.salt("test.version").startswith("3006.")
    assert "Immich is running" in changed(states)
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert changed(host.apply()) == {}
    assert changed(host.apply(test=True)) == {}


def test_it_works(host):
    jobs = post(host, "/standin/jobs")
    assert jobs["completed"] == jobs["expected_per_queue"] or not jobs["errors"]
    assert jobs["denied"] == []
    post(host, "/standin/assets")
    state = get(host, "/standin/state")
    assert state["timezone"] == "Europe/Paris"
    assert state["storage"]["intact_assets"] == 1
    assert "vector" in json.dumps(state["extensions" if "extensions" in state else "database"])
    assert get(host, "/standin/ml")
    inspected = host.out("podman inspect immich-server immich-machine-learning")
    assert not [name for name, password in PASSWORDS.items() if json.dumps(password)[1:-1] in inspected]


def test_only_what_changed_is_made_anew(host):
    """A device too, whose group podman-compose 1.0.3 does not hand on."""
    node = "/dev/dri/renderD128"
    host.run(f"groupadd --system --force render; mkdir -p /dev/dri; mknod -m 660 {node} c 1 5; chgrp render {node}")
    ids = "podman ps --no-trunc --format '{{.Names}} {{.ID}}' | sort"
    before = dict(line.split() for line in host.out(ids).splitlines())
    more = {"server": {"environment": {"IMMICH_LOG_LEVEL": "warn"}}, "hardware": {"transcoding": "vaapi"}}
    host.pillar(pillar_with(**more))
    assert set(changed(host.apply())) == {"Immich's compose file is managed", "Immich is running"}
    after = dict(line.split() for line in host.out(ids).splitlines())
    assert before["immich-server"] != after["immich-server"]
    assert before["immich-machine-learning"] == after["immich-machine-learning"]
    host.run(f"podman exec immich-server sh -c ': <>{node}'")
    host.pillar(PILLAR)
    host.apply()


def test_day_two(host):
    name = host.salt("immich.backup")["name"]
    post(host, "/standin/assets")
    assert host.salt("immich.restore_drill", name)["changed"]["public.asset"] == {"backup": 1, "now": 2}
    host.salt("immich.restore", name, "confirm=host")
    assert get(host, "/standin/state")["database"]["counts"]["assets"] == 1
    rows = {row["part"]: row for row in host.salt("immich.doctor")}
    assert [row for row in rows.values() if row["result"] == "failed"] == []
    host.pillar(pillar_with(version="v3.3.2"))
    assert "Immich is running" in changed(host.apply())
    assert get(host, "/standin/state")["version"] == "v3.3.2"


def test_it_comes_back_after_a_reboot(host):
    host.reboot()
    host.wait_for("systemctl is-active immich", 300)
    assert get(host, "/api/server/ping") == {"res": "pong"}
    host.pillar(pillar_with(version="v3.3.2"))
    assert changed(host.apply()) == {}


def test_another_salt_takes_over(host):
    """As after an upgrade of Salt: its Python has no library of the formula's modules yet."""
    host.run("ln -sf /opt/other-salt/bin/salt-call /usr/local/bin/salt-call")
    try:
        assert host.salt("test.version").startswith("3007.")
        plan = "\n".join(state["comment"] for state in host.apply(test=True))
        assert "/opt/other-salt/bin/python3 -m pip install redis psycopg2-binary jsonschema" in plan
        assert set(changed(host.apply())) == {"Salt's Python has the libraries of the formula's modules"}
        host.pillar(pillar_with(version="v3.3.2", server={"environment": {"IMMICH_LOG_LEVEL": "warn"}}))
        planned = changed(host.apply(test=True))
        done = changed(host.apply())
        assert set(planned) == set(done) == {"Immich's compose file is managed", "Immich is running"}
        assert [row for row in host.salt("immich.doctor") if row["result"] == "failed"] == []
        name = host.salt("immich.backup")["name"]
        assert host.salt("immich.restore_drill", name)["changed"] == {}
        host.salt("immich.restore", name, "confirm=host")
        assert get(host, "/standin/state")["version"] == "v3.3.2"
    finally:
        host.run("ln -sf /opt/salt/bin/salt-call /usr/local/bin/salt-call")
    assert changed(host.apply()) == {}


def test_no_podman_compose_but_the_program_itself(host):
    """The subcommand came with Podman 4.7."""
    host.run("podman --help >/dev/null")
    assert host.run(f"cd {PROJECT} && podman compose ps", check=False).returncode
    assert "immich-server" in host.out(f"cd {PROJECT} && podman-compose ps 2>/dev/null")
    # A Podman that does not know its settings would complain at each call.
    assert host.run("podman ps").stderr == ""


def test_no_strict_isolation_and_a_word_about_it(host):
    """isolate: strict came with Podman 4.6 and netavark 1.7."""
    (warning,) = host.salt("immich_settings.warnings")
    assert warning["path"] == "immich:podman:external_networks:0:isolate"
    network = json.loads(host.out("podman network inspect immich"))[0]
    assert network["options"] == {"isolate": "true"}
    image = host.out("podman inspect --format '{{.ImageName}}' immich-machine-learning")
    host.run("podman network create --opt isolate=true other")
    reached = {}
    for network in ("other", "podman"):
        start = f"podman run --detach --rm --name {network}-server --network {network} --entrypoint python3"
        host.run(f"{start} {image} -m http.server 8000")
        there, immich = address(host, f"{network}-server"), address(host, "immich-machine-learning")
        host.wait_for(f"podman exec {network}-server {connect('127.0.0.1', 8000)}")
        assert not reaches(host, f"{network}-server", immich, 3003)
        if network == "podman":  # where it is meant to get, a busy machine may take longer than the try does
            host.wait_for(f"podman exec immich-server {connect(there, 8000)}")
        reached[network] = network == "podman" or reaches(host, "immich-server", there, 8000)
        host.run(f"podman rm --force --time 0 {network}-server")
    assert reached == {"other": False, "podman": True}


def address(host, container):
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return host.out(f"podman inspect --format '{form}' {container}")


def connect(target, port):
    return f"timeout 3 bash -c 'exec 3<>/dev/tcp/{target}/{port}'"


def reaches(host, container, target, port):
    return host.run(f"podman exec {container} {connect(target, port)}", check=False).returncode == 0


def test_clean(host):
    """Of roles that were narrowed since: no file of Podman's configuration says here that there is a network."""
    host.pillar(pillar_with(version="v3.3.2", roles=["postgres"]))
    states = host.apply("immich.clean")
    assert "Immich's unit is absent" in changed(states)
    assert host.out("podman ps --all --quiet") == ""
    assert host.run("podman network exists immich", check=False).returncode == 1
    assert changed(host.apply("immich.clean")) == {}
