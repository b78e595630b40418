"""bin/deploy on the machine it runs on, with and without a Salt of its own."""

import pytest

from tests.host import images
from tests.host.machine import Host
from tests.host.registry import use_registry
from tests.scenarios.conftest import get

PILLAR = "/etc/immich-formula/pillar/immich.sls"


@pytest.fixture
def bare_host(lan):
    with Host("host", lan=lan, layers=images.bare()) as host:
        use_registry(host)
        yield host


@pytest.mark.long
def test_deploy_with_a_salt_of_its_own(bare_host):
    host = bare_host
    host.run("rm /usr/local/bin/salt-call")
    planned = host.run("/srv/formula/bin/deploy --plan", timeout=600)
    assert "would be" in planned.stdout
    assert host.run("command -v podman", check=False).returncode != 0
    declined = host.run("echo n | /srv/formula/bin/deploy", timeout=600)
    assert "Nothing was changed" in declined.stdout
    pillar = host.read(PILLAR)
    host.run("/srv/formula/bin/deploy --yes", timeout=600)
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert host.read(PILLAR) == pillar
    assert host.out(f"stat -c '%a %U' {PILLAR} $(dirname {PILLAR})").splitlines() == ["600 root", "700 root"]
    again = host.run("/srv/formula/bin/deploy --yes", timeout=600)
    assert "changed=" not in again.stdout
    assert host.read(PILLAR) == pillar


@pytest.mark.long
def test_deploy_uses_the_salt_that_is_there(bare_host):
    bare_host.run("/srv/formula/bin/deploy --yes", timeout=600)
    assert get(bare_host, "/api/server/ping") == {"res": "pong"}
    assert bare_host.run("test -e /opt/immich-formula", check=False).returncode != 0
