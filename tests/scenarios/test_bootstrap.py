"""How the modules and their libraries get there, whichever Salt it is, and pillars that arrive encrypted."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tests.host import images
from tests.host.machine import Host
from tests.scenarios.conftest import PASSWORDS, PILLAR, changed, get, merged, pillar_with, post

REPO = Path(__file__).resolve().parents[2]
# The formula as it was before its decisions were packages, and before the checks that come before any change were a
# component: its programs import other modules from the library that the new formula replaces under them.
FORMER = "4a6af03d5803749bcd3daac2144059c3fb51d050"
GIT = ["git", "-c", f"safe.directory={REPO}", "-C", REPO]
KEY = """
%no-protection
Key-Type: eddsa
Key-Curve: ed25519
Subkey-Type: ecdh
Subkey-Curve: cv25519
Name-Real: throwaway
Expire-Date: 0
"""


@pytest.fixture
def distribution_host(lan):
    """A host whose Salt runs on the distribution's own Python, as a distribution's package does."""
    with Host("host", lan=lan, layers=images.bare()) as host:
        host.run(
            "/opt/salt/bin/pip -q --python /usr/bin/python3 install --break-system-packages salt pip && "
            "ln -sf /usr/local/bin/salt-call /usr/bin/salt-call && mv /opt/salt /opt/hidden",
            timeout=300,
        )
        host.pillar(PILLAR)
        yield host


@pytest.mark.long
def test_libraries_of_a_distributions_salt_are_packages(distribution_host):
    host = distribution_host
    assert host.salt("grains.get", "pythonexecutable").startswith("/usr/bin/")
    planned = host.apply("immich.bootstrap", test=True)
    assert "apt-get install python3-redis" in "\n".join(state["comment"] for state in planned)
    done = changed(host.apply("immich.bootstrap"))
    assert "python3-redis" in done["Salt's Python has the libraries of the formula's modules"]
    assert [state["id"] for state in host.apply("immich.bootstrap")] == ["The pillar is valid"]


@pytest.fixture
def newer(host):
    """A function that puts another version of one of the formula's files before it on the file server."""

    def write(path, old, new):
        text = (REPO / path).read_text(encoding="utf8")
        assert text.count(old) == 1, path
        host.write(f"/srv/salt/{path}", text.replace(old, new))

    yield write
    host.run("rm -rf /srv/salt/_modules /srv/salt/_states /srv/salt/_utils")
    host.salt("saltutil.sync_all")


def test_an_updated_formula_syncs_its_modules_in_the_same_run(host, newer):
    newer("_modules/immich_app.py", "ML_PATIENCE = 60", "ML_PATIENCE = 60  # a newer version")
    assert "saltutil.sync_all" in "\n".join(state["comment"] for state in host.apply(test=True))
    assert list(changed(host.apply())) == ["The formula's modules are synced"]
    assert changed(host.apply()) == {}


@pytest.mark.parametrize(
    ("path", "old", "new", "synced"),
    (
        ("_states/immich.py", '"comment": "The pillar is valid"', '"comment": "of the newer file"', "states"),
        (
            "_utils/immich_core/settings/checks.py",
            '    valkey, passwords = settings["valkey"], {}\n',
            '    valkey, passwords = settings["valkey"], {}\n    yield ("version",), "of the newer file"\n',
            "packages",
        ),
    ),
)
def test_a_run_that_syncs_states_or_packages_alone_goes_by_them(host, newer, path, old, new, synced):
    """What it has imported before is of the older file. A state says so in its comment, a check of the pillar warns."""
    newer(path, old, new)
    states = host.apply("immich.identity")
    assert list(changed(states)) == [f"The formula's {synced} are synced"]
    assert "of the newer file" in json.dumps([(state["comment"], state.get("warnings")) for state in states])


def is_here(commit):
    """Whether a commit is in this clone, which may be a shallow one."""
    return subprocess.run([*GIT, "cat-file", "-e", commit], capture_output=True).returncode == 0


@pytest.mark.long
@pytest.mark.only(is_here(FORMER))
def test_a_newer_formula_and_a_newer_immich_come_in_one_run(ready_host):
    """The former formula's program backs up before the update, and its service is stopped, with the new library."""
    host, configured = ready_host, "/etc/salt/minion.d/former.conf"
    parts = ["immich", "_modules", "_output", "_states", "_utils"]
    former = subprocess.run([*GIT, "archive", FORMER, *parts], capture_output=True, check=True).stdout
    host.run("mkdir /srv/former && base64 -d | tar -x -C /srv/former", stdin=base64.b64encode(former).decode())
    host.write(configured, "file_roots: {base: [/srv/former]}\n")
    host.apply()
    assert host.run("test -e /usr/local/lib/immich-formula/host_core", check=False).returncode
    post(host, "/standin/assets")

    host.run(f"rm {configured}")
    host.pillar(pillar_with(version="v3.4.0"))
    done = changed(host.apply())
    assert done["The library of the host's programs is present"]
    assert done["Immich's update is prepared"]["backup"]
    assert get(host, "/api/server/version")["minor"] == 4
    assert len(host.salt("immich.backups")) == 1
    assert changed(host.apply()) == {}
    host.apply("immich.clean")
    assert host.run("test -e /usr/local/lib/immich-formula", check=False).returncode


@pytest.mark.long
def test_a_gpg_encrypted_pillar_is_the_same_pillar(host):
    """The host is deployed from plain pillar, so an apply that changes nothing has decrypted every character."""
    home = "/etc/salt/gpgkeys"
    host.run(f"apt-get -qq install --no-install-recommends gnupg >/dev/null; install -d -m 700 {home}")
    host.run(f"gpg --homedir {home} --batch --generate-key", stdin=KEY)

    def encrypted(text):
        return host.run(f"gpg --homedir {home} --trust-model always -ear throwaway", stdin=text).stdout

    secrets = {
        "postgres": {"password": encrypted(PASSWORDS["postgres"])},
        "valkey": {"password": encrypted(PASSWORDS["valkey"]), "admin_password": encrypted(PASSWORDS["admin"])},
    }
    host.write("/srv/pillar/immich.sls", "#!json|gpg\n" + json.dumps({"immich": merged(PILLAR, secrets)}), mode="0600")
    assert PASSWORDS["valkey"] not in host.read("/srv/pillar/immich.sls")
    assert changed(host.apply()) == {}


def test_modules_say_what_they_lack(lan):
    """One sentence each, also of the states, on a host whose Salt has none of the libraries."""
    lacking = {
        "valkey_acl.whoami": "The Python library redis is missing.",
        "pgsql_server.version": "pgsql_server needs psycopg2 in Salt's Python: install psycopg2-binary there with pip.",
    }
    reasons = {
        "valkey_acl": "The execution module valkey_acl is not available: it needs the Python library redis.",
        "pgsql_role": "pgsql_role needs the execution module pgsql_role: is psycopg2 in Salt's Python?",
        "pgsql_database": "pgsql_database needs the execution module pgsql_database: is psycopg2 in Salt's Python?",
        "pgsql_extension": "pgsql_extension needs the execution module pgsql_extension: is psycopg2 in Salt's Python?",
    }
    with Host("host", lan=lan, layers=images.bare()) as host:
        for call, sentence in lacking.items():
            said = host.run(f"salt-call --local --module-dirs=/srv/formula {call} 2>&1", check=False)
            assert said.returncode
            assert sentence in " ".join(said.stdout.split())
        host.write("/srv/salt/lacking.sls", "".join(f"x {state}: {{{state}.absent: []}}\n" for state in reasons))
        said = host.run("salt-call --local --module-dirs=/srv/formula state.apply lacking 2>&1", check=False).stdout
        assert [state for state, reason in reasons.items() if reason not in " ".join(said.split())] == []
        # Podman's networks need no library; without Podman there are none.
        assert host.salt("--module-dirs=/srv/formula", "podman_network.list") == {}
