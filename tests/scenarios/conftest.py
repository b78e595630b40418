"""Hosts for the scenarios: one story from bare to deployed, told once, and clones of the host it ends with."""

import contextlib
import fcntl
import json
import re
import subprocess
import time
import uuid
from types import SimpleNamespace

import pytest

from tests.host import images
from tests.host.cache import step
from tests.host.lan import Lan, claim
from tests.host.machine import Host, HostError
from tests.host.registry import Registry, stored, use_registry

# Every printable ASCII character, in an order of its own for each password.
PRINTABLE = "".join(map(chr, range(32, 127)))
PASSWORDS = {
    "postgres": PRINTABLE,
    "valkey": PRINTABLE[::-1],
    "admin": PRINTABLE[40:] + PRINTABLE[:40],
}
PILLAR = {
    "timezone": "Europe/Paris",
    "postgres": {"password": PASSWORDS["postgres"]},
    "valkey": {"password": PASSWORDS["valkey"], "admin_password": PASSWORDS["admin"]},
}
LEARNING = "ghcr.io/immich-app/immich-machine-learning:v3.3.1"
# What a host with a graphics card of Intel's has, as far as the formula sees, and an image for it.
GRAPHICS_CARD = f"""
groupadd --system --force render && groupadd --system --force video
mkdir -p /dev/dri && cd /dev/dri && mknod -m 660 renderD128 c 1 5 && mknod -m 660 card0 c 1 5
chgrp render renderD128 && chgrp video card0
podman tag {LEARNING} {LEARNING}-openvino
"""


# What no machine without the outside can show. It is not collected, and listed at the end of every run.
NOT_HERE = (
    "bin/demo --images real: wants Immich's published images, from ghcr.io",
    "bootstrap of a onedir Salt: its packages come from a server of their own, neither Debian's nor PyPI",
    "VectorChord itself: it is in no Debian release; a play extension of its name takes its place in tests/functional",
    "Ubuntu and the RPM family: rendered with their grains (tests/functional/test_other_systems.py), nothing applied",
    "limits by cgroups on Debian 12, where this machine lets no container have a cgroup",
    "limits of memory and processes at work: without cgroup controllers, what Podman was told is looked at",
    "Ansible in the benchmarks: minutes for what no user runs; it takes part when figures are made",
    "SELinux that enforces, a CPU too old, a database on a network share: by what the kernel shows, in tests/unit",
    "an update from the former formula, in a clone without its commit: tests/scenarios/test_bootstrap.py",
)

# The files that take longest, so that all workers end at the same time. First among them one that waits for the first
# run, one that waits for the layers of Debian 12, and one that waits for neither, so that no worker is idle.
FIRST = (
    "test_doctor.py",
    "test_bookworm.py",
    "test_standin.py",
    "test_restore.py",
    "test_update.py",
    "test_documents.py",
    "test_changes.py",
    "test_proxy.py",
    "test_master.py",
    "test_library_backup.py",
    "test_metrics.py",
    "test_storage.py",
    "test_clean.py",
    "test_bootstrap.py",
    "test_passwords.py",
    "test_backup.py",
    "test_attacker.py",
    "test_accounts.py",
    "test_identity.py",
    "test_settings.py",
    "test_hardware.py",
    "test_service.py",
)


# Of a file: one of its tests has failed, and may have left a shared host in any state.
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        item.parent.stash[FAILED] = True
    return report


def pytest_collection_modifyitems(items):
    """Long files first."""
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(FIRST)))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("not run here")
    for line in NOT_HERE:
        terminalreporter.write_line(line)


def pillar_with(**changes):
    """The scenarios' pillar with changes, merged key by key."""
    return merged(PILLAR, changes)


def merged(below, above):
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}


def changed(states):
    """Names of the states that changed something or would, with what."""
    return {state["id"]: state["changes"] for state in states if state["changes"]}


@pytest.fixture(scope="session")
def first_run(request):
    """The story of the first run, on a host that has only systemd, Python and Salt.

    ``plan`` is what `test=True` said before, ``states`` the first apply, which took ``seconds``, ``again`` the second,
    ``plan_after`` another `test=True`. ``errors`` is what Salt wrote to standard error in the first two. ``layers`` and
    ``containers`` are the host it left, powered off. Told once, also to parallel workers.
    """
    run = getattr(request.config, "workerinput", {}).get("testrunuid") or uuid.uuid4().hex
    folder, lock = claim(f"deployed-{run}", fcntl.LOCK_SH)
    with lock:
        with open(folder / "telling", "w", encoding="ascii") as telling:
            fcntl.flock(telling, fcntl.LOCK_EX)
            if not (folder / "story.json").exists():
                with step("first run, from bare to verified"):
                    (folder / "story.json").write_text(json.dumps(tell(folder)), encoding="utf8")
        story = json.loads((folder / "story.json").read_text(encoding="utf8"))
        yield SimpleNamespace(**story, layers=[folder / "upper", *images.bare()], containers=folder / "containers")


def tell(folder):
    """Live through the first run and leave its host in ``folder``."""
    with Lan() as lan:
        Registry(lan, stored())
        with Host("host", lan=lan, layers=images.bare(), keep=folder) as host:
            use_registry(host)
            host.pillar(PILLAR)
            # As typed by a person: other calls are told to show errors alone.
            host.log_level = "warning"
            story = {"plan": host.apply(test=True), "errors": host.errors}
            began = time.monotonic()
            story |= {"states": host.apply(), "seconds": time.monotonic() - began}
            story["errors"] += host.errors
            host.log_level = "error"
            story |= {"again": host.apply(), "plan_after": host.apply(test=True)}
            host.power_off()
    return story


@contextlib.contextmanager
def deployed(first_run, **options):
    """A clone of the deployed host on a LAN with the registry (``host.lan.registry``), with Immich serving.

    ``options`` are more arguments of ``Host``.
    """
    with Lan() as lan:
        lan.registry = Registry(lan, stored())
        with Host("host", lan=lan, layers=first_run.layers, containers=first_run.containers, **options) as host:
            host.wait_for("systemctl is-active immich", 300)
            yield host


@pytest.fixture
def own_host(first_run):
    """A deployed host for one test, which may leave it in any state."""
    with deployed(first_run) as host:
        yield host


@pytest.fixture(scope="module")
def deployed_host(first_run):
    with deployed(first_run) as host:
        yield host


AS_IT_IS = """
stat --format %y /srv/pillar/immich.sls
systemctl is-active --quiet immich && curl -sf http://127.0.0.1:2283/api/server/ping
"""


@pytest.fixture(scope="module")
def given():
    """How each shared host of this file was when its last test got it."""
    return {}


@pytest.fixture
def host(deployed_host, given):
    """A deployed host that the tests of one file share. Each finds it as the scenarios' pillar describes it.

    It is applied anew for the next one after a test that wrote a pillar or left an Immich that does not serve.
    """
    if given.get(deployed_host) not in (None, deployed_host.out(AS_IT_IS, check=False)):
        deployed_host.pillar(PILLAR)
        deployed_host.apply()
    given[deployed_host] = deployed_host.out(AS_IT_IS, check=False)
    return deployed_host


@pytest.fixture
def lan():
    """A LAN of its own for one test, with the registry of the stand-in images: ``lan.registry``."""
    with Lan() as lan:
        lan.registry = Registry(lan, stored())
        yield lan


@pytest.fixture
def ready_host(lan):
    """A host with all packages and no deployment."""
    with Host("host", lan=lan) as host:
        use_registry(host)
        host.pillar(PILLAR)
        yield host


def on_terminal(host, command, timeout=600, check=True):
    """What a person sees who types a command at a terminal of the host, on standard error too."""
    host.write("/run/test/typed", command)
    script = "script --quiet --return --command 'sh /run/test/typed' /dev/null </dev/null"
    done = subprocess.run(host.command(script), capture_output=True, check=False, timeout=timeout)
    text = done.stdout.decode().replace("\r\n", "\n").strip()  # not read as text: Python would lose carriage returns
    if check and done.returncode:
        raise HostError(f"{host.name}: {command}: exit {done.returncode}\n{text[-6000:]}")
    return text


def plain(text):
    """What is left on a terminal of a text: no colours, and of a line that was written over only the last."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", "\n".join(lines))


def untimed(text):
    """The lines of a text of bin/deploy but those of steps that took seconds, of which a slow machine has more."""
    return [line for line in text.splitlines() if not re.match(r" *\d+ s  ", line)]


def get(host, path, port=2283):
    """What the server answers on the host, parsed."""
    return json.loads(host.out(f"curl -sf http://127.0.0.1:{port}{path} || curl -s http://127.0.0.1:{port}{path}"))


def post(host, path, body=None):
    """What the server answers on the host to a POST, parsed."""
    data = json.dumps(body or {}).replace("'", "'\\''")
    return json.loads(host.out(f"curl -s -H 'Content-Type: application/json' -d '{data}' http://127.0.0.1:2283{path}"))


def found_by(host, command, meant):
    """All that a command prints, which is run again while it has not printed what it is ``meant`` to find.

    Whoever asks waits for seconds only, and a busy machine may take longer.
    """
    found = set()
    for _ in range(20):
        found |= set(host.out(command).split())
        if found >= set(meant):
            break
    return found


def recreated(host, least=1):
    """How often the server's container was recreated so far, for whatever reason, once the journal has ``least``."""
    count = "journalctl -u immich -o cat | grep -c 'immich-server is (re)created'"
    return int(host.wait_for(f"found=$({count}); echo $found; test $found -ge {least}"))


def foreign_connections(host):
    """Who is connected to Valkey and PostgreSQL, but for Immich and whoever asks here."""
    host.write("/run/test/default", PASSWORDS["admin"], mode="0600")
    secret = 'REDISCLI_AUTH="$(cat /run/test/default; printf x)"; export REDISCLI_AUTH="${REDISCLI_AUTH%x}"'
    # Debian 12 has Redis.
    cli = "$(command -v valkey-cli || command -v redis-cli)"
    clients = host.out(f"{secret}; {cli} --user default CLIENT LIST").splitlines()
    assert any(" user=immich " in client for client in clients), clients
    asks = "datname || ' ' || usename || ' ' || application_name"
    others = "backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename <> 'immich'"
    sessions = host.out(
        f"""runuser -u postgres -- psql -qAtX -c "SELECT {asks} FROM pg_stat_activity WHERE {others}" """
    )
    mine = (" user=immich ", " cmd=client|list ")
    return [client for client in clients if not any(word in client for word in mine)] + sessions.splitlines()
