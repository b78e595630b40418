"""bin/deploy on the machine it runs on, as a person sees it: with and without a Salt of its own."""

import re

import pytest

from tests.host import images
from tests.host.machine import Host
from tests.host.registry import use_registry
from tests.scenarios.conftest import get, on_terminal, plain, untimed

HOME = "/etc/immich-formula"
PILLAR = f"{HOME}/pillar/immich.sls"
WRAPPER = "/usr/local/bin/salt-call"
DROP_IN = "/etc/salt/minion.d/immich-formula.conf"


# Types a command at a terminal, and Ctrl-C once dpkg is at work.
INTERRUPTED = """
import os, pty, signal, sys
child, terminal = pty.fork()
if not child:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a shell has put into the background
    os.execv(sys.argv[1], sys.argv[1:])
seen = typed = b""
while True:
    try:
        seen += os.read(terminal, 4096)
    except OSError:
        break
    if not typed and (b"unpacking" in seen or b"setting up" in seen):
        typed = b"\\x03"
        os.write(terminal, typed)
print(seen.decode())
print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def bare_host(lan):
    with Host("host", lan=lan, layers=images.bare()) as host:
        yield host


def typed(host, command, check=True):
    return plain(on_terminal(host, command, check=check, timeout=900))


def interrupt(host, deploy):
    host.write("/run/test/interrupted.py", INTERRUPTED)
    interrupted = plain(host.out(f"python3 /run/test/interrupted.py {deploy} --yes", timeout=600))
    assert "apt is installing packages: this stops when apt has finished" in interrupted
    assert "Stopped during: " in interrupted
    assert "type bin/deploy again" in interrupted
    assert interrupted.endswith("exit 130")
    assert host.out("command -v podman && dpkg --audit") == "/usr/bin/podman"
    host.wait_for("! pgrep -f [s]alt-call", 20)  # what it had started is gone soon, and does not go on


def type_as_in_the_documents(host):
    """With the clone gone."""
    host.run("rm -r /root/clone")
    applied = typed(host, "salt-call --local state.apply immich --state-output=changes")
    assert re.search(r"Failed: +0\b", applied)
    assert "changed=" not in applied
    assert re.search(r"\d+ ok, \d+ warning, 0 failed", typed(host, "salt-call immich.doctor"))
    assert "Nothing to do" in typed(host, "/opt/immich-formula/formula/bin/deploy")


def update_the_formula(host):
    before = host.out("readlink /opt/immich-formula/formula")
    host.run("cp -r /srv/formula /root/newer && echo '# newer' >>/root/newer/_modules/immich.py")
    assert "Nothing to do" in typed(host, "/root/newer/bin/deploy")
    now = host.out("readlink /opt/immich-formula/formula")
    assert now != before
    assert host.out("ls /opt/immich-formula/releases") == now.rpartition("/")[2]


@pytest.mark.long
def test_deploy_with_a_salt_of_its_own(bare_host):
    host = bare_host
    host.run(f"rm -r {WRAPPER} /etc/salt && cp -r /srv/formula /root/clone")
    deploy = "/root/clone/bin/deploy"
    assert "--plan" in host.out(f"{deploy} -h")

    offline = typed(host, f"{deploy} --yes", check=False)
    assert "ghcr.io does not answer" in offline
    assert "Nothing of the plan was done" in offline
    assert host.run("command -v podman", check=False).returncode != 0
    use_registry(host)

    planned = typed(host, f"{deploy} --plan")
    plan = planned[planned.index("The plan for host") :]
    assert len(plan.splitlines()) <= 30
    for said in ("postgresql-17", "valkey-server", "MB of images", f"http://{host.address}:2283", "/srv/immich/upload"):
        assert said in plan, plan
    assert not re.search(r"Mend|Fix what|\[WARNING|\[ERROR", planned)
    (in_full,) = re.findall(r"in full in (\S+)", plan)
    assert host.out(f"stat -c '%a %U' {in_full}") == "600 root"
    assert "immich_app.running" in host.read(in_full)
    declined = host.run(f"echo n | {deploy}", timeout=600).stdout
    assert "Nothing of the plan was done" in declined
    assert host.run(f"command -v podman || ls {WRAPPER}", check=False).returncode != 0
    pillar = host.read(PILLAR)
    assert host.out(f"stat -c '%a %U' {PILLAR} $(dirname {PILLAR})").splitlines() == ["600 root", "700 root"]

    interrupt(host, deploy)
    done = typed(host, f"{deploy} --yes")
    done = done[done.index("in full in") :]
    assert len(untimed(done)) <= 40
    assert f"http://{host.address}:2283" in done
    assert "127.0.0.1" not in done
    assert "salt-call immich.doctor" in done
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert host.read(PILLAR) == pillar

    seen = host.out("cat /var/log/immich-formula*")
    assert not [secret for secret in re.findall(r"password: (\S+)", pillar) if secret in seen]

    again = typed(host, deploy)
    assert "Nothing to do" in again
    assert "[y/N]" not in again
    assert host.read(PILLAR) == pillar

    type_as_in_the_documents(host)
    update_the_formula(host)


@pytest.mark.long
def test_deploy_uses_the_salt_that_is_there(ready_host):
    """With the packages too: how they come is seen above."""
    host = ready_host
    host.run("mkdir -p /etc/salt/pki/minion && touch /etc/salt/pki/minion/minion_master.pub")
    refused = typed(host, "/srv/formula/bin/deploy --yes", check=False)
    assert "docs/howto/master.md" in refused
    assert host.run(f"ls {HOME} /opt/immich-formula", check=False).stdout == ""
    # Without roots of its own, as a distribution leaves it.
    host.run("rm -r /etc/salt/pki; echo '#master: salt' >/etc/salt/minion")
    typed(host, "/srv/formula/bin/deploy --yes")
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert host.run("test -e /opt/immich-formula/salt", check=False).returncode != 0
    assert "formula" in host.read(DROP_IN)
    assert re.search(r"\d+ ok, \d+ warning, 0 failed", typed(host, "salt-call immich.doctor"))
