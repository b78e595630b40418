"""A real master with a minion: `salt '*' state.apply immich`."""

import json

from tests.scenarios.conftest import changed, get

MASTER = """\
interface: 127.0.0.1
auto_accept: true
file_roots: {base: [/srv/formula]}
pillar_roots: {base: [/srv/pillar]}
"""


def apply(host, *arguments):
    done = host.run(
        f"/opt/salt/bin/salt --out=json --static -t 300 '*' state.apply immich {' '.join(arguments)}", timeout=400
    )
    answer = json.loads(done.stdout)["minion"]
    assert isinstance(answer, dict), answer
    states = [{**state, "id": tag.split("_|-")[1]} for tag, state in answer.items()]
    assert not [state for state in states if state["result"] is False], answer
    return states


def test_first_apply_and_the_next_through_a_master(ready_host):
    host = ready_host
    host.write("/etc/salt/master", MASTER)
    host.write("/etc/salt/minion", "master: 127.0.0.1\nid: minion\n")
    for daemon in ("salt-master", "salt-minion"):
        host.run(f"systemd-run --quiet --unit={daemon} -p PrivateTmp=no /opt/salt/bin/{daemon}")
    host.wait_for("/opt/salt/bin/salt --out=json --static -t 5 '*' test.ping | grep -q true", 90)
    assert "Immich is running" in changed(apply(host))
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert changed(apply(host)) == {}
    assert changed(apply(host, "test=True")) == {}
