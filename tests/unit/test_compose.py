"""What stands in the compose project, and what is read back from its file."""

import pytest
import yaml

from immich_core import compose
from immich_io import compose_file

HASH = "io.immich-formula.service-hash"


@pytest.fixture
def project(settings):
    """A function that makes the project of the settings with changes laid over them."""

    def make(**changes):
        return compose.project({**settings, **changes}, "pgvector")

    return make


def test_the_compose_file_holds_no_secret_and_says_the_same(settings, project):
    text = compose.text(settings, "pgvector")
    assert "secret-1" not in text
    assert yaml.safe_load(text) == project()


def test_both_services_are_confined_and_checked(project):
    services = project()["services"]
    assert set(services) == {"immich-server", "immich-machine-learning"}
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges" in service["security_opt"]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["networks"] == ["immich"]
        assert service["extra_hosts"] == ["host.containers.internal:10.88.0.1"]


@pytest.mark.parametrize("part", ("server", "machine_learning"))
def test_the_root_is_read_only_unless_an_image_does_not_bear_it(project, settings, part):
    name = f"immich-{part.replace('_', '-')}"
    service = project(**{part: {**settings[part], "tmp_size": "77m"}})["services"][name]
    assert service["read_only"] is True
    assert service["tmpfs"][0] == "/tmp:size=77m,mode=1777"
    # All that Podman would give half of the host's memory: addReadWriteTmpfsMounts in its pkg/specgen/generate.
    assert [mount.split(":size=")[0] for mount in service["tmpfs"]] == ["/tmp", "/run", "/var/tmp"]
    assert not {"mem_limit", "pids_limit"} & set(service)
    other = project(**{part: {**settings[part], "read_only": False}})["services"][name]
    assert not {"read_only", "tmpfs"} & set(other)


def test_folders_of_the_library_are_mounted_into_it(project, settings):
    storage = {**settings["storage"], "thumbs": "/mnt/s$d", "profile": "/mnt/faces"}
    volumes = project(storage=storage)["services"]["immich-server"]["volumes"]
    assert volumes == [
        {"type": "bind", "source": "/srv/immich/upload", "target": "/data"},
        {"type": "bind", "source": "/mnt/faces", "target": "/data/profile"},
        {"type": "bind", "source": "/mnt/s$$d", "target": "/data/thumbs"},
    ]


def test_valkey_by_tls_is_without_a_password_in_the_environment(project, settings):
    server = project(valkey={**settings["valkey"], "tls": True})["services"]["immich-server"]
    assert server["environment"]["NODE_OPTIONS"] == f"--require={compose.VALKEY_TLS}"
    assert "REDIS_URL" not in server["environment"]
    assert {"type": "bind", "source": compose.VALKEY_TLS, "target": compose.VALKEY_TLS, "read_only": True} in server[
        "volumes"
    ]
    assert "NODE_OPTIONS" not in project()["services"]["immich-server"]["environment"]


@pytest.mark.parametrize("part", ("server", "machine_learning"))
def test_what_the_pillar_adds_is_for_the_one_container(project, settings, part):
    added = {
        "volumes": [
            {"path": "/usr/share/fonts", "mount": "/fonts", "read_only": True},
            {"path": "/srv/x", "mount": "/srv/x", "read_only": False},
        ],
        "hosts": {"nas.home": "192.168.1.5", "login.home": "fd00::5"},
        "dns": ["192.168.1.1"],
    }
    services = project(**{part: {**settings[part], **added}})["services"]
    service, other = (services.pop(f"immich-{part.replace('_', '-')}"), *services.values())
    assert service["volumes"][1:] == [
        {"type": "bind", "source": "/usr/share/fonts", "target": "/fonts", "read_only": True},
        {"type": "bind", "source": "/srv/x", "target": "/srv/x"},
    ]
    assert service["extra_hosts"][1:] == ["login.home:fd00::5", "nas.home:192.168.1.5"]
    assert service["dns"] == ["192.168.1.1"]
    assert (len(other["volumes"]), len(other["extra_hosts"]), "dns" in other) == (1, 1, False)


@pytest.mark.parametrize("part", ("server", "machine_learning"))
def test_limits_are_those_of_the_one_container(project, settings, part):
    services = project(**{part: {**settings[part], "memory_limit": "4g", "pids_limit": 500}})["services"]
    limits = {name: (service.get("mem_limit"), service.get("pids_limit")) for name, service in services.items()}
    name = f"immich-{part.replace('_', '-')}"
    assert limits == {"immich-server": (None, None), "immich-machine-learning": (None, None), name: ("4g", 500)}


def test_machine_learning_gets_no_secret_and_no_port(project):
    service = project()["services"]["immich-machine-learning"]
    assert not {"secrets", "ports"} & set(service)
    assert not [name for name in service["environment"] if name.startswith(("DB_", "REDIS_"))]


def test_passwords_are_read_from_files(project):
    environment = project()["services"]["immich-server"]["environment"]
    assert environment["DB_PASSWORD_FILE"] == "/run/secrets/db_password"
    assert environment["REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
    assert environment["DB_VECTOR_EXTENSION"] == "pgvector"
    assert not {"DB_PASSWORD", "REDIS_PASSWORD", "DB_URL"} & set(environment)


def test_no_variable_is_empty(project):
    for service in project()["services"].values():
        assert all(value != "" and isinstance(value, str) for value in service["environment"].values())


def test_dollars_survive_compose(project, settings):
    changes = {"server": {**settings["server"], "environment": {"A": "a$b"}}, "upload_location": "/srv/a$b"}
    service = project(**changes)["services"]["immich-server"]
    assert service["environment"]["A"] == "a$$b"
    assert service["volumes"][0]["source"] == "/srv/a$$b"


def test_external_libraries_are_read_only_and_uploads_are_not(project):
    libraries = [{"path": "/mnt/a", "mount": "/mnt/a"}]
    uploads, library = project(external_libraries=libraries)["services"]["immich-server"]["volumes"]
    assert "read_only" not in uploads
    assert library == {"type": "bind", "source": "/mnt/a", "target": "/mnt/a", "read_only": True}


def test_a_setting_of_one_service_changes_the_hash_of_that_one_alone(project, settings):
    before = project()["services"]
    changed = {**settings["machine_learning"], "environment": {"MACHINE_LEARNING_WORKERS": "2"}}
    after = project(machine_learning=changed)["services"]
    hashes = {name: (before[name]["labels"][HASH], after[name]["labels"][HASH]) for name in before}
    assert hashes["immich-server"][0] == hashes["immich-server"][1]
    assert hashes["immich-machine-learning"][0] != hashes["immich-machine-learning"][1]


def test_machine_learning_disabled_is_absent(project, modules, settings):
    part = {**settings["machine_learning"], "enabled": False}
    assert set(project(machine_learning=part)["services"]) == {"immich-server"}
    assert modules.immich_app.unit({**settings, "machine_learning": part})["images"] == [settings["server"]["image"]]


def test_a_numeric_user_owns_the_secrets(project, modules, settings):
    part = {**settings["server"], "user": "2000:3000"}
    assert project(server=part)["services"]["immich-server"]["user"] == "2000:3000"
    assert modules.immich_app.unit({**settings, "server": part})["owner"]["server"] == {"user": 2000, "group": 3000}


def test_the_images_own_user_is_not_named(project, settings, tmp_path):
    """So that the container of an installation of before stays as it is."""
    part = {**settings["server"], "user": "0:0"}
    assert "user" not in project(server=part)["services"]["immich-server"]
    path = tmp_path / "docker-compose.yml"
    path.write_text(compose.text({**settings, "server": part}, "pgvector"), encoding="utf8")
    expected = {"immich-server": "0:0", "immich-machine-learning": "60884:60884"}
    assert compose_file.users(path) == expected
    path.write_text(path.read_text(encoding="utf8").replace("io.immich-formula.service-hash", "other"), encoding="utf8")
    assert compose_file.users(path) == {}
    assert compose_file.users(tmp_path / "gone") == {}


def test_a_compose_file_as_written_deviates_in_nothing(settings):
    text = compose.text(settings, "pgvector")
    assert compose_file.deviations(settings, text) == {"by_hand": [], "differences": []}


def test_what_was_changed_by_hand_is_told_from_what_other_settings_wrote(settings):
    text = compose.text(settings, "pgvector")
    assert compose_file.deviations(settings, text.replace("IMMICH_HOST: 0.0.0.0", "IMMICH_HOST: '::'")) == {
        "by_hand": ["immich-machine-learning"],
        "differences": ['services:immich-machine-learning:environment:IMMICH_HOST is "::", not "0.0.0.0"'],
    }
    found = compose_file.deviations({**settings, "port": 3000}, text)
    assert found["by_hand"] == []
    assert 'services:immich-server:ports is ["0.0.0.0:2283:2283"], not ["0.0.0.0:3000:2283"]' in found["differences"]


def test_what_settings_change_is_told_with_old_and_new_value(settings):
    text = compose.text(settings, "pgvector")
    changes = compose_file.changes
    assert changes(settings, text) == []
    assert changes({**settings, "port": 3000}, text) == [
        'services:immich-server:ports: ["0.0.0.0:2283:2283"] becomes ["0.0.0.0:3000:2283"]'
    ]
    service = {**settings["service"], "start_timeout": 5}
    assert changes({**settings, "service": service}, text) == ["x-immich-stack:timeout: 600 becomes 5"]


def test_the_address_of_the_ping_is_read_back(settings):
    text = compose.text({**settings, "port": 3000}, "pgvector")
    assert compose_file.ping_url(text) == "http://127.0.0.1:3000/api/server/ping"
    for other in ("", "{{ broken", "services: []", "x-immich-stack: 5"):
        assert compose_file.ping_url(other) is None


@pytest.mark.parametrize("text", ("", "{{ broken", "services: []", "services: {immich-server: 5}", "a: [1"))
def test_a_compose_file_of_somebody_else(settings, text):
    with pytest.raises(compose_file.ComposeFileError, match="not the one that Salt wrote"):
        compose_file.deviations(settings, text)


@pytest.mark.parametrize(
    ("addresses", "url", "published"),
    (
        (["0.0.0.0"], "http://127.0.0.1:2283", ["0.0.0.0"]),
        (["192.0.2.7"], "http://192.0.2.7:2283", ["192.0.2.7"]),
        (["fd00::5", "192.0.2.7"], "http://192.0.2.7:2283", ["[fd00::5]", "192.0.2.7"]),
        (["fd00::5"], "http://[fd00::5]:2283", ["[fd00::5]"]),
        (["::"], "http://[fd49::1]:2283", ["[::]"]),
        (["::", "0.0.0.0"], "http://127.0.0.1:2283", ["0.0.0.0"]),
    ),
)
def test_the_host_reaches_the_server_where_it_listens(settings, project, addresses, url, published):
    network = {**settings["network"], "ipv6_subnet": "fd49::/64"}
    there = {"bind_address": addresses, "network": network}
    assert compose.server_url({**settings, **there}) == url
    services = project(**there)["services"]
    assert services["immich-server"]["ports"] == [f"{address}:2283:2283" for address in published]
    assert services["immich-machine-learning"]["environment"]["IMMICH_HOST"] == "[::]"


def test_the_library_of_an_existing_compose_file_is_read_back(settings, tmp_path):
    path = tmp_path / "docker-compose.yml"
    assert compose_file.upload_location(path) is None
    moved = {**settings, "upload_location": "/srv/a$b c"}
    path.write_text(compose.text(moved, "pgvector"))
    assert compose_file.upload_location(path) == "/srv/a$b c"
    path.write_text("services: {immich-server: {volumes: ['/srv/short:/data']}}")
    assert compose_file.upload_location(path) == "/srv/short"


def test_a_compose_file_that_makes_no_sense_is_an_error(tmp_path):
    path = tmp_path / "docker-compose.yml"
    for text in ("[]", "services: {}", "services: {immich-server: 5}", "{"):
        path.write_text(text)
        with pytest.raises(compose_file.ComposeFileError, match="mounted at /data"):
            compose_file.upload_location(path)


def test_a_compose_file_in_another_encoding_says_what_it_says(settings, tmp_path):
    path = tmp_path / "docker-compose.yml"
    text = compose.text(settings, "pgvector")
    path.write_text(f"# Donn\u00e9es\n{text}", encoding="latin-1")
    assert compose_file.image(path) == settings["server"]["image"]
    assert compose_file.upload_location(path) == settings["upload_location"]
    assert set(compose_file.users(path)) == {"immich-server", "immich-machine-learning"}


def test_selinux_is_told_to_leave_the_volumes_alone(settings, project):
    assert "label=disable" not in project()["services"]["immich-server"]["security_opt"]
    for service in compose.project(settings, "pgvector", selinux=True)["services"].values():
        assert "label=disable" in service["security_opt"]


def test_immichs_own_settings_and_certificates_are_secrets_of_the_server(settings, project):
    as_before = project()
    server = {**settings["server"], "settings_managed": True, "trusted": ["/etc/ssl/home.pem"]}
    declared = project(server=server)
    files = ["server_settings", "ca_certificates"]
    service = declared["services"]["immich-server"]
    assert service["secrets"] == [*as_before["services"]["immich-server"]["secrets"], *files]
    assert {name: declared["secrets"][name] for name in files} == {
        name: {"file": f"./secrets/{name}"} for name in files
    }
    added = {name: service["environment"][name] for name in ("IMMICH_CONFIG_FILE", "NODE_EXTRA_CA_CERTS")}
    assert list(added.values()) == [f"/run/secrets/{name}" for name in files]
    assert not {*added} & {*as_before["services"]["immich-server"]["environment"]}
    assert list(as_before["secrets"]) == ["db_password", "redis_password"]
    learning = "immich-machine-learning"
    assert declared["services"][learning] == as_before["services"][learning]
