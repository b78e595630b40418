"""
The settings as pure functions: pillar in, settings or errors out.

What Salt's loader gives the module is put in by hand, with the repository as its file server. What asks the running
host is in ``tests/functional/test_immich_settings.py``.
"""

import copy
import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import salt.utils.yaml
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from salt.exceptions import CommandExecutionError

from immich_core import findings
from immich_core.settings import problems, schema
from immich_io import overview
from tests import pillars

REPO = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPO / "immich/schema.json").read_text())
DEFAULTS = salt.utils.yaml.safe_load((REPO / "immich/defaults.yaml").read_text())
TIMEZONES = json.loads((REPO / "immich/timezones.json").read_text())
REQUIRED = {
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-22", "admin_password": "admin-secret-333"},
}
SECRETS = ("postgres-secret-1", "valkey-secret-22", "admin-secret-333")
DEBIAN = {"os_family": "Debian", "os": "Debian", "osfinger": "Debian-13"}


class Settings:
    """The module as one run of Salt has it, on a host where nothing listens and Podman has no networks."""

    def __init__(self, grains=DEBIAN):
        spec = importlib.util.spec_from_file_location("immich_settings", REPO / "_modules/immich_settings.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.module.__salt__ = {
            "cp.cache_files": lambda sources: [str(REPO / source[7:]) for source in sources],
            "netns.listening": list,
        }
        self.module.identity = SimpleNamespace(known=lambda directory=None: {})
        self.module.__grains__ = grains
        self.module.__context__ = {}
        self.module.__pillar__ = {}
        self.module._zone_on_host = lambda name: False
        self.module._systemd_understands = lambda schedule: "nonsense" not in schedule

    def errors(self, pillar):
        self.module.__pillar__ = {"immich": pillar}
        return {error["path"]: error["seen"] for error in self.module.errors()}

    def warnings(self, pillar):
        self.module.__pillar__ = {"immich": merged(REQUIRED, pillar)}
        assert self.module.errors() == []
        return {warning["path"]: warning["seen"] for warning in self.module.warnings()}

    def get(self, pillar):
        self.module.__pillar__ = {"immich": merged(REQUIRED, pillar)}
        assert self.module.errors() == []
        return self.module.get()


def merged(lower, upper):
    if not isinstance(lower, dict) or not isinstance(upper, dict):
        return upper
    return {**lower, **{key: merged(lower.get(key), value) for key, value in upper.items()}}


def nested(path, value):
    """``value`` at a path such as ``server:user``."""
    for key in reversed(path.split(":")):
        value = {key: value}
    return value


@pytest.fixture(scope="module")
def loaded():
    return Settings()


@pytest.fixture
def subject(loaded):
    """The module with nothing remembered but the formula's files."""
    loaded.module.__context__ = {key: value for key, value in loaded.module.__context__.items() if "files" in key}
    return loaded


# The files that describe settings agree with each other


def uncommented(text):
    """``pillar.example`` with every setting in it: a number sign without a space hides one."""
    return "\n".join(re.sub(r"^( *)#(?=\S)", r"\1", line) for line in text.splitlines())


def keys(schema, path=()):
    """The path of every setting in the schema; ``*`` stands for each entry of a list."""
    for key, below in schema.get("properties", {}).items():
        yield (*path, key)
        yield from keys(below, (*path, key))
    if "items" in schema:
        yield from keys(schema["items"], (*path, "*"))


def test_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


def test_every_setting_is_described():
    def nodes(schema):
        yield schema
        for below in schema.get("properties", {}).values():
            yield from nodes(below)
        if "items" in schema:
            yield from nodes(schema["items"])

    missing = [node for node in nodes(SCHEMA) if "description" not in node and "$ref" not in node]
    assert missing == []


def test_schema_has_exactly_the_keys_of_the_defaults():
    def default_keys(tree, path=()):
        for key, value in tree.items():
            yield (*path, key)
            if isinstance(value, dict):
                yield from default_keys(value, (*path, key))

    settable = {path for path in keys(SCHEMA) if "*" not in path and path[0] != "lookup"}
    assert set(default_keys(DEFAULTS)) - {("lookup",)} == settable


def test_osfamilymap_has_exactly_the_keys_of_lookup():
    systems = salt.utils.yaml.safe_load((REPO / "immich/osfamilymap.yaml").read_text())
    lookup = SCHEMA["properties"]["lookup"]["properties"]
    expected = {part: set(described["properties"]) for part, described in lookup.items()}
    for family in ("Debian", "RedHat"):
        assert {part: set(values) for part, values in systems[family].items()} == expected
    for values in systems.values():
        assert all(set(part) <= expected[name] for name, part in values.items())


def test_example_shows_every_setting_with_its_default():
    example = salt.utils.yaml.safe_load(uncommented((REPO / "pillar.example").read_text()))
    required = {
        "postgres": {"password": "change-me"},
        "valkey": {"password": "change-me", "admin_password": "change-me"},
    }
    assert example == {"immich": merged(DEFAULTS, required)}


def test_example_names_every_key():
    text = (REPO / "pillar.example").read_text()
    missing = {path[-1] for path in keys(SCHEMA) if not re.search(rf"\b{path[-1]}\b[:`]| `{path[-1]}", text)}
    assert missing == set()


def test_example_has_the_order_of_the_defaults():
    def order(tree, path=()):
        for key, value in tree.items():
            yield (*path, key)
            if isinstance(value, dict):
                yield from order(value, (*path, key))

    example = salt.utils.yaml.safe_load(uncommented((REPO / "pillar.example").read_text()))["immich"]
    assert list(order(example)) == list(order(DEFAULTS))


def test_placeholders_of_the_example_are_refused(subject):
    example = salt.utils.yaml.safe_load((REPO / "pillar.example").read_text())["immich"]
    assert subject.errors(example) == {
        "immich:postgres:password": "is too short: at least 12 characters",
        "immich:valkey:admin_password": "is too short: at least 12 characters",
        "immich:valkey:password": "is too short: at least 12 characters",
    }


def code():
    """All that may read a setting. Of the settings' own code what makes something of them, not what checks them."""
    core = REPO / "_utils/immich_core/settings"
    yield (core / "derivation.py").read_text()
    yield (core / "networks.py").read_text().partition("def check_")[0]
    for pattern in ("immich/**/*.sls", "immich/**/*.j*", "_modules/*.py", "_states/*.py", "_utils/immich_*/*.py"):
        for path in sorted(REPO.glob(pattern)):
            if path.name == "immich_settings.py":
                yield path.read_text().partition("# What is asked of the host")[2]
            elif path.suffix != ".json":
                yield path.read_text()


# Handed on whole, to what takes each key by its name: see the tests of networks, connections and ACL users below.
HANDED_ON = (
    ("postgres", "admin"),
    ("valkey", "admin"),
    ("lookup", "podman", "network"),
    ("storage",),
    ("storage_moved_from",),
)
# Says what a pillar must not hold, and nothing else.
CHECKED = (("update", "require_pinned"),)


def test_every_setting_is_read_by_code():
    text = "\n".join(code())
    unread = []
    for path in keys(SCHEMA):
        section, key = (path[-2] if len(path) > 1 else "settings"), path[-1]
        if "*" in path or path in (*HANDED_ON, *CHECKED) or path[:-1] in HANDED_ON:
            continue
        # settings.server.user, settings["server"]["user"], server["user"], immich:server:user; the two containers
        # are also looped over as `part`, and what can be deleted by its name
        also = "|part" if section in ("server", "machine_learning") else "|lookup|host" if path[0] == "lookup" else ""
        reading = rf"\b({section}{also})(\.|:|\"\]\[\"|\[\"){key}\b"
        looped = section == "clean" and f'"{key.removeprefix("delete_")}"' in text
        if not re.search(reading, text) and not looped:
            unread.append(":".join(path))
    assert not unread, ", ".join(unread)


def test_every_zone_has_one_meaning():
    assert set(TIMEZONES["legacy"]) & set(TIMEZONES["zones"]) == set()
    assert set(TIMEZONES["legacy"].values()) <= set(TIMEZONES["zones"])


# Valid pillars


def test_defaults_with_passwords_are_valid(subject):
    assert subject.errors(REQUIRED) == {}
    assert subject.warnings({}) == {}


def test_settings_hold_no_secret(subject):
    users = [{"name": "gitea", "password": "gitea-secret-4444", "rules": "+@read"}]
    admin = {"host": "db.example", "password": "dba-secret-55555"}
    text = json.dumps(subject.get({"postgres": {"managed": False, "admin": admin}, "valkey": {"acl_users": users}}))
    assert not [secret for secret in (*SECRETS, "gitea-secret-4444", "dba-secret-55555") if secret in text]
    inlined = schema.inlined(SCHEMA, SCHEMA["$defs"])
    assert list(map(problems.path_text, schema.secrets(inlined))) == [
        "immich:users:*:password",
        "immich:settings",
        "immich:admin:password",
        "immich:postgres:password",
        "immich:postgres:admin:password",
        "immich:valkey:password",
        "immich:valkey:admin_password",
        "immich:valkey:acl_users:*:password",
        "immich:valkey:admin:password",
        "immich:backup:library:password",
        "immich:backup:library:environment",
        "immich:backup:library:ssh_key",
    ]


def test_wrong_pillar_gives_no_settings(subject):
    subject.module.__pillar__ = {"immich": {}}
    assert subject.module.get() == {}
    assert subject.module.errors()


def test_pillar_without_the_key_lacks_the_passwords(subject):
    subject.module.__pillar__ = {}
    assert [error["path"] for error in subject.module.errors()] == [
        "immich:postgres:password",
        "immich:valkey:admin_password",
        "immich:valkey:password",
    ]


def test_a_changed_pillar_is_seen_within_a_run(subject):
    assert subject.get({"port": 2283})["port"] == 2283
    assert subject.get({"port": 8080})["port"] == 8080
    assert "immich:port" in subject.errors(merged(REQUIRED, {"port": 0}))
    assert "immich:server:?" in subject.errors(merged(REQUIRED, {"server": {1: 2}}))
    assert subject.errors(merged(REQUIRED, {"server": {}})) == {}


def test_evaluated_once_for_a_pillar(subject):
    assert subject.get({}) is subject.get({})


def test_pillar_is_left_as_it_is(subject):
    pillar = merged(REQUIRED, {"external_libraries": ["/mnt/a/"], "server": {"environment": {"A": 1}}})
    before = copy.deepcopy(pillar)
    subject.get(pillar)
    assert pillar == before


def test_sections_without_content_say_nothing(subject):
    empty = dict.fromkeys(("server", "machine_learning", "podman", "clean", "lookup", "external_libraries"))
    assert subject.get(empty) == subject.get({})
    assert subject.errors(None) == subject.errors({})


def test_missing_file_of_the_formula_is_an_error(subject):
    broken = Settings()
    broken.module.__salt__ = {"cp.cache_files": lambda sources: [""] * len(sources)}
    with pytest.raises(CommandExecutionError, match="salt://immich/schema"):
        broken.errors({})


@pytest.mark.parametrize(
    ("image", "expected"),
    (
        ("ghcr.io/immich-app/immich-server", "ghcr.io/immich-app/immich-server:v3.3.1"),
        ("ghcr.io/immich-app/immich-server:v3.0.1", "ghcr.io/immich-app/immich-server:v3.0.1"),
        ("registry.example:5000/immich", "registry.example:5000/immich:v3.3.1"),
        ("registry.example:5000/immich:v1", "registry.example:5000/immich:v1"),
        ("localhost/immich@sha256:" + "a" * 64, "localhost/immich@sha256:" + "a" * 64),
    ),
)
def test_image_has_a_tag(subject, image, expected):
    assert subject.get({"server": {"image": image}})["server"]["image"] == expected
    assert subject.get({"machine_learning": {"image": image}})["machine_learning"]["image"] == expected


def test_paths_are_in_their_usual_form(subject):
    found = subject.get(
        {
            "upload_location": "//mnt/nas//photos/",
            "machine_learning": {"cache_location": "/mnt/cache/"},
            "podman": {"projects_dir": "/opt/compose/"},
            "external_libraries": ["/mnt/a/", {"path": "/home/ana", "mount": "/mnt/ana/"}],
        }
    )
    assert found["upload_location"] == "/mnt/nas/photos"
    assert found["machine_learning"]["cache_location"] == "/mnt/cache"
    assert found["project_dir"] == "/opt/compose/immich"
    assert found["external_libraries"] == [
        {"path": "/mnt/a", "mount": "/mnt/a"},
        {"path": "/home/ana", "mount": "/mnt/ana"},
    ]


def test_environment_is_text(subject):
    found = subject.get({"server": {"environment": {"IMMICH_API_METRICS_PORT": 8081, "A": 1.5, "B": "yes"}}})
    assert found["server"]["environment"] == {"IMMICH_API_METRICS_PORT": "8081", "A": "1.5", "B": "yes"}


def test_own_network_is_there_without_being_listed(subject):
    found = subject.get({"podman": {"external_networks": [{"name": "other", "subnet": "10.9.0.0/24"}]}})
    assert [network["name"] for network in found["podman"]["external_networks"]] == ["immich", "other"]
    assert found["network"] == DEFAULTS["podman"]["external_networks"][0]
    assert found["podman"]["external_networks"][1]["gateway"] == "10.9.0.1"


def test_own_network_keeps_its_interface_and_isolation_in_another_subnet(subject):
    found = subject.get({"podman": {"external_networks": [{"name": "immich", "subnet": "10.9.0.0/24"}]}})
    assert found["network"] == {
        "name": "immich",
        "subnet": "10.9.0.0/24",
        "gateway": "10.9.0.1",
        "interface_name": "immich0",
        "isolate": "strict",
    }


@pytest.mark.parametrize(
    ("osfinger", "expected"),
    (
        ("Debian-13", {"interface_name": "immich0", "isolate": "strict"}),
        ("Ubuntu-24.04", {"interface_name": "immich0", "isolate": True}),
        ("Debian-12", {"isolate": True}),
    ),
)
@pytest.mark.parametrize(
    "listed", ({}, {"podman": {"external_networks": [{"name": "immich", "subnet": "10.9.0.0/24"}]}})
)
def test_own_network_is_one_that_the_systems_podman_can_make(osfinger, expected, listed):
    """Debian 12 was stopped by its own defaults: its Podman names no interfaces and knows no strict isolation."""
    subject = Settings({**DEBIAN, "osfinger": osfinger})
    network = subject.get(listed)["network"]
    assert {key: network[key] for key in network if key not in ("name", "subnet", "gateway")} == expected
    loose = [] if expected["isolate"] == "strict" else ["immich:podman:external_networks:0:isolate"]
    assert list(subject.warnings(listed)) == loose
    newer = {"lookup": {"podman": {"network": {"interface_name": "immich9", "isolate": "strict"}}}}
    assert subject.get(merged(listed, newer))["network"]["interface_name"] == "immich9"
    assert list(subject.warnings(merged(listed, newer))) == []


def test_another_network_can_be_chosen(subject):
    networks = [{"name": "photos", "subnet": "10.9.0.0/24", "gateway": "10.9.0.254"}]
    found = subject.get({"network": "photos", "podman": {"external_networks": networks}})
    assert found["network"] == networks[0]
    assert found["podman"]["external_networks"] == networks


def test_connections_to_managed_servers(subject):
    found = subject.get({"postgres": {"port": 5433}, "valkey": {"port": 6380}})
    assert found["postgres"]["connection"] == {
        "host": "/var/run/postgresql",
        "port": 5433,
        "user": "postgres",
        "os_user": "postgres",
    }
    assert found["valkey"]["connection"] == {
        "host": "127.0.0.1",
        "port": 6380,
        "username": "immich-formula",
        "password_file": "/etc/immich-formula/valkey.password",
    }
    assert found["postgres"]["host"] == found["valkey"]["host"] == "host.containers.internal"


def test_connections_to_servers_managed_elsewhere(subject):
    found = subject.get(
        {
            "postgres": {
                "managed": False,
                "host": "db.example",
                "port": 5433,
                "admin": {"host": "10.0.0.5", "user": "dba", "password": "dba-secret-55555", "sslmode": "verify-full"},
            },
            "valkey": {
                "managed": False,
                "host": "cache.example",
                "admin": {"host": "10.0.0.6", "port": 6390, "password": "op-secret-666666", "tls": True},
            },
        }
    )
    assert found["postgres"]["connection"] == {
        "host": "10.0.0.5",
        "port": 5433,
        "maintenance_db": "postgres",
        "user": "dba",
        "os_user": "postgres",
        "password_pillar": "immich:postgres:admin:password",
        "sslmode": "verify-full",
    }
    assert found["valkey"]["connection"] == {
        "host": "10.0.0.6",
        "port": 6390,
        "username": "default",
        "password_pillar": "immich:valkey:admin:password",
        "tls": True,
    }
    assert (found["postgres"]["host"], found["valkey"]["host"]) == ("db.example", "cache.example")


def test_admin_password_is_not_asked_of_a_server_managed_elsewhere(subject):
    pillar = merged(REQUIRED, {"valkey": {"managed": False, "admin": {"host": "a", "password": "op-secret-666666"}}})
    del pillar["valkey"]["admin_password"]
    assert subject.errors(pillar) == {}


def test_a_host_with_postgresql_alone(subject, monkeypatch):
    monkeypatch.setattr(subject.module.os.path, "exists", lambda _path: False)
    subject.module.__pillar__ = {"immich": {"roles": ["postgres"], "postgres": REQUIRED["postgres"]}}
    assert subject.module.errors() == []
    settings = subject.module.get()
    assert list(settings["components"]) == ["identity", "programs", "postgres", "backup", "verify"]
    assert settings["includes"]["immich.postgres"] == ["immich.identity"]
    assert settings["listen_addresses"] == []
    assert (settings["postgres"]["here"], settings["valkey"]["here"]) == (True, False)
    # Which this pillar manages does not depend on the host.
    assert (settings["postgres"]["managed"], settings["valkey"]["managed"]) == (True, True)


def test_what_former_roles_have_left_is_here_for_its_removal(subject, monkeypatch):
    monkeypatch.setattr(subject.module.os.path, "exists", lambda path: path.endswith("valkey.password"))
    settings = subject.get({"roles": ["postgres"]})
    assert settings["valkey"]["here"] is True
    assert "valkey" not in settings["components"]
    assert settings["includes"]["immich.clean"][1:3] == ["immich.valkey.clean", "immich.postgres.clean"]
    assert subject.get({})["valkey"]["here"] is True


def test_networks_of_a_host_without_podman_are_in_nobodys_way(subject):
    subject.module.__salt__["podman_network.conflicts"] = lambda subnet, ignore: ["a route"]
    try:
        assert subject.errors(merged(REQUIRED, {"roles": ["postgres"]})) == {}
        assert subject.errors(REQUIRED) != {}
    finally:
        del subject.module.__salt__["podman_network.conflicts"]


def test_a_host_without_the_role_has_no_machine_learning(subject):
    roles = ["postgres", "valkey", "server", "microservices"]
    assert subject.get({})["machine_learning"]["enabled"] is True
    assert subject.get({"roles": roles})["machine_learning"]["enabled"] is False


def test_both_forms_of_acl_users(subject):
    users = [
        {"name": "paperless", "password": "paperless-7777", "rules": "~paperless:* +@read"},
        {
            "username": "gitea",
            "password": "gitea-secret-8",
            "keypattern": "gitea:* queue:*",
            "commands": "&* +@read  -@dangerous",
        },
    ]
    assert subject.get({"valkey": {"acl_users": users}})["valkey"]["acl_users"] == [
        {
            "name": "paperless",
            "rules": "~paperless:* +@read",
            "password_pillar": "immich:valkey:acl_users:0:password",
        },
        {
            "name": "gitea",
            "rules": "~gitea:* ~queue:* &* +@read -@dangerous",
            "password_pillar": "immich:valkey:acl_users:1:password",
        },
    ]


@pytest.mark.parametrize(
    ("grains", "packages", "service"),
    (
        (DEBIAN, ["postgresql-17"], "valkey-server"),
        ({**DEBIAN, "osfinger": "Debian-12"}, ["postgresql-15"], "redis-server"),
        ({"os_family": "Debian", "os": "Ubuntu", "osfinger": "Ubuntu-24.04"}, ["postgresql-16"], "redis-server"),
        (
            {"os_family": "RedHat", "os": "Fedora", "osfinger": "Fedora-42"},
            ["postgresql-server", "postgresql-contrib"],
            "valkey",
        ),
    ),
)
def test_lookup_of_each_system(grains, packages, service):
    lookup = Settings(grains).get({})["lookup"]
    assert lookup["postgres"]["packages"] == packages
    assert lookup["valkey"]["service"] == service
    assert set(lookup) == {"podman", "postgres", "valkey", "caddy"}


def test_lookup_of_the_pillar_wins(subject):
    lookup = subject.get({"lookup": {"postgres": {"packages": ["postgresql-18"]}}})["lookup"]
    assert lookup["postgres"]["packages"] == ["postgresql-18"]
    assert lookup["postgres"]["socket_dir"] == "/var/run/postgresql"


def test_unknown_system_needs_a_lookup():
    found = Settings({"os_family": "Suse", "osfinger": "Leap-16"}).errors(REQUIRED)
    assert found["immich:lookup:podman:packages"] == "is required: the formula has no default for Leap-16"


@pytest.mark.parametrize(
    ("given", "addresses", "second"),
    (
        ("0.0.0.0", ["0.0.0.0"], False),
        (["192.0.2.5", "10.8.0.1"], ["192.0.2.5", "10.8.0.1"], False),
        ("::", ["::"], True),
        (["0.0.0.0", "::"], ["0.0.0.0", "::"], True),
        (["192.0.2.5", "FD00:0::5"], ["192.0.2.5", "fd00::5"], True),
    ),
)
def test_the_network_has_ipv6_where_an_address_has(subject, given, addresses, second):
    networks = [{"name": "other", "subnet": "10.9.0.0/24"}]
    found = subject.get({"bind_address": given, "podman": {"external_networks": networks}})
    assert found["bind_address"] == addresses
    assert found["network"].get("ipv6_subnet") == (DEFAULTS["ipv6_subnet"] if second else None)
    assert "ipv6_subnet" not in found["podman"]["external_networks"][1]


def test_the_second_subnet_overlaps_no_other(subject):
    networks = [{"name": "other", "subnet": "fd49::/16"}]
    pillar = merged(REQUIRED, {"podman": {"external_networks": networks}})
    assert subject.errors(pillar) == {}
    assert "overlaps" in subject.errors({**pillar, "bind_address": "::"})["immich:podman:external_networks:0:subnet"]


def test_a_secret_in_the_environment_is_never_quoted(subject):
    environment = {"OAUTH_CLIENT_SECRET": "geheim", "HTTP_PROXY": "http://me:geheim@proxy", "A_KEY": "geheim"}
    found = subject.errors(merged(REQUIRED, {"server": {"environment": environment}}))
    assert len(found) == 3
    assert "geheim" not in str(found)


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("TOKENIZERS_PARALLELISM", "false"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", 1),
        ("SSL_CERT_FILE", "/data/ca.pem"),
        ("IMMICH_TRUSTED_PROXIES", "192.0.2.0/24,fd00::/64"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("KEYBOARD", "qwertz"),
        ("AWS_ACCESS_KEY_ID", "AKIA1"),
        ("API_KEY_PATH", "/data/key"),
        ("HF_ENDPOINT", "https://mirror.example:8443/@models/x"),
        ("HF_ENDPOINT", "http://[::1]:8080/@models"),
        ("NO_PROXIES", "http://a.example:80,http://b@c.example"),
    ),
)
def test_what_is_no_secret_may_stand_in_the_environment(subject, name, value):
    assert subject.errors(merged(REQUIRED, {"machine_learning": {"environment": {name: value}}})) == {}


@pytest.mark.parametrize(("default", "warned"), (("false", True), ("strict", False)))
def test_a_network_without_isolation_is_as_podman_makes_it(default, warned, monkeypatch):
    """Podman 6 isolates strictly by default; Debian has none yet."""
    subject = Settings()
    monkeypatch.setattr(subject.module.shutil, "which", lambda program: f"/usr/bin/{program}")
    subject.module.__salt__ |= {
        "podman_network.default_isolation": lambda: default,
        "podman_network.conflicts": lambda subnet, ignore: [],
        "podman_network.gateway": lambda name: "10.88.0.1",
    }
    networks = [{"name": "photos", "subnet": "10.9.0.0/24"}]
    pillar = {"network": "photos", "podman": {"external_networks": networks}}
    assert bool(subject.warnings(pillar)) is warned
    networks[0]["isolate"] = False
    assert subject.warnings(pillar)


PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


@pytest.mark.parametrize("password", (PRINTABLE, "пароль на двенадцать", "密碼" * 6, " leading and trailing "))
def test_any_printable_password(subject, password):
    pillar = {"postgres": {"password": password}, "valkey": {"password": password, "admin_password": password}}
    assert subject.errors(pillar) == {}


@pytest.mark.parametrize(
    ("pillar", "path"),
    (
        ({"version": "release"}, "immich:version"),
        ({"version": "v3"}, "immich:version"),
        ({"server": {"image": "localhost/immich:latest"}}, "immich:server:image"),
        ({"valkey": {"password": "postgres-secret-1"}}, "immich:valkey:password"),
        (
            {"valkey": {"acl_users": [{"name": "a", "password": "short", "rules": ""}]}},
            "immich:valkey:acl_users:0:password",
        ),
        (
            {"podman": {"external_networks": [{"name": "immich", "subnet": "10.9.0.0/24", "isolate": False}]}},
            "immich:podman:external_networks:0:isolate",
        ),
    ),
)
def test_warnings(subject, pillar, path):
    assert list(subject.warnings(pillar)) == [path]


@pytest.mark.parametrize(
    ("pillar", "path"),
    (
        ({"version": "release"}, "immich:version"),
        ({"version": "v3"}, "immich:version"),
        ({"server": {"image": "localhost/immich:latest"}}, "immich:server:image"),
    ),
)
def test_moving_tags_are_errors_where_the_pillar_says_so(subject, pillar, path):
    errors = subject.errors(merged(REQUIRED, {**pillar, "update": {"require_pinned": True}}))
    assert list(errors) == [path]
    assert "immich:update:require_pinned" in errors[path]


# Wrong pillars: path, value, and a part of the message

ACL = {"name": "a", "password": "twelve-chars", "rules": "+@read"}
UNMANAGED = {"managed": False}
ADMIN = {"email": "ana@example.org", "name": "Ana", "password": "ana-secret-7777"}
DELETED = {"email": "old@example.org", "delete": "old@example.org"}
BEN = {"email": "ben@example.org", "name": "Ben", "password": "ben-secret-8888"}

WRONG = (
    # moving tags, where they are forbidden
    ("update:require_pinned", "yes", "must be true or false"),
    ("update:rollback", "restor", "did you mean restore?"),
    # required
    ("postgres:password", None, "is required"),
    ("valkey:password", None, "is required"),
    ("valkey:admin_password", None, "is required"),
    ("postgres:password", "elevenchars", "too short"),
    ("postgres:password", "", "too short"),
    ("postgres:password", 123456789012, "put it in quotes"),
    ("postgres:password", True, "put it in quotes"),
    ("postgres:password", "twelve-chars\n", "control character"),
    ("postgres:password", "no-break\u00a0space", "Immich might not be able to log in"),
    ("postgres:password", "soft\u00adhyphen-in-it", "Immich might not be able to log in"),
    ("postgres:password", "\ufb01ne-ligature-in", "Immich might not be able to log in"),
    ("valkey:admin_password", "twelve\tcharacters", "control character"),
    ("valkey:password", "twelve\u2028characters", "line break"),
    ("valkey:password", "twelve\ud800characters", "control character"),
    # types
    ("port", (1 << 40000,), "not a tuple"),
    ("postgres:password", {1 << 40000}, "not a set"),
    ("port", "2283", "must be a whole number, not text: leave the quotes out"),
    ("port", 2283.5, "must be a whole number, not a number"),
    ("port", True, "must be a whole number, not true or false"),
    ("port", None, "must be a whole number, not nothing"),
    ("port", [2283], "must be a whole number, not a list"),
    ("version", 3.0, "must be text, not a number: a version such as v3.3.1"),
    ("server", "image", "must be a mapping, not text"),
    ("server:user", "2147483648:1", "the last that Podman takes"),
    ("server:user", "immich", "or own or root"),
    ("machine_learning:own_user:id", 60883, "is the same as immich:server:own_user:id"),
    ("machine_learning:own_user:name", "immich-server", "is the same as immich:server:own_user:name"),
    ("server:user", 120020, 'numbers of user and group in quotes, such as "2000:2000"'),
    ("external_libraries", "/mnt/photos", "must be a list, not text"),
    ("external_libraries:0", [7], "must be text or a mapping"),
    ("machine_learning:enabled", "yes", "must be true or false, not text: leave the quotes out"),
    ("podman:external_networks:0", ["immich"], "must be a mapping, not text"),
    # unknown keys
    ("prot", 2283, "is not a setting: did you mean port?"),
    ("postgres:passwort", "x", "is not a setting: did you mean password?"),
    (
        "server:zzz",
        1,
        "is not a setting; there are image, user, read_only, tmp_size, memory_limit, pids_limit, environment, volumes",
    ),
    ("podman:external_networks:0:gatway", [{"name": "a", "subnet": "10.9.0.0/24", "gatway": "10.9.0.1"}], "gateway?"),
    ("lookup:valkey:service_name", "x", "is not a setting: did you mean service?"),
    # versions and images
    ("version", "3.3.1", "a version such as v3.3.1"),
    ("version", "latest", "a version such as v3.3.1"),
    ("version", "v3.3.1; rm -rf /", "a version such as v3.3.1"),
    ("server:image", "Ghcr.io/Immich", "in lower case"),
    ("machine_learning:image", "immich:", "must be an image"),
    # time zones
    ("timezone", "Australia/ACT", "set Australia/Sydney"),
    ("timezone", "US/Pacific", "set America/Los_Angeles"),
    ("timezone", "Europe/Pariss", "did you mean Europe/Paris?"),
    ("timezone", "", "is not a time zone"),
    ("timezone", "../../etc/passwd", "is not a time zone"),
    # paths
    ("upload_location", "srv/immich", "absolute path"),
    ("upload_location", "/srv/a:b", "without colons"),
    ("upload_location", "/", "a directory below it"),
    ("upload_location", "/srv/" + "é" * 128, "255 bytes"),
    ("upload_location", "/srv" + "/1234567" * 500, "3800 for the whole"),
    ("upload_location", "/srv/\ufffe", "control character"),
    ("upload_location", "/srv/\U0001ffff", "control character"),
    ("upload_location", "/srv/", "must not be /srv itself"),
    ("upload_location", "/srv/../etc", "must not hold .."),
    ("machine_learning:cache_location", "/srv/immich/upload/cache", "overlaps immich:upload_location"),
    ("machine_learning:cache_location", "/srv/immich", "overlaps immich:upload_location"),
    ("podman:projects_dir", "/etc", "must not be /etc itself"),
    ("backup:directory", "/var/backups", "must not be /var/backups itself"),
    ("backup:directory", "/srv/immich/upload/backups", "overlaps immich:upload_location"),
    ("backup:directory", "/opt/podman/immich", "overlaps immich:podman:projects_dir"),
    ("backup:directory", "/var/tmp/immich", "must not be below /var/tmp, where files do not persist"),
    ("backup:directory", "/srv/../var/backups/immich", "must not hold .."),
    # backups
    ("backup:schedule", "nonsense", "is not a calendar event"),
    ("backup:restore_drill", "nonsense", "is not a calendar event"),
    ("backup:schedule", "daily\nExecStart=/bin/sh", "a calendar event"),
    ("backup:schedule", "02:30 # at night", "a calendar event"),
    ("backup:keep", 0, "must be from 1 to 10000"),
    ("backup:keep_days", "7", "leave the quotes out"),
    ("backup:on_failure", "", "must not be empty"),
    ("podman:projects_dir", "/srv/immich/upload", "overlaps immich:upload_location"),
    ("upload_location_moved_from", "/srv/immich/upload/", "is the same as"),
    ("storage:thumbs", "thumbs", "absolute path"),
    ("storage:thumbs", "/mnt/../thumbs", "must not hold .."),
    ("storage:thumbs", "/var/lib", "must not be /var/lib itself"),
    ("storage:thumbs", "/srv/immich/upload/thumbs", "overlaps immich:upload_location"),
    ("storage:thumbnails", "/mnt/ssd", "is not a setting: did you mean thumbs?"),
    ("storage_moved_from:thumbs", "/srv/immich/upload/thumbs/", "is where immich:storage:thumbs has it"),
    ("external_libraries:0", ["/srv/immich/upload/more"], "overlaps immich:upload_location"),
    ("external_libraries:1", ["/mnt/a", "/mnt/a"], "overlaps immich:external_libraries:0"),
    ("external_libraries:0", ["/data/photos"], "set its mount"),
    ("external_libraries:0", [{"path": "/mnt/a", "mount": "/"}], "set its mount"),
    ("external_libraries:0:mount", [{"path": "/mnt/a", "mount": "b"}], "absolute path"),
    ("external_libraries:0:path", [{"mount": "/b"}], "is missing"),
    (
        "external_libraries:1",
        [{"path": "/mnt/a", "mount": "/m"}, {"path": "/mnt/b", "mount": "/m"}],
        "mounted at the same place",
    ),
    ("external_libraries:0:owner", [{"path": "/mnt/a", "owner": "ana@example.org"}], "requires immich:admin"),
    ("external_libraries:0:owner", [{"path": "/mnt/a", "owner": "ana"}], "an e-mail address such as"),
    # accounts
    ("setup", "local", "must be one of open, host, closed"),
    ("server:environment:IMMICH_ALLOW_SETUP", "false", "use immich:setup"),
    ("admin:email", "ana@localhost", "an e-mail address such as ana@example.org"),
    ("admin:email", "ana..b@example.org", "an e-mail address such as ana@example.org"),
    ("admin:name", "", "must not be empty"),
    ("users:0", [BEN], "requires immich:admin"),
    ("users:0:email", [{"name": "Ben"}], "is missing"),
    ("users:0:quota", [{**BEN, "quota": "50 GB"}], "a size such as 500m, 50g or 2t, or unlimited"),
    ("users:0:storage_label", [{**BEN, "storage_label": "../a"}], "letters, digits, dashes"),
    ("lookup:valkey:acl_file", "users.acl", "absolute path"),
    ("lookup:podman:compose_command", [], "the words of a command"),
    # addresses and ports
    ("bind_address", "localhost", "must be an IP address"),
    ("bind_address", 127, "must be text or a list"),
    ("bind_address", [], "must hold an address"),
    ("bind_address", "::1", "use 127.0.0.1"),
    ("bind_address", "fe80::1", "is link-local"),
    ("bind_address", "fe80::1%eth0", "is link-local"),
    ("bind_address", "::ffff:192.0.2.5", "must be written as 192.0.2.5"),
    ("bind_address", "224.0.0.1", "is not an address that a host can have"),
    ("bind_address:1", ["192.0.2.5", "localhost"], "must be an IP address"),
    ("bind_address:1", ["192.0.2.5", 5], "must be text"),
    ("bind_address:1", ["fd00::5", "fd00:0::5"], "is the same address as immich:bind_address:0"),
    ("bind_address:1", ["0.0.0.0", "192.0.2.5"], "192.0.2.5 is one of 0.0.0.0"),
    ("bind_address:1", ["fd00::5", "::"], "fd00::5 is one of ::"),
    ("bind_address:1", ["0.0.0.0", "fd00::5"], "cannot be used with 0.0.0.0"),
    ("ipv6_subnet", "172.21.0.0/16", "must be a subnet of IPv6"),
    ("ipv6_subnet", "fd00::1/64", "must be a subnet of IPv6"),
    ("ipv6_subnet", "fe80::/64", "has another use"),
    ("ipv6_subnet", "fd00::/126", "is too small"),
    ("host_ports:0", ["443"], "must be a whole number, not text"),
    ("host_ports:0", [0], "must be from 1 to 65535"),
    ("server:memory_limit", "4 GB", "a size such as 4g or 512m"),
    ("server:memory_limit", 4, "must be text"),
    ("machine_learning:pids_limit", 0, "must be from 1 to 4194304"),
    ("machine_learning:read_only", "no", "must be true or false"),
    ("host_gateway", "gateway", "podman or an IPv4 address"),
    ("host_gateway", "fd00::1", "podman or an IPv4 address"),
    ("host_gateway", "127.0.0.1", "containers can reach"),
    ("host_gateway", "172.20.0.1", "must not be in the subnet of the network immich"),
    ("port", 0, "must be from 1 to 65535"),
    ("port", 65536, "must be from 1 to 65535"),
    ("port", 5432, "is the same as immich:postgres:port"),
    ("port", 6379, "is the same as immich:valkey:port"),
    ("valkey:port", 5432, "is the same as immich:postgres:port"),
    # networks
    ("network", "imich", "did you mean"),
    ("podman:external_networks:0:subnet", [{"name": "a", "subnet": "10.9.0.1/24"}], "did you mean 10.9.0.0/24?"),
    ("podman:external_networks:0:subnet", [{"name": "a", "subnet": "10.9.0.0"}], "is not a subnet in CIDR notation"),
    ("podman:external_networks:0:subnet", [{"name": "a", "subnet": "10.9.0.0/33"}], "is not a subnet in CIDR notation"),
    ("podman:external_networks:0:subnet", [{"name": "a", "subnet": "10.9.0.0/30"}], "is too small"),
    ("podman:external_networks:0:subnet", [{"name": "a", "subnet": "127.0.0.0/8"}], "has another use"),
    ("podman:external_networks:0:subnet", [{"name": "a"}], "is missing"),
    ("podman:external_networks:0:name", [{"subnet": "10.9.0.0/24"}], "is missing"),
    ("podman:external_networks:0:name", [{"name": "podman", "subnet": "10.9.0.0/24"}], "Podman's default network"),
    (
        "podman:external_networks:0:gateway",
        [{"name": "a", "subnet": "10.9.0.0/24", "gateway": "10.8.0.1"}],
        "10.8.0.1 is not in the subnet 10.9.0.0/24",
    ),
    (
        "podman:external_networks:0:gateway",
        [{"name": "a", "subnet": "10.9.0.0/24", "gateway": "10.9.0.255"}],
        "which no host can have",
    ),
    (
        "podman:external_networks:0:gateway",
        [{"name": "a", "subnet": "10.9.0.0/24", "gateway": "x"}],
        "must be an IP address",
    ),
    (
        "podman:external_networks:0:interface_name",
        [{"name": "a", "subnet": "10.9.0.0/24", "interface_name": "sixteen-letters-"}],
        "1 to 15 letters",
    ),
    (
        "podman:external_networks:1:subnet",
        [{"name": "a", "subnet": "10.9.0.0/24"}, {"name": "b", "subnet": "10.0.0.0/8"}],
        "overlaps 10.9.0.0/24 of immich:podman:external_networks:0",
    ),
    (
        "podman:external_networks:1:name",
        [{"name": "a", "subnet": "10.9.0.0/24"}, {"name": "a", "subnet": "10.8.0.0/24"}],
        "is the name of two networks",
    ),
    ("podman:external_networks:0:subnet", [{"name": "immich", "subnet": "fd00::/64"}], "must be an IPv4 subnet"),
    # environment
    ("server:environment:DB_HOSTNAME", "x", "use immich:postgres:host"),
    ("server:environment:DB_PASSWORD_FILE", "/x", "use immich:postgres:password"),
    ("server:environment:REDIS_DBINDEX", 1, "use immich:valkey:database"),
    ("server:environment:TZ", "Etc/UTC", "use immich:timezone"),
    ("server:environment:IMMICH_PORT", 1, "use immich:port"),
    ("machine_learning:environment:IMMICH_HOST", "::", "the formula sets it"),
    ("machine_learning:environment:DB_PASSWORD", "x", "use immich:postgres:password"),
    ("server:environment:IMMICH_LOG_LEVEL", "info", "verbose, debug, log, warn, error, fatal"),
    ("server:environment:IMMICH_ENV", "", "must not be empty"),
    ("server:environment:IMMICH_ENV", "x" * 131061, "131071 bytes"),
    ("server:environment:IMMICH_ENV", None, "must be text or a number, not nothing"),
    ("server:environment:IMMICH_ENV", True, "put it in quotes"),
    ("server:environment:IMMICH_ENV", float("inf"), "a number that is too large"),
    ("server:environment:IMMICH-ENV", "x", "is not the name of an environment variable"),
    ("server:environment:OAUTH_CLIENT_SECRET", "geheim", "set immich:settings:oauth:clientSecret"),
    ("server:environment:SMTP_PASSWORD", "geheim", "set immich:settings:notifications:smtp:transport:password"),
    ("server:environment:POSTGRES_PASSWORD", "geheim", "immich:postgres:password"),
    ("server:environment:VALKEY_TOKEN", "geheim", "immich:valkey:password"),
    (
        "server:environment:some_api_key",
        4711,
        "set it in immich:settings, or in Immich, under Administration > Settings",
    ),
    (
        "server:environment:MAPS_APIKEY",
        "geheim",
        "set it in immich:settings, or in Immich, under Administration > Settings",
    ),
    ("server:environment:OIDC_PRIVATE_KEY_PEM", "geheim", "set immich:settings:oauth:clientSecret"),
    ("machine_learning:environment:HF_TOKEN", "geheim", "models are public"),
    ("machine_learning:environment:HTTPS_PROXY", "http://me:geheim@proxy:3128", "holds a URL with a password"),
    ("machine_learning:environment:HTTPS_PROXY", "http://me:ge/heim@proxy:3128", "holds a URL with a password"),
    ("machine_learning:environment:HTTPS_PROXY", "http://:geheim@[::1]:3128", "holds a URL with a password"),
    ("server:environment:IMMICH_WORKERS_INCLUDE", "microservices", "must include api"),
    ("server:environment:IMMICH_WORKERS_EXCLUDE", "api", "must not exclude api"),
    # PostgreSQL and Valkey
    ("postgres:user", "postgres", "a name of PostgreSQL's own"),
    ("postgres:user", "Immich", "lower-case"),
    ("postgres:database", "template1", "a database of PostgreSQL's own"),
    ("postgres:host", "db.example", "immich:postgres:managed false"),
    ("postgres:vector_extension", "vectorcord", "did you mean vectorchord?"),
    ("postgres:admin:sslmode", "verify", "must be one of"),
    ("postgres:admin:sslkey", "key.pem", "absolute path"),
    ("valkey:user", "default", "which has another use"),
    ("valkey:database", 16, "must be from 0 to 15"),
    ("valkey:host", "cache.example", "immich:valkey:managed false"),
    ("valkey:maxmemory", "63m", "must be at least 64m"),
    ("valkey:maxmemory", "1000000k", "a size such as 512m or 2g"),
    ("valkey:maxmemory", 0, "must be text"),
    ("valkey:stop_timeout", 0, "must be from 10 to 86400"),
    ("server:tmp_size", "half", "a size such as 4g or 512m"),
    ("server:tmp_size", "1073741824b", "a size such as 4g or 512m"),
    ("valkey:admin:tls_ca", "/etc/ssl/ca.pem", "immich:valkey:admin:tls is false"),
    # ACL users
    ("valkey:acl_users:0", [{**ACL, "name": "default"}], "another use"),
    ("valkey:acl_users:0", [{**ACL, "name": "immich-formula"}], "another use"),
    ("valkey:acl_users:1", [ACL, ACL], "second entry for the user a"),
    ("valkey:acl_users:0:rules", [{"name": "a", "password": "x"}], "is missing"),
    ("valkey:acl_users:0:name", [{"password": "x", "rules": ""}], "is missing"),
    ("valkey:acl_users:0:commands", [{"username": "a", "password": "x", "keypattern": ""}], "is missing"),
    ("valkey:acl_users:0:password", [{"name": "a", "rules": ""}], "is required"),
    ("valkey:acl_users:0", [{**ACL, "username": "a"}], "mixes two forms"),
    ("valkey:acl_users:0:rules", [{**ACL, "rules": ">secret +@read"}], "rules about passwords"),
    ("valkey:acl_users:0:rules", [{**ACL, "rules": "nopass +@read"}], "rules about passwords"),
    ("valkey:acl_users:0:password", [{**ACL, "name": "immich"}], "differs from immich:valkey:password"),
    ("postgres:tuning", "nvme", "must be one of none, ssd, hdd"),
    ("postgres:vectorchord:hash", "0" * 63, "64 hexadecimal digits"),
    ("postgres:vectorchord:package", "vchord.deb", "the URL or the absolute path of a Debian package"),
    ("postgres:vectorchord:package", "/root/a.rpm", "a Debian package"),
    ("postgres:sslmode", "verify-full", "a managed server is this host's"),
    ("postgres:sslmode", "verify-ca", "must be one of"),
    ("postgres:sslrootcert", "/nonexistent/ca.pem", "cannot be read"),
    ("valkey:tls", True, "a managed server is this host's"),
    ("valkey:tls_ca", "/nonexistent/ca.pem", "cannot be read"),
    # what is added to a container
    ("server:volumes:0", ["fonts"], "absolute path"),
    ("server:volumes:0", ["/srv/../etc"], "must not hold .."),
    ("server:volumes:0", ["/"], "would show /etc/immich-formula to the container"),
    ("server:volumes:0", ["/run/podman/podman.sock"], "would show /run to the container"),
    ("server:volumes:0", ["/opt/podman/immich/secrets"], "would show /opt/podman/immich to the container"),
    (
        "server:volumes:0",
        [{"path": "/srv/x", "mount": "/data/thumbs"}],
        "set immich:upload_location and immich:storage",
    ),
    ("server:volumes:0", [{"path": "/srv/x", "mount": "/usr"}], "which the container needs itself"),
    ("server:volumes:0", ["/tmp/x"], "which the container needs itself"),
    ("server:volumes:1", ["/srv/x", {"path": "/srv/y", "mount": "/srv/x"}], "same place as immich:server:volumes:0"),
    ("server:volumes:0:readonly", [{"path": "/srv/x", "readonly": True}], "did you mean read_only?"),
    ("machine_learning:volumes:0", [{"path": "/srv/x", "mount": "/cache/clip"}], "machine_learning:cache_location"),
    ("server:hosts:immich-machine-learning", "192.0.2.1", "the formula or Podman gives"),
    ("server:hosts:a b", "192.0.2.1", "is not a host name"),
    ("server:hosts:nas", "nas.home", "must be an IP address"),
    ("server:hosts:nas", "127.0.0.1", "in a container is not another host"),
    ("server:dns:1", ["192.168.1.1", "127.0.0.53"], "in a container is not another host"),
    ("server:dns:0", ["dns.home"], "must be an IP address"),
    ("server:devices:0", ["dri"], "a path below /dev"),
    # confirmations
    ("clean:delete_database", "immich2", "must be the value of immich:postgres:database"),
    ("clean:delete_backups", "/var/backups", "must be the value of immich:backup:directory"),
    ("clean:delete_uploads", True, "must be text, not true or false"),
    ("clean:delete_uploads", "/srv/immich", "must be the value of immich:upload_location"),
    ("clean:delete_storage:0", ["/mnt/ssd"], "must be a value of immich:storage"),
)


NEIGHBOURS = ("network", "machine_learning", "podman", "backup", "metrics")


def test_behind_the_proxy_immich_listens_for_it_alone(subject):
    domain = {"proxy": {"domain": ["a.example.org", "b.example.org"]}}
    found = subject.get(domain)
    assert (found["bind_address"], found["proxy"]["domains"]) == (["127.0.0.1"], domain["proxy"]["domain"])
    assert "proxy" in found["components"]
    assert overview.urls(found, {}) == ["https://a.example.org", "https://b.example.org"]
    assert subject.get({})["bind_address"] == ["0.0.0.0"]
    assert "proxy" not in subject.get({})["components"]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{path}-{text}" for path, _, text in WRONG])
def test_wrong_value_is_reported_with_its_path(subject, path, value, message):
    # A path into a list is given the list as its value.
    given_at = re.sub(r":\d+.*", "", path)
    found = subject.errors(merged(REQUIRED, nested(given_at, value)))
    assert message in found[f"immich:{path}"]
    # An overlap or a missing part may be told of several places, but of none that has nothing to do with it.
    assert all(each.split(":")[1] in (path.split(":")[0], *NEIGHBOURS) for each in found)


@pytest.mark.parametrize(
    ("pillar", "path", "message"),
    (
        ({"proxy": {"domain": "https://photos.example.org"}}, "immich:proxy:domain", "a host name"),
        ({"proxy": {"domain": "photos.example.org:8443"}}, "immich:proxy:domain", "a host name"),
        ({"proxy": {"domain": []}}, "immich:proxy:domain", "must hold a name"),
        (
            {"proxy": {"domain": "192.0.2.7", "tls": "internal"}},
            "immich:proxy:domain",
            "must be a name, not an address",
        ),
        (
            {"proxy": {"domain": "photos.lan"}},
            "immich:proxy:domain",
            "no public authority makes a certificate: photos.lan",
        ),
        (
            {"proxy": {"domain": ["a.example.org", "a.example.org"]}},
            "immich:proxy:domain:1",
            "is the second a.example.org",
        ),
        ({"proxy": {"domain": "a.example.org", "tls": "none"}}, "immich:proxy:tls", "acme"),
        (
            {"proxy": {"domain": "a.example.org", "tls": "files", "key": "/k"}},
            "immich:proxy:certificate",
            "is required while",
        ),
        ({"proxy": {"domain": "a.example.org", "key": "/k"}}, "immich:proxy:key", "has no effect unless"),
        (
            {"proxy": {"domain": "a.example.org"}, "bind_address": "192.0.2.7"},
            "immich:bind_address",
            "must be left out with immich:proxy",
        ),
        ({"proxy": {"domain": "a.example.org"}, "port": 443}, "immich:port", "is Caddy's with immich:proxy"),
        (
            {"proxy": {"domain": "a.example.org"}, "server": {"environment": {"IMMICH_TRUSTED_PROXIES": "10.0.0.1"}}},
            "immich:server:environment:IMMICH_TRUSTED_PROXIES",
            "use immich:proxy",
        ),
        ({"postgres": UNMANAGED}, "immich:postgres:admin:host", "is required"),
        ({"postgres": UNMANAGED}, "immich:postgres:admin:password", "is required"),
        ({"valkey": UNMANAGED}, "immich:valkey:admin:host", "is required"),
        ({"valkey": UNMANAGED}, "immich:valkey:admin:password", "is required"),
        (
            {"postgres": {**UNMANAGED, "admin": {"host": "db", "sslcert": "/cert.pem"}}},
            "immich:postgres:admin:sslkey",
            "belong together",
        ),
        (
            {"postgres": {**UNMANAGED, "admin": {"host": "a/b", "password": "x"}}},
            "immich:postgres:admin:host",
            "absolute path of a directory",
        ),
        (
            {"valkey": {**UNMANAGED, "admin": {"host": "a", "password": "x", "tls": True, "tls_key": "/key.pem"}}},
            "immich:valkey:admin:tls_cert",
            "belong together",
        ),
    ),
)
def test_servers_managed_elsewhere_need_an_administrator(subject, pillar, path, message):
    assert message in subject.errors(merged(REQUIRED, pillar))[path]


def test_immich_trusts_the_authority_of_its_database(subject, monkeypatch):
    monkeypatch.setattr(subject.module.secret_files, "unusable_certificates", lambda path: None)
    postgres = {"managed": False, "host": "db", "admin": {"host": "db", "password": "x"}, "sslmode": "verify-full"}
    found = subject.get(
        {"postgres": {**postgres, "sslrootcert": "/ca.pem"}, "server": {"ca_certificates": "/home.pem"}}
    )
    assert found["server"]["trusted"] == ["/home.pem", "/ca.pem"]
    other = {**postgres, "sslmode": "require", "sslrootcert": "/ca.pem"}
    address = subject.errors(merged(REQUIRED, {"postgres": {**postgres, "host": "192.0.2.7"}}))
    assert address["immich:postgres:host"].startswith("must be a name with sslmode verify-full")
    words = subject.errors(merged(REQUIRED, {"postgres": other}))["immich:postgres:sslrootcert"]
    assert words == "has no effect unless immich:postgres:sslmode is verify-full"
    variables = {"server": {"environment": {"DB_SSL_MODE": "require"}}}
    path = "immich:server:environment:DB_SSL_MODE"
    assert "use immich:postgres:sslmode" in subject.errors(merged(REQUIRED, {"postgres": postgres, **variables}))[path]


def test_socket_needs_no_password(subject):
    admin = {"host": "/var/run/postgresql"}
    assert subject.errors(merged(REQUIRED, {"postgres": {"managed": False, "admin": admin}})) == {}


def test_everything_is_reported_at_once(subject):
    found = subject.errors(
        {
            "prot": 1,
            "port": "x",
            "timezone": "US/Pacific",
            "upload_location": "relative",
            "network": "none",
            "podman": {
                "external_networks": [
                    {"name": "a", "subnet": "10.9.0.0/33"},
                    {"name": "b", "subnet": "10.8.0.0/24", "gateway": "10.9.0.1"},
                ]
            },
            "postgres": {"password": 1},
            "valkey": {"password": "short"},
        }
    )
    assert list(found) == sorted(found)
    assert set(found) == {
        "immich:network",
        "immich:podman:external_networks:0:subnet",
        "immich:podman:external_networks:1:gateway",
        "immich:port",
        "immich:postgres:password",
        "immich:prot",
        "immich:timezone",
        "immich:upload_location",
        "immich:valkey:admin_password",
        "immich:valkey:password",
    }


@pytest.mark.parametrize("pillar", (True, 5, 1.5, "immich", ["immich"], [], b"x", {1, 2}, object()))
def test_pillar_that_is_no_mapping(subject, pillar):
    assert "must be a mapping, not " in subject.errors(pillar)["immich"]


def test_loop_in_the_pillar(subject):
    loop = copy.deepcopy(REQUIRED)
    loop["loop"] = loop["postgres"]["password"] = loop["version"] = loop
    assert set(subject.errors(loop)) == {"immich:loop", "immich:postgres:password", "immich:version"}


@pytest.mark.parametrize("path", ("port", "postgres:password", "version", "server:environment:A", "zzz"))
def test_number_without_end(subject, path):
    number = 1 << 40000  # more digits than Python turns into text
    assert f"immich:{path}" in subject.errors(merged(REQUIRED, nested(path, number)))
    assert f"immich:{path}" in subject.errors(merged(REQUIRED, nested(path, [number])))


# No error tells a secret


@pytest.mark.parametrize("path", ("postgres:password", "valkey:password", "valkey:admin_password"))
@pytest.mark.parametrize(
    "wrapped",
    (
        lambda secret: secret[:8],
        lambda secret: secret + "\n",
        lambda secret: [secret],
        lambda secret: {secret: secret},
        lambda secret: {1: {secret: [secret]}},
        lambda secret: int.from_bytes(secret.encode(), "big"),
    ),
)
def test_errors_hold_no_secret(subject, path, wrapped):
    secret = wrapped("hunter22-hunter22")
    found = json.dumps(subject.errors(merged(REQUIRED, nested(path, secret))))
    assert f"immich:{path}" in found
    assert "hunter22" not in found
    assert str(int.from_bytes(b"hunter22-hunter22", "big")) not in found


def test_errors_of_a_mapping_that_is_a_password_hold_no_secret(subject):
    assert "hunter22" not in json.dumps(subject.errors({"postgres": "hunter22", "valkey": ["hunter22"]}))


# What is read from the host


def test_podmans_conflicts_are_told(subject, monkeypatch):
    asked = []

    def conflicts(subnet, ignore):
        asked.append((subnet, ignore))
        return ["the host's route to 172.20.0.0/24 through eth1"]

    subject.module.__salt__["podman_network.conflicts"] = conflicts
    monkeypatch.setattr(subject.module.identity, "known", lambda directory=None: {"network": "former"})
    try:
        found = subject.errors(REQUIRED)
    finally:
        del subject.module.__salt__["podman_network.conflicts"]
    assert asked == [("172.20.0.0/16", ["immich", "former"])]
    assert list(found.values()) == ["172.20.0.0/16 overlaps the host's route to 172.20.0.0/24 through eth1"]


# Any pillar at all


def fuzzed(strategy, examples):
    """A decorator that runs a test with so many pillars of a strategy."""
    few = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda test: few(given(pillar=strategy)(test))


def assert_settings_or_errors(module, pillar):
    """Settings or errors, of which each is a sentence about a place in the pillar, and no secret in either."""
    module.__context__.pop("immich_settings.evaluated", None)
    module.__pillar__ = {"immich": pillar}
    found, got = module.errors(), module.get()
    assert bool(found) != bool(got)
    for error in found:
        assert error["path"].split(":")[0] == "immich"
        assert error["seen"]
        assert f"{error['path']} {error['seen']}".isprintable()
    assert pillars.MARK not in json.dumps([found, got, module.warnings()])
    return got


@fuzzed(pillars.ANY, 100)
def test_any_pillar_gives_settings_or_errors(loaded, pillar):
    assert_settings_or_errors(loaded.module, pillar)


@fuzzed(pillars.RIGHT, 50)
def test_right_pillars_are_accepted(loaded, pillar):
    assert assert_settings_or_errors(loaded.module, pillar)


@pytest.mark.parametrize(
    ("pillar", "errors"),
    (
        ({"admin": {"name": None, "password": None}}, {"admin:name": "is missing", "admin:password": "is missing"}),
        ({"admin": {"password": "short"}}, {"admin:password": "is too short: at least 8 characters"}),
        (
            {"users": [{"email": "a@example.org"}]},
            {"users:0:name": "is missing", "users:0:password": "is missing"},
        ),
        ({"users": [{**BEN, "password": "short"}]}, {"users:0:password": "is too short: at least 8"}),
        (
            {"users": [BEN, {**BEN, "email": "Ben@example.org"}]},
            {"users:1": "is the second entry for ben@"},
        ),
        (
            {"users": [{**BEN, "email": "ANA@example.org"}]},
            {"users:0:email": "is that of immich:admin"},
        ),
        ({"users": [{**BEN, "delete": "yes"}]}, {"users:0:delete": "must be ben@example.org, to confirm"}),
        ({"users": [{"email": "a@example.org", "delete": "a@example.org"}]}, {}),
        (
            {"users": [DELETED], "external_libraries": [{"path": "/mnt/a", "owner": DELETED["email"]}]},
            {"external_libraries:0:owner": "is deleted by immich:users:0"},
        ),
    ),
)
def test_accounts_go_together(subject, pillar, errors):
    found = subject.errors(merged({**REQUIRED, "admin": ADMIN}, pillar))
    assert [path.removeprefix("immich:") for path in found] == list(errors)
    assert all(found[f"immich:{path}"].startswith(words) for path, words in errors.items())
    assert "secret" not in str(found)


def test_an_administrator_is_signed_up_before_others_reach_the_port(subject):
    found = subject.get({"admin": ADMIN, "users": [BEN], "bind_address": "192.0.2.7"})
    assert (found["sign_up"], found["bind_address"]) == ("root", ["127.0.0.1"])
    assert found["once_signed_up"] == {"sign_up": "closed", "bind_address": ["192.0.2.7"]}
    assert found["users"] == [{"email": BEN["email"], "name": "Ben", "password_pillar": "immich:users:0:password"}]
    assert found["admin"] == {"email": ADMIN["email"], "name": "Ana"}
    assert "accounts" in found["components"]
    assert "ana-secret" not in str(found)
    assert "ben-secret" not in str(found)
    assert "accounts" not in subject.get({"setup": "host"})["components"]


def test_problems_are_findings_that_a_state_and_the_doctor_put_into_words(subject):
    (error,) = problems.report([(("port",), "must be from 1 to 65535")])
    assert findings.seen(error) == "immich:port: must be from 1 to 65535"
    assert (error["code"], error["severity"], error["remedy"]) == (
        "setting-wrong",
        "error",
        "fix immich:port in the pillar",
    )
    subject.module.__pillar__ = {"immich": merged(REQUIRED, {"version": "release"})}
    assert [(each["code"], each["severity"]) for each in subject.module.warnings()] == [("setting-doubtful", "warning")]
