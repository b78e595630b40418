"""What the formula would do on systems that no test host is made of: every SLS, rendered with their grains.

Not run: nothing of this was installed or started on Ubuntu or on a distribution of the RPM family. Names of packages,
services and files are as their documentation gives them; that the packages are there, what SELinux and firewalld say,
and that the services start is not shown here. Debian 12, the last of the table, is a test host too:
``tests/scenarios/test_bookworm.py``.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from immich_core import components

PILLAR = {
    "postgres": {"password": "postgres-secret-1"},
    "valkey": {"password": "valkey-secret-12", "admin_password": "admin-secret-123"},
    "admin": {"email": "ana@example.org", "name": "Ana", "password": "ana-secret-1234"},
    "proxy": {"domain": "photos.example.org"},
    "metrics": {"enabled": True},
}
RPM = {
    "podman": ["podman", "podman-compose", "netavark", "aardvark-dns", "nftables", "iproute"],
    "postgres": ["postgresql-server", "postgresql-contrib", "pgvector"],
    "postgres_units": ["postgresql.service"],
    "postgres_dropin": "postgresql",
    "initdb": {"name": "postgresql-setup --initdb", "creates": "/var/lib/pgsql/data/PG_VERSION"},
    "valkey": ["valkey"],
    "valkey_service": "valkey",
    "valkey_files": ["/etc/valkey/valkey.conf", "/etc/valkey/users.acl", "valkey", "valkey"],
    "network": {"interface_name": "immich0", "isolate": "strict"},
    "compose": ["podman", "compose"],
    "installer": "dnf install python3-redis python3-psycopg2 python3-jsonschema",
    "foreign": ["/etc/postgresql", "-main", "apt-get", "redis-server", "/etc/redis", "iptables"],
}
OLDER_DEBS = {
    "podman": ["podman", "podman-compose", "netavark", "aardvark-dns", "nftables", "iproute2", "iptables"],
    "initdb": None,
    "valkey": ["redis-server"],
    "valkey_service": "redis-server",
    "valkey_files": ["/etc/redis/redis.conf", "/etc/redis/users.acl", "redis", "redis"],
    "installer": "apt-get install python3-redis python3-psycopg2 python3-jsonschema",
    "foreign": ["/var/lib/pgsql", "dnf", "/etc/valkey", "valkey-server", "postgresql-17", "@17-main"],
}
SYSTEMS = {
    "Rocky 9": ({"os_family": "RedHat", "os": "Rocky", "osfinger": "Rocky Linux-9"}, RPM),
    "Rocky 10": ({"os_family": "RedHat", "os": "Rocky", "osfinger": "Rocky Linux-10"}, RPM),
    "Fedora 42": ({"os_family": "RedHat", "os": "Fedora", "osfinger": "Fedora Linux-42"}, RPM),
    "Ubuntu 24.04": (
        {"os_family": "Debian", "os": "Ubuntu", "osfinger": "Ubuntu-24.04"},
        {
            **OLDER_DEBS,
            "postgres": ["postgresql-16", "postgresql-16-pgvector"],
            "postgres_units": ["postgresql.service", "postgresql@16-main.service"],
            "postgres_dropin": "postgresql@16-main",
            "network": {"interface_name": "immich0", "isolate": True},
            "compose": ["podman", "compose"],
        },
    ),
    "Debian 12": (
        {"os_family": "Debian", "os": "Debian", "osfinger": "Debian-12"},
        {
            **OLDER_DEBS,
            "postgres": ["postgresql-15", "postgresql-15-pgvector"],
            "postgres_units": ["postgresql.service", "postgresql@15-main.service"],
            "postgres_dropin": "postgresql@15-main",
            "network": {"isolate": True},
            "compose": ["/usr/bin/podman-compose"],
        },
    ),
}

REGISTRY = Path(__file__).resolve().parents[2] / "immich/components.yaml"
TRACES = components.traces(yaml.safe_load(REGISTRY.read_text(encoding="utf8")))


class Minion:
    """Salt with other grains, and caches of its own."""

    def __init__(self, folder, grains, pillar=PILLAR, **options):
        config = {
            "id": "elsewhere",
            "file_client": "local",
            "file_roots": {"base": ["/srv/formula"]},
            "pillar_roots": {"base": [f"{folder}/pillar"]},
            "root_dir": str(folder),
            "grains": {**grains, "pythonexecutable": "/usr/bin/python3"},
            **options,
        }
        (folder / "pillar").mkdir()
        (folder / "pillar/top.sls").write_text("base: {'*': [immich]}")
        (folder / "pillar/immich.sls").write_text(yaml.safe_dump({"immich": pillar}))
        (folder / "minion").write_text(yaml.safe_dump(config))
        self.folder = folder

    def calls(self, *calls):
        """What several functions return, one after the other in one process: Salt's start costs more than a call."""
        command = [sys.executable, "-c", CALLER, str(self.folder / "minion"), json.dumps(calls)]
        done = subprocess.run(
            ["unshare", "--net", "--mount", "sh", "-c", ELSEWHERE, "sh", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


# What runs before the record is looked at.
BEFORE = ("immich.bootstrap", "immich.identity")
# What is on the machine that renders, its ports and its clusters of PostgreSQL, is not that system's.
# Calls with one loading of Salt's modules, after they were synced if that is asked for.
CALLER = """
import json, sys
import salt.client
config, calls = sys.argv[1], json.loads(sys.argv[2])
if calls[0] == ["saltutil.sync_all"]:
    salt.client.Caller(config).cmd(*calls.pop(0))
caller = salt.client.Caller(config)
print(json.dumps([caller.cmd(*call) for call in calls]))
"""
ELSEWHERE = 'mount -t tmpfs tmpfs /etc/postgresql; mount -t tmpfs tmpfs /usr/lib/postgresql; exec "$@"'


class Rendered:
    """The states of an SLS and all that it includes: ``{id: {function: arguments}}``."""

    def __init__(self, low):
        assert isinstance(low, dict), low
        self.text = json.dumps(low)
        self.states = {}
        self.sls = {body["__sls__"] for state, body in low.items() if not state.startswith("__")}
        for state, body in low.items():
            if state.startswith("__"):  # what one SLS extends of another
                continue
            for module, declared in body.items():
                if module.startswith("__"):
                    continue
                arguments = {}
                for each in declared:
                    arguments |= each if isinstance(each, dict) else {"function": each}
                self.states[state] = {
                    **arguments,
                    "sls": body["__sls__"],
                    "function": f"{module}.{arguments.get('function')}",
                }

    def __getitem__(self, state):
        return self.states[state]


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request, tmp_path_factory):
    """What is asked of one system: the states of both SLS, the settings, its grains, and what is expected."""
    grains, expected = SYSTEMS[request.param]
    low, clean, settings = Minion(tmp_path_factory.mktemp("minion"), grains).calls(
        ["saltutil.sync_all"],
        ["state.show_sls", "immich"],
        ["state.show_sls", "immich.clean"],
        ["immich_settings.get"],
    )
    return SimpleNamespace(low=low, clean=clean, settings=settings, grains=grains, expected=expected)


@pytest.fixture(scope="module")
def rendered(system):
    return Rendered(system.low), system.expected


@pytest.fixture(scope="module")
def settings(system):
    """What those states take from the settings by themselves."""
    return system.settings


def test_packages(rendered):
    states, expected = rendered
    assert states["Podman and its compose provider are installed"]["pkgs"] == expected["podman"]
    assert states["PostgreSQL is installed"]["pkgs"] == expected["postgres"]
    assert states["Valkey is installed"]["pkgs"] == expected["valkey"]


def test_postgres(rendered):
    states, expected = rendered
    assert states["PostgreSQL is running"]["names"] == expected["postgres_units"]
    assert states["PostgreSQL is set up for Immich"]["service"] == expected["postgres_dropin"]
    # The files of its configuration are asked of the server itself, over its socket.
    assert states["PostgreSQL is set up for Immich"]["connection"]["host"] == "/var/run/postgresql"
    hba = states["Immich may log in to its database from its network"]
    assert (hba["function"], hba["connection"]["user"]) == ("pgsql_hba.present", "postgres")
    folder = f"/etc/systemd/system/{expected['postgres_dropin']}.service.d/immich-gateway.conf"
    assert states[f"{expected['postgres_dropin']} starts after the gateway"]["name"] == folder
    initdb = states.states.get("PostgreSQL has a data directory")
    assert (initdb and {key: initdb[key] for key in ("name", "creates")}) == expected["initdb"]


def test_valkey(rendered):
    states, expected = rendered
    assert states["Valkey is running"]["name"] == f"{expected['valkey_service']}.service"
    config = states["Valkey listens at the gateway's address and keeps its users in an ACL file"]
    assert [config[key] for key in ("config_file", "acl_file", "user", "group")] == expected["valkey_files"]
    assert config["service"] == expected["valkey_service"]
    folder = f"/etc/systemd/system/{expected['valkey_service']}.service.d/immich-gateway.conf"
    assert states[f"{expected['valkey_service']} starts after the gateway"]["name"] == folder


def test_podman(rendered, settings):
    states, expected = rendered
    network = states["Podman network immich is present"]["network"]
    assert {key: network[key] for key in ("interface_name", "isolate") if key in network} == expected["network"]
    assert settings["lookup"]["podman"]["compose_command"] == expected["compose"]
    # A Podman without the subcommand does not know its settings either.
    assert ("podman compose has one provider" in states.states) is (expected["compose"][0] == "podman")


def test_units_wait_for_the_services_of_this_system(rendered):
    states, expected = rendered
    after = states["Immich's unit is present"]["context"]["app"]["after"]
    assert {f"{expected['postgres_dropin']}.service", f"{expected['valkey_service']}.service"} <= set(after)
    assert states["The backup's unit is present"]["context"]["backup"]["user"] == "postgres"


def test_every_component_waits_for_the_comparison_with_the_record(rendered):
    """By `require` and `watch` alone: of several `require_in` that extend one state Salt keeps the last."""
    states = rendered[0].states
    of_sls = {sls: {name for name, state in states.items() if state["sls"] == sls} for sls in rendered[0].sls}
    held, before = {"The installation is the one on record"}, None
    while held != before:
        before = set(held)
        for name, state in states.items():
            desired = state.get("require", []) + state.get("watch", [])
            needs = [each if isinstance(each, str) else next(iter(each.values())) for each in desired]
            if any(need in held or of_sls.get(need, set()) & held for need in needs):
                held.add(name)
    free = {name for name, state in states.items() if name not in held and not state["sls"].startswith(BEFORE)}
    assert free == {
        "Valkey listens at the declared port",
        "Immich is still active after a failed run",
        "The run is recorded for the metrics",  # also a failed one
    }


def test_nothing_of_another_system(rendered, settings):
    states, expected = rendered
    text = states.text + json.dumps(settings)
    assert [word for word in expected["foreign"] if word in text] == []


def test_clean_knows_the_same_names(system):
    states, expected = Rendered(system.clean), system.expected
    assert f"{expected['valkey_service']}.service.d" in states.text
    assert f"{expected['postgres_dropin']}.service.d" in states.text


def removed(state):
    """The paths that a state removes, in their order."""
    return [state.get("name"), *state.get("names", []), *state.get("files", [])]


def test_the_trace_of_a_component_is_written_on_every_system_and_removed_last(system):
    """By it `immich.clean` knows what former roles have left, also after a removal that was cut short."""
    states, clean = Rendered(system.low).states, Rendered(system.clean).states
    written = {state.get("name"): state["sls"].split(".")[1] for state in states.values()}
    for component, trace in TRACES.items():
        sls = f"immich.{component}.clean"
        of_sls = {name for name, state in clean.items() if state["sls"] == sls}
        if component == "valkey":  # its login's password, of which the states know the place
            assert states["The formula has a Valkey login of its own"]["sls"] == "immich.valkey"
            last = "The formula has no Valkey login"
        else:
            assert written[trace] == component
            (last,) = (name for name in of_sls if trace in removed(clean[name])[-1:])
        before, new = set(), {last}
        while new:
            before |= new
            needed = [each for name in new & of_sls for each in clean[name].get("require", [])]
            new = {each if isinstance(each, str) else next(iter(each.values())) for each in needed} - before
        assert of_sls <= before, component


def test_plan_of_a_host_that_has_never_seen_the_formula(system, tmp_path):
    """Its words name this system's installer."""
    expected = system.expected
    (low,) = Minion(tmp_path, system.grains, test=True).calls(["state.show_sls", "immich"])
    states = Rendered(low)
    assert expected["installer"] in states["The rest of the plan needs the formula's modules"]["text"]
    assert states["Packages of postgres are installed"]["pkgs"] == [
        each for each in expected["postgres"] if "pgvector" not in each
    ]
