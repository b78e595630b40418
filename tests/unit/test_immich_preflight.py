"""Which cluster of PostgreSQL is in the way, and what would be bound where: decisions that need no host."""

import ipaddress
import os
import socket
import sys

import pytest

from host_core import listeners
from immich_core import findings
from immich_core.obstacles import ports, postgres_cluster, valkey
from immich_host import debian_clusters


@pytest.fixture
def clusters(monkeypatch, tmp_path):
    """A function that writes the configurations of some clusters, ``"17/main": "port = 5433"``."""
    monkeypatch.setattr(debian_clusters, "CLUSTERS", tmp_path)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name / "postgresql.conf"
            path.parent.mkdir(parents=True)
            path.write_text(f"# port = 1\n{text}\t# (change requires restart)\n")

    return write


@pytest.mark.parametrize(
    ("files", "listening", "port", "path", "words"),
    (
        ({}, [], 5432, None, ""),
        ({"99/main": "port = 5432"}, [5432], 5432, None, ""),
        ({"99/main": ""}, [], 5432, None, ""),
        ({"99/main": "port = 5433"}, [], 5433, None, ""),
        ({"99/main": "port = 5433"}, [], 5432, "postgres:port", "write `immich:postgres:port: 5433`"),
        ({"99/main": "port = 5433", "15/main": "port = 5432"}, [], 5432, "postgres:port", "the cluster 15/main"),
        # The package will create 99/main.
        ({"15/main": "port = 5432"}, [5432], 5432, "postgres:port", "taken by the cluster 15/main"),
        ({"15/main": "port = 5432"}, [5432], 5433, None, ""),
        ({"15/main": "port = 5432"}, [5432, 5433], 5432, "postgres:port", "write `immich:postgres:port: 5434`"),
        ({}, [5432], 5432, "postgres:port", "taken by another process"),
        ({}, [], 5999, "postgres:port", "write `immich:postgres:port: 5432`"),
        (
            {"99/other": "port = 5432"},
            [],
            5432,
            "lookup:postgres:unit",
            "`immich:lookup:postgres:unit: postgresql@99-other`,",
        ),
        ({"99/other": "port = '5433'"}, [], 5432, "lookup:postgres:unit", "and `immich:postgres:port: 5433`"),
    ),
)
def test_the_cluster_is_the_one_that_the_formula_will_use(clusters, files, listening, port, path, words):
    clusters(files)
    sockets = [{"port": each, "address": "127.0.0.1", "holder": None} for each in listening]
    held = debian_clusters.ports()
    problem = postgres_cluster.of_cluster("99", "main", port, sockets, held, debian_clusters.installed)
    assert (problem and problem["path"]) == (path and f"immich:{path}")
    assert words in (findings.sentence(problem) if problem else "")


def test_the_port_is_that_of_the_last_file_that_says_one(clusters, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    clusters({"99/main": f"data_directory = '{data}'\nport = 5432"})
    (tmp_path / "99/main/conf.d").mkdir()
    (tmp_path / "99/main/conf.d/a.conf").write_text("port 5433\n")
    assert debian_clusters.ports() == {("99", "main"): 5433}
    (data / "postgresql.auto.conf").write_text("port = '5434'\n")
    assert debian_clusters.ports() == {("99", "main"): 5434}


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["nginx: master"], "2283 is taken by nginx: (process 7)"),
        (["/usr/bin/conmon", "-n", "paperless"], "2283 is taken by the container paperless (process 7)"),
        (["/usr/bin/conmon", "-n", "immich-server", "--exit-command"], None),
        (["podman", "start", "immich-server"], None),
        (["podman", "start", "paperless"], "2283 is taken by podman (process 7)"),
        (None, "2283 is taken by another process"),
    ),
)
def test_a_port_is_free_for_immich_itself_alone(arguments, message):
    holder = arguments and {"number": 7, "arguments": arguments, "unit": ""}
    sockets = [
        {"port": 2283, "address": "127.0.0.1", "holder": holder},
        {"port": 80, "address": "0.0.0.0", "holder": None},
    ]
    found = list(ports.of_immich(2283, ["0.0.0.0"], sockets))
    assert [(each["path"], each["seen"]) for each in found] == ([] if message is None else [("immich:port", message)])


@pytest.mark.parametrize(
    ("desired", "held", "clash"),
    (
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "::", True),
        ("::", "0.0.0.0", False),
        ("::", "127.0.0.1", False),
        ("::", "fd00::1", True),
        ("fd00::1", "::", True),
        ("fd00::1", "0.0.0.0", False),
    ),
)
def test_an_address_of_one_version_is_none_of_the_other(desired, held, clash):
    assert ports.clash(ipaddress.ip_address(desired), ipaddress.ip_address(held)) is clash


def test_a_holder_is_named_so_that_it_can_be_found():
    conmon = {"number": 5, "arguments": ["/usr/bin/conmon", "-n", "cache"], "unit": "libpod-1.scope"}
    redis = {"number": 6, "arguments": ["/usr/bin/redis-server 127.0.0.1:6379"], "unit": "redis-server.service"}
    assert ports.named(conmon) == "the container cache (process 5)"
    assert ports.named(redis) == "redis-server (redis-server.service, process 6)"
    assert ports.named(None) == "another process"


PROGRAM = {"number": 7, "arguments": ["python3"], "unit": ""}
OWN = {"number": 8, "arguments": ["/usr/bin/valkey-server 127.0.0.1:6379"], "unit": "valkey-server.service"}


@pytest.mark.parametrize(
    ("configured", "holders", "code"),
    (
        (6379, {6379: OWN}, None),
        (6380, {6380: OWN}, "valkey-port"),
        # One that does not serve is moved.
        (6380, {}, None),
        (6379, {6379: PROGRAM}, "valkey-port-taken"),
        (None, {6379: None}, "valkey-port-taken"),
        (None, {}, None),
    ),
)
def test_a_valkey_that_serves_is_not_moved_and_gets_no_port_of_others(configured, holders, code):
    sockets = [{"port": port, "address": "127.0.0.1", "holder": holder} for port, holder in holders.items()]
    found = valkey.of_ports(6379, "valkey-server", ["127.0.0.1"], configured, sockets)
    assert [each["code"] for each in found] == ([code] if code else [])
    assert valkey.serves(6379, "valkey-server", sockets) is (holders.get(6379) is OWN)


def test_a_configuration_without_a_port_names_none():
    assert valkey.configured_port("bind 127.0.0.1\n# port 1\n") is None
    assert valkey.configured_port("port 6379\nport 6380\n") == 6380


@pytest.mark.only(sys.platform == "linux")
def test_who_holds_a_socket_is_looked_for_where_it_is_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, inode = server.getsockname()[1], os.fstat(server.fileno()).st_ino
        listening = [{"port": port, "inode": inode}, {"port": 1, "inode": inode}, {"port": port, "inode": 0}]
        own, elsewhere, nobody = listeners.Listeners(listening).with_holders({port})
    assert own["holder"]["number"] == os.getpid()
    assert "python" in own["holder"]["arguments"][0]
    assert elsewhere["holder"] is None
    assert nobody["holder"] is None
