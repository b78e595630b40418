"""Whatever the pillar holds: a list of clear errors, or every SLS and file comes out and says what the pillar says.

The SLS are rendered and compiled by Salt's own compiler, their files by Salt's own module, and what comes out is read
back by those who read it on a host: podman-compose, systemd, nft, TOML, JSON.
"""

import json
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import salt.loader
import salt.state
import tomllib
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings

from immich_core import compose, storage
from immich_io import compose_file
from tests.pillars import MARK, RIGHT, WRONG

REPO = Path(__file__).resolve().parents[2]
UNITS = Path("/run/systemd/system")
SYSTEMD = "org.freedesktop.systemd1"
# Of Debian: podman-compose and what it imports.
DIST_PACKAGES = "/usr/lib/python3/dist-packages"


def fuzz(strategy, examples):
    """A test of one argument, ``pillar``, with so many of a strategy's pillars."""
    setup = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    return lambda test: setup(given(pillar=strategy)(test))


class Compiler:
    """What `state.apply` does with one pillar after the other before it runs the first state."""

    def __init__(self, opts, folder):
        modules = folder / "extmods"
        modules.mkdir()
        for kind in ("modules", "states", "utils", "output"):
            (modules / kind).symlink_to(REPO / f"_{kind}")
        opts = dict(opts, extension_modules=str(modules), cachedir=str(folder), pillar={}, test=False)
        opts["grains"] = salt.loader.grains(opts)
        self.highstate = salt.state.HighState(opts, initial_pillar={"immich": {}})
        self.folder = folder
        self.call = self.highstate.state.functions
        # What this host says to an address or a port is for the preflight's own tests.
        self.call["immich_preflight.of_sls"].func.__globals__["obstacles"] = lambda *_: []

    def take(self, pillar):
        """The errors and the settings of a pillar."""
        state = self.highstate.state
        for loader in (state.functions, state.states, state.utils, state.states.pack["__salt__"]):
            loader.pack["__pillar__"] = {"immich": pillar}
        self.highstate.state.state_con.pop("immich_settings.evaluated", None)
        return self.call["immich_settings.errors"](), self.call["immich_settings.get"]()

    def low(self, sls):
        """The states of an SLS in the order in which they would run."""
        state = self.highstate.state
        self.highstate.building_highstate.clear()
        high, errors = self.highstate.render_highstate({"base": [sls]})
        high, extended = state.reconcile_extend(high)
        invalid = state.verify_high(high)
        high, required = state.requisite_in(high)
        chunks, ordered = state.compile_high_data(high)
        assert [*errors, *extended, *invalid, *required, *ordered] == []
        return chunks

    def file(self, chunk):
        """The text of a file as a state of the kind file.managed would write it; None where it is a program."""
        if "contents" in chunk:
            return chunk["contents"]
        if "template" not in chunk:
            return None
        rendered, _, comment = self.call["file.get_managed"](
            chunk["name"], "jinja", chunk["source"], "", "", None, None, None, None, "base", chunk["context"], {}
        )
        assert rendered, comment
        text = Path(rendered).read_text(encoding="utf8")
        Path(rendered).unlink()
        return text

    def done(self, chunk, **changes):
        """What a state really does, with some of its arguments exchanged."""
        return self.highstate.state.call({**chunk, **changes})

    def written(self, chunk):
        """What a state that writes a secret really writes."""
        path = self.folder / "secret"
        path.unlink(missing_ok=True)
        done = self.done(chunk, name=str(path), user="root", group="root")
        assert done["result"], done
        assert MARK not in json.dumps(done)
        return path.read_text(encoding="utf8")


@pytest.fixture(scope="module")
def compiler(minion_opts, tmp_path_factory):
    compile_template = jinja2.Environment.compile
    compiled = {}

    def compile_once(self, source, *arguments, **kwargs):
        """Salt makes an environment for each rendering; what Jinja makes of the same text is the same."""
        key = (source, *arguments, *kwargs.items())
        if key not in compiled:
            compiled[key] = compile_template(self, source, *arguments, **kwargs)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jinja2.Environment, "compile", compile_once)
        yield Compiler(minion_opts, tmp_path_factory.mktemp("compiler"))


@pytest.fixture(scope="module")
def podman_compose():
    sys.path.append(DIST_PACKAGES)
    try:
        import podman_compose
    finally:
        sys.path.remove(DIST_PACKAGES)
    return podman_compose


def check_refused(compiler, errors):
    """A wrong pillar compiles to the one state that says so."""
    for sls in ("immich", "immich.clean", "immich.backup"):
        (chunk,) = compiler.low(sls)
        assert (chunk["state"], chunk["fun"], chunk["errors"]) == ("immich", "pillar_valid", errors)
        done = compiler.done(chunk)
        assert done["result"] is False
        assert done["changes"] == {}
        assert all(error["path"] in done["comment"] for error in errors)


# What a right pillar leads to


def check_accepted(compiler, podman_compose, pillar, desired):
    """Every value arrives to the letter: in the states' arguments, in the files, and where programs read them."""
    low = compiler.low("immich")
    assert MARK not in json.dumps(low)
    by_id = {chunk["__id__"]: chunk for chunk in low}
    for chunk in low:
        if "connection" in chunk and chunk["state"].startswith("pgsql"):
            assert chunk["connection"] == desired["postgres"]["connection"]
    check_names(by_id, desired)
    check_secrets(compiler, by_id, pillar)
    check_compose(compiler, podman_compose, desired)
    files = {
        chunk["name"]: compiler.file(chunk)
        for chunk in low
        if (chunk["state"], chunk["fun"]) == ("file", "managed") and "contents_pillar" not in chunk
    }
    check_files(files, pillar, desired)
    check_cleaned(compiler, desired)
    return files


def check_names(by_id, desired):
    project = desired["project_dir"]
    names = {
        "The directory of compose projects is present": desired["podman"]["projects_dir"],
        "Immich's library is present": desired["upload_location"],
        "Immich's project directory is present": project,
        "Immich's secrets directory is present": f"{project}/secrets",
        "Immich's secret db_password is present": f"{project}/secrets/db_password",
        "Immich's compose file is managed": f"{project}/docker-compose.yml",
        "The directory of the backups is present": desired["backup"]["directory"],
        "Immich has a role in PostgreSQL": desired["postgres"]["user"],
        "Immich has a database of its own": desired["postgres"]["database"],
    }
    assert {each: by_id[each]["name"] for each in names} == names
    for network in desired["podman"]["external_networks"]:
        chunk = by_id[f"Podman network {network['name']} is present"]
        if network["name"] != desired["network"]["name"]:
            assert {key: chunk.get(key) for key in network} == network
            continue
        assert (chunk["network"], chunk["name"]) == (network, network["name"])  # Immich's own


def check_secrets(compiler, by_id, pillar):
    for name, part in (("db_password", "postgres"), ("redis_password", "valkey")):
        assert compiler.written(by_id[f"Immich's secret {name} is present"]) == pillar[part]["password"]


def check_compose(compiler, podman_compose, desired):
    """The compose file as podman-compose understands it and would hand it to Podman."""
    text = compose.text(desired, "pgvector")
    assert MARK not in text
    parsed = podman_compose.rec_subs(podman_compose.normalize(yaml.safe_load(text)), {"HOME": "/root", "PATH": "/bin"})
    parsed = podman_compose.normalize_final(parsed, "/opt/podman/immich")
    parts = {"immich-server": "server", "immich-machine-learning": "machine_learning"}
    for name, service in parsed["services"].items():
        part = desired[parts[name]]
        handed = dict(each.split("=", 1) for each in podman_compose.norm_as_list(service["environment"]))
        assert {key: handed[key] for key in part["environment"]} == part["environment"]
        assert service["image"] == part["image"]
    server = parsed["services"]["immich-server"]
    volumes = [podman_compose.mount_desc_to_volume_args(None, each, "s", "c") for each in server["volumes"]]
    libraries = [f"{each['path']}:{each['mount']}:ro" for each in desired["external_libraries"]]
    folders = [f"{path}:/data/{folder}" for folder, path in storage.elsewhere(desired).items()]
    more = [
        f"{each['path']}:{each['mount']}{':ro' if each['read_only'] else ''}" for each in desired["server"]["volumes"]
    ]
    assert volumes == [f"{desired['upload_location']}:/data", *folders, *libraries, *more]
    assert compose_file.deviations(desired, text) == {"by_hand": [], "differences": []}


def check_files(files, pillar, desired):
    podman = desired["lookup"]["podman"]
    engine = tomllib.loads(files.get("/etc/containers/containers.conf.d/50-immich.conf", "[engine]"))["engine"]
    provider = podman["compose_provider"] if podman["compose_command"] == ["podman", "compose"] else None
    assert engine.get("compose_providers") == (provider and [provider])
    backup = json.loads(files["/etc/immich-formula/backup.json"])
    assert backup["directory"] == desired["backup"]["directory"]
    assert backup["environment"]["PGDATABASE"] == desired["postgres"]["database"]
    hook = files.get("/etc/immich-formula/backup-on-failure")
    assert hook == (f"#!/bin/sh\n{desired['backup']['on_failure']}" if desired["backup"]["on_failure"] else None)
    for text in filter(None, files.values()):
        assert MARK not in text


def check_cleaned(compiler, desired):
    by_id = {chunk["__id__"]: chunk for chunk in compiler.low("immich.clean")}
    assert by_id["Immich's project directory is absent"]["name"] == desired["project_dir"]
    assert by_id["Immich is stopped and disabled"]["directory"] == desired["project_dir"]
    for key, path in (
        ("uploads", desired["upload_location"]),
        ("model cache", desired["machine_learning"]["cache_location"]),
    ):
        confirmed = desired["clean"][f"delete_{key.replace(' ', '_')}"] == path
        ids = [each for each in by_id if each.startswith(f"Immich's {key} are deleted")]
        assert [by_id[each]["name"] for each in ids] == ([path] if confirmed else [])


# Pillars without number


PASSWORDS = {
    "postgres": {"password": f"{MARK}-of-postgres"},
    "valkey": {"password": f"{MARK}-of-valkey", "admin_password": f"{MARK}-of-default"},
}
AWKWARD = """ a'b"c\\d %n%% $e$$ ${f} #g {{ h }};i,j=k~é"""
PATHS = {
    **PASSWORDS,
    "upload_location": f"/srv/upload{AWKWARD}",
    "storage": {"thumbs": f"/srv/thumbs{AWKWARD}"},
    "external_libraries": [f"/srv/library{AWKWARD}"],
    "machine_learning": {"cache_location": f"/srv/cache{AWKWARD}"},
    "podman": {"projects_dir": f"/srv/projects{AWKWARD}"},
    "backup": {"directory": f"/srv/backups{AWKWARD}", "on_failure": f"echo {AWKWARD}"},
    "server": {"environment": {"A": AWKWARD}},
}
ELSEWHERE = {"managed": False, "admin": {"host": "db.example", "password": MARK}}


# immich.clean required an SLS that has no states then; TOML took a backslash for an escape; YAML cut a path at ` #`,
# and took a colon in an ID for the end of a key.
@example(pillar={**PASSWORDS, "postgres": {**PASSWORDS["postgres"], **ELSEWHERE}})
@example(pillar={**PASSWORDS, "lookup": {"podman": {"compose_provider": '/opt/"\\x'}}})
@example(pillar=PATHS)
@example(pillar={**PASSWORDS, "lookup": {"postgres": {"unit": "a:"}}})
@fuzz(RIGHT, 15)
def test_right_pillars_arrive_to_the_letter(compiler, podman_compose, pillar):
    check(compiler, podman_compose, pillar)


@fuzz(WRONG, 15)
def test_wrong_pillars_are_refused_as_a_whole(compiler, podman_compose, pillar):
    check(compiler, podman_compose, pillar)


def check(compiler, podman_compose, pillar):
    errors, desired = compiler.take(pillar)
    if errors:
        check_refused(compiler, errors)
    else:
        check_accepted(compiler, podman_compose, pillar, desired)


# What systemd makes of the units. It reads all at once, for it takes its time.


def check_units(compiler, strategy, examples):
    written = {}

    @example(pillar=PATHS)
    @fuzz(strategy, examples)
    def write(pillar):
        errors, desired = compiler.take(pillar)
        assert errors == []
        for chunk in compiler.low("immich"):
            name = Path(chunk["name"]).name
            if (chunk["fun"], chunk.get("template")) == ("managed", "jinja") and name.endswith((".service", ".timer")):
                unit = f"fuzzed{len(written)}-{name}"
                (UNITS / unit).write_text(compiler.file(chunk), encoding="utf8")
                written[unit] = desired

    try:
        write()
        run("systemctl", "daemon-reload")
        told = run("systemd-analyze", "verify", "--recursive-errors=no", *(str(UNITS / unit) for unit in written))
        # The programs themselves are not on this host.
        assert [line for line in told.splitlines() if "fuzzed" in line and "is not executable" not in line] == []
        for unit, desired in written.items():
            check_unit(unit, desired)
    finally:
        for unit in written:
            (UNITS / unit).unlink()
        run("systemctl", "daemon-reload")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr


def check_unit(unit, desired):
    loaded, mounts = properties(unit, "Unit", "LoadState", "RequiresMountsFor")
    assert loaded == "loaded", (unit, (UNITS / unit).read_text(encoding="utf8"))
    kind = unit.partition("-")[2]
    if kind == "immich.service":
        libraries = [each["path"] for each in desired["external_libraries"]]
        assert set(mounts) >= {desired["upload_location"], *storage.elsewhere(desired).values(), *libraries}
        (start,) = properties(unit, "Service", "ExecStart")
        # It makes one of two dollars when it starts the command.
        assert start[0][1][-1].replace("$$", "$") == desired["project_dir"]
    elif kind == "immich-backup.service":
        assert desired["backup"]["directory"] in mounts
        paths, user = properties(unit, "Service", "ReadWritePaths", "User")
        assert desired["backup"]["directory"] in paths
        connection = desired["postgres"]["connection"]
        assert user == (connection["os_user"] if connection["host"].startswith("/") else "root")
    elif kind == "immich-backup.timer":
        (calendars,) = properties(unit, "Timer", "TimersCalendar")
        assert len(calendars) == 1


def properties(unit, interface, *names):
    """Properties as systemd has them, not as it prints them."""
    path = f"/org/freedesktop/systemd1/unit/{escaped(unit)}"
    told = run("busctl", "--json=short", "get-property", SYSTEMD, path, f"{SYSTEMD}.{interface}", *names)
    return [json.loads(line)["data"] for line in told.splitlines()]


def escaped(unit):
    return "".join(char if char.isalnum() else f"_{ord(char):02x}" for char in unit)


def test_units_arrive_to_the_letter(compiler):
    check_units(compiler, RIGHT, 10)
