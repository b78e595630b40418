"""A real master with a minion of Debian 12 and Salt 3006: the formula from git, the pillar from elsewhere, every day.

Everything that ``docs/howto/master.md`` shows is what is done here, in its order.
"""

import json
import re

import pytest

from tests.host import images
from tests.host.cache import REPO
from tests.host.git_server import URL, GitServer
from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry
from tests.scenarios.conftest import PILLAR, changed, foreign_connections, get, merged, post

pytestmark = pytest.mark.long

HOWTO = (REPO / "docs/howto/master.md").read_text(encoding="utf8")
REMOTE = "https://git.example.com/immich-formula.git"
RELEASE = re.search(r"- base: (\S+)", HOWTO)[1]
NEWER = "v99.0.0"
DUMP = re.compile(r"immich_\w+\.\d\.\d_\w+\.dump")
PROGRAMS = re.compile(r"^(salt|salt-run) ", re.M)


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", HOWTO, re.M | re.S)


def step(number):
    """The commands of the how-to's section with this number."""
    section = re.search(rf"^## {number}\. .*?(?=^## |\Z)", HOWTO, re.M | re.S)[0]
    commands = "".join(re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S))
    return [line.split("  #")[0].strip() for line in commands.splitlines() if line.strip()]


class Fleet:
    """A master, and an older minion, called ``photos``, with all packages and no deployment."""

    def __init__(self, lan, git):
        self.lan, self.git = lan, git
        self.master = Host("master", lan=lan, layers=images.with_gitfs())
        self.minion = Host("photos", lan=lan, suite="bookworm")
        use_registry(self.minion)
        self.master.write("/etc/systemd/system/salt-master.service", unit("salt-master"))
        self.master.write("/etc/salt/master", "auto_accept: true\n")
        self.master.write("/etc/salt/master.d/immich.conf", blocks("yaml")[0].replace(REMOTE, URL))
        self.master.write("/srv/pillar/top.sls", blocks("yaml")[1])
        self.pillar()
        self.minion.write("/etc/salt/minion", f"master: {self.master.address}\nid: photos\n")
        self.minion.run("rm -rf /etc/salt/pki; mount -t tmpfs none /srv/formula")  # nothing but what the master serves
        for command in step(1):
            if command.startswith("systemctl"):
                self.run(command)
                self.minion.write("/etc/systemd/system/salt-minion.service", unit("salt-minion"))
                self.minion.run("systemctl restart salt-minion")
            else:
                self.run(command)
        self.wait()

    def wait(self):
        """Wait until the minion answers the master."""
        self.master.wait_for("/opt/salt/bin/salt --out=json --static -t 5 photos test.ping | grep -q true", 600)

    def close(self):
        self.minion.close()
        self.master.close()

    def pin(self, reference):
        """Have the master serve another branch or tag of the formula."""
        config = "/etc/salt/master.d/immich.conf"
        self.master.run(f"sed -i 's/- base: .*/- base: {reference}/' {config}")
        self.run(step(5)[0])
        self.wait()

    def pillar(self, **changes):
        text = "#!json\n" + json.dumps({"immich": merged(PILLAR, changes)})
        self.master.write("/srv/pillar/immich.sls", text, mode="0600")

    def run(self, command, check=True):
        """A command of the how-to, typed on the master; with more patience, as this machine may be busy."""
        patient = re.sub("^salt ", "salt -t 600 ", command)
        return self.master.run(PROGRAMS.sub(r"/opt/salt/bin/\1 ", patient), check=check, timeout=900)

    def answer(self, command):
        """What the minion answers to such a command, as data."""
        done = self.run(f"{command.replace('salt ', 'salt --out=json --static ', 1)}", check=False)
        answer = json.loads(done.stdout or "{}")
        assert "photos" in answer, done.stdout + done.stderr
        return answer["photos"]

    def apply(self, test=False):
        answer = self.answer(step(3)[0 if test else 1])
        assert isinstance(answer, dict), answer
        states = [{**state, "id": tag.split("_|-")[1]} for tag, state in answer.items()]
        assert not [state for state in states if state["result"] is False], answer
        return states


def unit(program):
    return f"[Service]\nType=notify\nNotifyAccess=all\nExecStart=/opt/salt/bin/{program}\n"


@pytest.fixture(scope="module")
def fleet():
    with Lan() as lan, GitServer(lan, RELEASE) as git:
        Registry(lan, stored())
        fleet = Fleet(lan, git)
        yield fleet
        fleet.close()


def test_first_apply_from_git_and_the_next(fleet):
    assert fleet.minion.out("ls /srv/formula") == ""
    versions = [host.out("/opt/salt/bin/salt-call --version") for host in (fleet.master, fleet.minion)]
    assert [version.split()[1].split(".")[0] for version in versions] == ["3008", "3006"]
    plan = fleet.apply(test=True)
    (needs,) = [state for state in plan if state["id"] == "The rest of the plan needs the formula's modules"]
    assert "salt-call saltutil.sync_all" in needs["comment"]  # `--local` would look for the formula on the minion
    assert "Immich is running" in changed(fleet.apply())
    assert get(fleet.minion, "/api/server/ping") == {"res": "pong"}
    assert changed(fleet.apply()) == {}
    assert changed(fleet.apply(test=True)) == {}


def test_day_two_from_the_master(fleet):
    post(fleet.minion, "/standin/assets")
    doctor, backup, backups, drill, would, restore = step(4)
    table = fleet.run(doctor).stdout
    assert re.search(r"^photos:\n", table), table
    assert ", 0 failed" in table, table
    assert {row["result"] for row in fleet.answer(doctor)} <= {"ok", "warning"}
    name = fleet.answer(backup)["name"]
    assert [each["name"] for each in fleet.answer(backups)] == [name]
    assert fleet.answer(drill)["changed"] == {}
    post(fleet.minion, "/standin/assets")
    assert "stop immich.service" in fleet.answer(would.replace(DUMP.search(would)[0], name))["would"]
    assert get(fleet.minion, "/standin/state")["database"]["counts"]["assets"] == 2
    refused = fleet.answer(restore.replace(DUMP.search(restore)[0], name).replace("=photos", "=host"))
    assert "pass confirm=photos" in refused
    done = fleet.answer(restore.replace(DUMP.search(restore)[0], name))
    assert done["rows"] > 0, done
    assert get(fleet.minion, "/standin/state")["database"]["counts"]["assets"] == 1
    assert changed(fleet.apply()) == {}
    assert foreign_connections(fleet.minion) == []


def test_the_drill_on_a_timer_asks_the_master(fleet):
    """`salt-call` without `--local`: the pillar, and with it the password, is the master's."""
    fleet.pillar(backup={"restore_drill": "monthly"})
    assert "The restore drill is scheduled" in changed(fleet.apply())
    fleet.answer(step(4)[1])  # a backup
    fleet.minion.run("systemctl start immich-restore-drill", timeout=600)
    assert "can be restored" in fleet.minion.out("journalctl --sync; journalctl -u immich-restore-drill -o cat")
    fleet.pillar()
    fleet.apply()


def test_a_newer_formula_is_taken_up(fleet):
    """Not before the master's configuration names it: a newer branch, then a newer tag."""
    unit_file = "immich/app/files/immich.service.jinja"
    fleet.git.edit(unit_file, "Immich photo and video server", "Immich, newer")
    fleet.git.publish("a newer description", tag=NEWER)
    fleet.git.edit(unit_file, "Immich, newer", "Immich, newest")
    fleet.git.edit("_modules/immich_app.py", "ML_PATIENCE = 60", "ML_PATIENCE = 60  # newest")
    fleet.git.publish("a newest one, and a module")
    _, update, plan, apply, sync, again = step(5)
    fleet.run(update)
    assert changed(fleet.apply(test=True)) == {}, f"{RELEASE} is pinned"
    fleet.pin("main")
    fleet.run(update)
    partial = fleet.answer(plan)
    assert any("needs the formula's modules" in tag for tag in partial), partial
    fleet.run(sync)
    whole = fleet.answer(again)
    assert any("Immich's unit is present" in tag and state["result"] is None for tag, state in whole.items())
    fleet.run(apply)
    assert "Immich, newest" in fleet.minion.read("/etc/systemd/system/immich.service")
    fleet.pin(NEWER)
    fleet.run(update)
    fleet.apply()
    assert "Description=Immich, newer\n" in fleet.minion.read("/etc/systemd/system/immich.service")
    assert changed(fleet.apply()) == {}
    assert get(fleet.minion, "/api/server/ping") == {"res": "pong"}
