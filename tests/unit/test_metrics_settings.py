"""Metrics: what the pillar may declare of them, and what compose file and firewall make of it."""

import pytest

from immich_core import compose, gateway, telemetry
from tests.unit.test_immich_settings import REQUIRED, Settings, merged

NETWORK = {"name": "immich", "subnet": "172.20.0.0/16", "gateway": "172.20.0.1", "interface_name": "immich0"}
ON = {"enabled": True}


@pytest.fixture
def module():
    return Settings()


@pytest.mark.parametrize(
    ("metrics", "path", "words"),
    (
        ({"listen": "localhost"}, "listen", "must be an address of IPv4"),
        ({"listen": "::"}, "listen", "must be an address of IPv4"),
        ({"listen": "224.0.0.1"}, "listen", "must be an address of IPv4"),
        ({"allow": ["192.0.2.1/24"]}, "allow:0", "must be an address or a subnet of IPv4"),
        ({"allow": ["192.0.2.7", "fd00::1"]}, "allow:1", "must be an address or a subnet of IPv4"),
        ({"allow": ["0.0.0.0/0"]}, "allow:0", "is everybody"),
        ({**ON, "listen": "0.0.0.0"}, "allow", "is required where immich:metrics:listen is 0.0.0.0"),
        ({**ON, "allow": ["192.0.2.7"]}, "allow", "has no effect while immich:metrics:listen is 127.0.0.1"),
        ({**ON, "api_port": 2283}, "api_port", "is the same as immich:port"),
        ({**ON, "api_port": 5432}, "api_port", "is the same as immich:postgres:port"),
        ({**ON, "api_port": 8082}, "microservices_port", "is the same as immich:metrics:api_port"),
        ({"textfile_directory": "/etc"}, "textfile_directory", "must not be /etc itself"),
        # What a container can write, root must not replace files in.
        ({"textfile_directory": "/srv/immich/upload/m"}, "textfile_directory", "overlaps immich:upload_location"),
    ),
)
def test_what_is_refused(module, metrics, path, words):
    errors = module.errors(merged(REQUIRED, {"metrics": metrics}))
    assert list(errors) == [f"immich:metrics:{path}"]
    assert errors[f"immich:metrics:{path}"].startswith(words)


def test_ports_of_disabled_metrics_are_free(module):
    module.get({"port": 8081, "valkey": {"port": 8082}})


@pytest.mark.parametrize("name", ("IMMICH_API_METRICS_PORT", "IMMICH_MICROSERVICES_METRICS_PORT"))
def test_a_port_has_one_place(module, name):
    variables = {"server": {"environment": {name: 9000}}}
    module.get(variables)
    path = f"immich:server:environment:{name}"
    assert list(module.errors(merged(REQUIRED, {**variables, "metrics": ON}))) == [path]


def test_the_compose_file_has_metrics_only_if_they_are_declared(module):
    server = compose.project(module.get({}), "pgvector")["services"]["immich-server"]
    assert server["ports"] == ["0.0.0.0:2283:2283"]
    assert "IMMICH_TELEMETRY_INCLUDE" not in server["environment"]
    declared = {**ON, "listen": "192.0.2.5", "allow": ["192.0.2.7"], "api_port": 9081}
    settings = module.get({"metrics": declared})
    server = compose.project(settings, "pgvector")["services"]["immich-server"]
    assert server["ports"] == ["0.0.0.0:2283:2283", "192.0.2.5:9081:8081", "192.0.2.5:8082:8082"]
    assert server["environment"]["IMMICH_TELEMETRY_INCLUDE"] == "all"
    narrowed = module.get({"metrics": ON, "server": {"environment": {"IMMICH_TELEMETRY_INCLUDE": "api,job"}}})
    server = compose.project(narrowed, "pgvector")["services"]["immich-server"]
    assert server["environment"]["IMMICH_TELEMETRY_INCLUDE"] == "api,job"


def test_who_may_read_is_one_set_for_the_firewall(module):
    metrics = {**ON, "listen": "0.0.0.0", "allow": ["192.0.2.7", "192.0.2.0/24", "198.51.100.3"]}
    allow = module.get({"metrics": metrics})["metrics"]["allow"]
    assert allow == ["192.0.2.0/24", "198.51.100.3/32"]
    plan = gateway.plan("10.88.0.1", NETWORK, [], [], {}, [], metrics_allow=allow)
    assert (plan["metrics"], plan["metrics_allow"]) == ("tcp dport { 8081, 8082 }", allow)


def test_metrics_are_read_from_each_worker_that_runs(module):
    settings = module.get({"metrics": {**ON, "listen": "0.0.0.0", "allow": ["192.0.2.7"], "microservices_port": 9082}})
    assert telemetry.urls(settings) == {
        "api": "http://127.0.0.1:8081/metrics",
        "microservices": "http://127.0.0.1:9082/metrics",
    }
    for variables in ({"IMMICH_WORKERS_INCLUDE": "api"}, {"IMMICH_WORKERS_EXCLUDE": "microservices"}):
        settings = module.get(
            {"metrics": {**ON, "listen": "192.0.2.5", "allow": ["192.0.2.7"]}, "server": {"environment": variables}}
        )
        assert telemetry.urls(settings) == {"api": "http://192.0.2.5:8081/metrics"}


@pytest.mark.parametrize(
    ("beginning", "expected"),
    (
        (b"# HELP target_info Target metadata\n", True),
        (b'immich_users_total{a="b"} 3\n', True),
        (b"# no registered metrics\n", False),
        (b"<!doctype html>", False),
        (b"", False),
    ),
)
def test_metrics_are_told_from_another_answer(beginning, expected):
    assert telemetry.looks_right(beginning) is expected
