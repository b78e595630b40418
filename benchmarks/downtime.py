"""For how long Immich does not answer while it goes from one version to the next, three ways, side by side.

Each round updates from v3.3.1 to v3.3.2 in each of the ways, on one disposable host, with the stand-in images from a
registry beside it. Between two updates the host is put back. The same program asks the server every 20 ms whether it
answers.

  restart    `podman restart immich-server`: no update, but what every update has to wait for
  formula    `state.apply immich` with the new version in the pillar
  compose    `podman compose pull && podman compose up -d`
  role       `podman compose pull && systemctl restart immich`, the Ansible role's way
"""

import argparse
import json
import statistics
import sys

from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry

OLD, NEW = "v3.3.1", "v3.3.2"
PROJECT = "/opt/podman/immich"
PILLAR = {
    "postgres": {"password": "of the database"},
    "valkey": {"password": "of the user immich", "admin_password": "of the administrator"},
}
MARK = 1.0  # seconds that an update may take beyond a mere restart of the server's container

# Asks until it is told to end and has had a good answer after that; prints the seconds from the last good answer before
# the first bad one to the first good one after the last bad one.
ASK = """
import http.client, json, os, signal, sys, threading, time
asked, ending, lock = [], threading.Event(), threading.Lock()
signal.signal(signal.SIGTERM, lambda *_: ending.set())
def ask():
    began, good = time.monotonic(), False
    connection = http.client.HTTPConnection("127.0.0.1", 2283, timeout=2)
    try:
        connection.request("GET", "/api/server/ping")
        good = json.loads(connection.getresponse().read()) == {"res": "pong"}
    except (OSError, ValueError, http.client.HTTPException):
        pass
    connection.close()
    with lock:
        asked.append((began, good))
print("asking", flush=True)
threads = []
while True:
    # Each in a thread of its own: one that hangs must not keep the next from being asked.
    threads.append(threading.Thread(target=ask)); threads[-1].start()
    time.sleep(0.02)
    if ending.is_set() and asked and max(asked)[1]:
        break
for thread in threads:
    thread.join()
asked.sort()
bad = [index for index, (_, good) in enumerate(asked) if not good]
print(round(asked[bad[-1] + 1][0] - asked[bad[0] - 1][0], 3) if bad else 0.0)
"""

WAYS = {
    "restart": "podman restart immich-server",
    "formula": "salt-call --local --out=json --log-level=error state.apply immich >/tmp/applied",
    "compose": f"cd {PROJECT} && podman compose pull && podman compose up -d",
    "role": f"cd {PROJECT} && podman compose pull && systemctl restart immich",
}


def main():
    parser = argparse.ArgumentParser(
        prog="benchmarks/update", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is taken (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    with Lan() as lan:
        Registry(lan, stored())
        with Host("host", lan=lan) as host:
            use_registry(host)
            result = summary(measured(host, arguments.rounds))
    print(json.dumps(result) if arguments.json else table(result))
    return 0 if result["mark_met"] else 1


def measured(host, rounds):
    """Downtimes in seconds by way, one of each per round, and what the formula's own report said."""
    host.write("/tmp/ask.py", ASK)
    found = {name: [] for name in (*WAYS, "reported")}
    for number in range(rounds):
        for name, command in WAYS.items():
            put_back(host)
            if name in ("compose", "role"):
                host.run(f"sed -i s/:{OLD}/:{NEW}/ {PROJECT}/docker-compose.yml")
            if name == "formula":
                host.pillar({**PILLAR, "version": NEW})
            found[name].append(downtime(host, command))
            if name == "formula":
                found["reported"].append(reported(host))
            print(f"round {number + 1} of {rounds}, {name}: {found[name][-1]} s", file=sys.stderr)
    return found


def put_back(host):
    """The old version serves, and nothing is left of the new one."""
    notes = f"DELETE FROM version_history WHERE version = '{NEW[1:]}'"
    if host.run(f"test -e {PROJECT}", check=False).returncode == 0:
        host.run("systemctl stop immich")
        host.run("runuser -u postgres -- psql -q immich", stdin=f"{notes};")
        host.run(
            f"podman images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep {NEW} | xargs -r podman rmi -f",
            check=False,
        )
        host.run(f"sed -i s/:{NEW}/:{OLD}/ {PROJECT}/docker-compose.yml")
    host.pillar({**PILLAR, "version": OLD})
    host.apply()
    host.wait_for("curl -sf http://127.0.0.1:2283/standin/ml", 120)


def downtime(host, command, timeout=600):
    """Seconds without an answer while a command runs, until the server answers after it."""
    script = f"python3 /tmp/ask.py >/tmp/asked & asker=$!; sleep 1; {{ {command}; }} >/tmp/said 2>&1 || exit 1; "
    # The command may return before the server is back.
    script += "sleep 5; kill $asker; wait $asker; tail -n 1 /tmp/asked"
    return float(host.out(script, timeout=timeout))


def reported(host):
    """What the formula says itself."""
    states = json.loads(host.read("/tmp/applied"))["local"]
    (running,) = [state for state in states.values() if state["__id__"] == "Immich is running"]
    return float(running["changes"]["downtime"]["new"].split()[0])


def summary(found):
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    return {
        "rounds": len(found["formula"]),
        "seconds": found,
        **{f"{name}_s": median for name, median in medians.items()},
        "formula_beyond_restart_s": round(medians["formula"] - medians["restart"], 2),
        "mark_s": MARK,
        "mark_met": medians["formula"] <= medians["restart"] + MARK,
        **{
            f"formula_vs_{name}": round(medians["formula"] / medians[name], 2)
            for name in ("restart", "compose", "role")
        },
    }


def table(result):
    lines = ["Seconds without an answer, median of {rounds} rounds (all):".format(**result)]
    for name in (*WAYS, "reported"):
        ratio = "" if name in ("formula", "reported") else f"  formula / {name} = {result[f'formula_vs_{name}']}"
        values = " ".join(f"{value:.2f}" for value in result["seconds"][name])
        lines.append(f"  {name:9} {result[f'{name}_s']:6.2f}  ({values}){ratio}")
    met = "met" if result["mark_met"] else "MISSED"
    lines.append(
        f"Mark: at most {MARK} s beyond the restart. Formula: {result['formula_beyond_restart_s']} s beyond it: {met}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
