"""
Measure the main job, Immich deployed on one host and kept so, beside Ansible and Salt's own states.

Each round boots a fresh host for each tool, all from one that has the packages and the images, and does three things,
the tools in turns: the first apply, one in which nothing is to be changed, and one after a setting of Immich changed. A
run that changes something where it should not, or after which Immich does not serve, ends the benchmark. Medians count.

Of the first apply, and of that after a change, the start of the containers is taken off: for as long as systemd ran the
unit's start or reload, which is the same program for every tool.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import time

from benchmarks import side_by_side
from benchmarks.side_by_side import say
from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry

# The tools, and what each is called. Their passwords are those of playbooks/run/vars.yml.
TOOLS = {"formula": "this formula", "ansible": "Ansible", "core": "Salt's core states"}
PILLAR = {
    "timezone": "Europe/Paris",
    "postgres": {"password": "of the database"},
    "valkey": {"password": "of the user immich", "admin_password": "of the administrator"},
}
RUNS = {"converged": "converged", "changed": "one setting changed", "first": "first apply"}
MARKS = {
    "converged_vs_floor": ("at most", 2.2),
    "converged_vs_ansible": ("at least", 8),
    "first_vs_ansible": ("at least", 4),
    "memory_vs_floor": ("at most", 1.3),
}

# The password spares Ansible sudo. Connections are noted for the counts; all tools bear the cost of that.
PREPARE = """
for part in server machine-learning; do podman pull -q ghcr.io/immich-app/immich-$part:v3.3.1; done
runuser -u postgres -- psql -qc "ALTER ROLE postgres PASSWORD 'Benchmark'" -c "ALTER SYSTEM SET log_connections = on" \
    -c "SELECT pg_reload_conf()"
"""
SERVES = """
curl -sf http://127.0.0.1:2283/api/server/ping | grep -q pong &&
    curl -sf -X POST http://127.0.0.1:2283/standin/jobs | grep -q '"denied":\\[\\]' &&
    curl -sf http://127.0.0.1:2283/standin/ml
"""
# Of both servers: how many connections there were so far; of PostgreSQL's, those of its administrator.
CONNECTIONS = """
grep -c 'connection authorized: user=postgres' /var/log/postgresql/postgresql-17-main.log
REDISCLI_AUTH='of the administrator' valkey-cli INFO stats | sed -n 's/total_connections_received:\\([0-9]*\\).*/\\1/p'
"""
UNIT_TIMES = """
systemctl show --property=InactiveExitTimestampMonotonic --property=ActiveEnterTimestampMonotonic immich.service
busctl --json=short get-property org.freedesktop.systemd1 /org/freedesktop/systemd1/unit/immich_2eservice \
    org.freedesktop.systemd1.Service ExecReload
"""


def main():
    parser = argparse.ArgumentParser(
        prog="benchmarks/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool does it all (default 5)")
    side_by_side.add_without_ansible(parser)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds, arguments.ansible)
    print(json.dumps(figures) if arguments.json else shown(figures))
    return 0


# -- measuring ---------------------------------------------------------------------------------------------


def measure(rounds, ansible):
    """All figures, by name; ``ansible`` tells whether it is among the tools."""
    side_by_side.require_hosts()
    tools = [tool for tool in TOOLS if ansible or tool != "ansible"]
    with Lan() as lan:
        Registry(lan, stored())
        layers = prepare(lan, side_by_side.layers(ansible))
        found = []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            found.append(one_round(lan, layers, number, tools))
    return {"rounds": rounds, **found[-1]["surroundings"], **figures_of(found, tools)}


def prepare(lan, layers):
    """The layers of a host that has packages and images, and Immich nowhere."""
    folder = lan.folder / "layer"
    folder.mkdir()
    say("a host with the images")
    with Host("prepared", lan=lan, layers=layers, keep=folder) as host:
        use_registry(host)
        host.run(PREPARE, timeout=600)
        host.power_off()
    return [folder / "upper", *layers]


@contextlib.contextmanager
def fresh(lan, layers, name):
    """A host of its own as `prepare` has left it."""
    with Host(name, lan=lan, layers=layers, containers=layers[0].parent / "containers") as host:
        yield host
    shutil.rmtree(host.folder)


def one_round(lan, layers, number, tools):
    """What each run took, by run and tool, what Salt takes to do nothing, and what all that depends on."""
    with contextlib.ExitStack() as stack:
        hosts = {tool: stack.enter_context(fresh(lan, layers, f"{tool}{number}")) for tool in tools}
        found = {"first": {}, "converged": {}, "changed": {}}
        for tool, host in hosts.items():
            say(f"first apply: {TOOLS[tool]}")
            found["first"][tool] = run(host, tool, "log")
            host.wait_for(SERVES, 300)
        say("converged, in turns")
        found["floor"] = side_by_side.start_of_salt(hosts["formula"])
        for tool, host in hosts.items():
            found["converged"][tool] = run(host, tool, "log", changes=False)
        say("one setting changed, in turns")
        for tool, host in hosts.items():
            found["changed"][tool] = run(host, tool, "debug")
            host.wait_for(SERVES, 300)
        found["surroundings"] = side_by_side.surroundings(hosts["formula"], "ansible" in tools)
    return found


def run(host, tool, log_level, changes=True):
    """What one run took, the start of the containers and the connections that it opened among it."""
    before, began = connections(host), time.monotonic()
    if tool == "ansible":
        spent, changed = side_by_side.ansible(host, "run/immich", log_level=log_level)
    elif tool == "core":
        spent, changed = side_by_side.salt(host, "benchmarks.states.run.core", log_level=log_level)
    else:
        host.pillar({**PILLAR, "server": {"environment": {"IMMICH_LOG_LEVEL": log_level}}})
        began = time.monotonic()
        spent, changed = side_by_side.salt(host, "immich")
    if bool(changed) is not changes:
        raise RuntimeError(f"{TOOLS[tool]}: changed {changed}, where {'some' if changes else 'none'} should")
    spent["containers_seconds"] = containers_seconds(host, began)
    after = connections(host)
    # Valkey counts the question too.
    spent["connections"] = {
        "postgres": after["postgres"] - before["postgres"],
        "valkey": after["valkey"] - before["valkey"] - 1,
    }
    return spent


def connections(host):
    """Connections so far, by server. The first apply gives Valkey the password; until then nobody counts."""
    postgres, *valkey = host.out(CONNECTIONS, check=False).splitlines()
    return {"postgres": int(postgres), "valkey": int(valkey[0]) if valkey else 0}


def containers_seconds(host, since):
    """For how long systemd has run the start or the reload of Immich's unit since a moment of the monotonic clock."""
    *stamps, reloads = host.out(UNIT_TIMES).splitlines()
    start, active = (int(stamp.partition("=")[2]) / 1e6 for stamp in stamps)
    # Of a command of ExecReload: …, started (real, monotonic), ended (real, monotonic), …, in microseconds.
    spans = [(start, active), *((each[4] / 1e6, each[6] / 1e6) for each in json.loads(reloads)["data"])]
    return sum(end - begin for begin, end in spans if begin > since)


# -- figures -----------------------------------------------------------------------------------------------


def figures_of(rounds, tools):
    """Medians and their ratios, and what the last round counted."""
    floor = [each["floor"] for each in rounds]
    figures = {f"floor_{key}": _median(spent[key] for spent in floor) for key in ("seconds", "cpu_seconds", "peak_mib")}
    for what in RUNS:
        for tool in tools:
            spent = [each[what][tool] for each in rounds]
            own = _median(one["seconds"] - one["containers_seconds"] for one in spent)
            figures[f"{what}_{tool}_seconds"] = own
            figures[f"{what}_{tool}_cpu_seconds"] = _median(one["cpu_seconds"] for one in spent)
            figures[f"{what}_{tool}_containers_seconds"] = _median(one["containers_seconds"] for one in spent)
        for rival in tools[1:]:
            ratio = figures[f"{what}_{rival}_seconds"] / figures[f"{what}_formula_seconds"]
            figures[f"{what}_vs_{rival}"] = round(ratio, 2)
    peak = _median(each["converged"]["formula"]["peak_mib"] for each in rounds)
    figures["converged_formula_peak_mib"] = peak
    for name, key in (("converged", "seconds"), ("converged_cpu", "cpu_seconds")):
        figures[f"{name}_vs_floor"] = round(figures[f"converged_formula_{key}"] / figures[f"floor_{key}"], 2)
    figures["memory_vs_floor"] = round(peak / figures["floor_peak_mib"], 2)
    for tool in tools:
        last = rounds[-1]["converged"][tool]
        figures[f"converged_{tool}_processes"] = last["processes"]
        figures[f"converged_{tool}_connections"] = last["connections"]
    return figures


def _median(values):
    return round(statistics.median(values), 3)


def shown(figures):
    """The tools side by side, the marks, and what a converged run starts and opens."""
    tools = {tool: title for tool, title in TOOLS.items() if f"first_{tool}_seconds" in figures}
    rivals = list(tools)[1:]
    rows = []
    for what, title in RUNS.items():
        seconds = [f"{figures[f'{what}_{tool}_seconds']:.2f}" for tool in tools]
        ratios = [f"{figures[f'{what}_vs_{rival}']:.1f}" for rival in rivals]
        rows.append([title, *seconds, *ratios])
    # What else the machine does is in the seconds of the clock, and hardly in these.
    cpu = {tool: figures[f"converged_{tool}_cpu_seconds"] for tool in tools}
    ratios = [f"{cpu[rival] / cpu['formula']:.1f}" for rival in rivals]
    rows.append(["converged, CPU", *(f"{seconds:.2f}" for seconds in cpu.values()), *ratios])
    header = ["run", *(f"{title}, s" for title in tools.values()), *(f"{rival} / formula" for rival in rivals)]
    counts = []
    for tool, title in tools.items():
        opened, started = figures[f"converged_{tool}_connections"], figures[f"converged_{tool}_processes"]
        most = ", ".join(f"{count} {name}" for name, count in list(started.items())[:5])
        counts.append([title, str(sum(started.values())), most, str(opened["postgres"]), str(opened["valkey"])])
    tables = (
        side_by_side.table(header, rows),
        side_by_side.table(
            ["mark", "", "measured", ""], [_mark(name, figures) for name in MARKS if name in figures], (0, 1, 3)
        ),
        side_by_side.table(["a converged run of", "processes", "most of them", "PostgreSQL", "Valkey"], counts, (0, 2)),
    )
    return "\n\n".join([*tables, _circumstances(figures)])


def _mark(name, figures):
    word, bound = MARKS[name]
    met = figures[name] <= bound if word == "at most" else figures[name] >= bound
    return [name, f"{word} {bound}", f"{figures[name]:.2f}", "met" if met else "**missed**"]


def _circumstances(figures):
    starts = [
        f"{figures[f'first_{tool}_containers_seconds']:.1f} s" for tool in TOOLS if f"first_{tool}_seconds" in figures
    ]
    return (
        f"{side_by_side.circumstances(figures)}. Medians of {figures['rounds']} rounds. "
        f"`salt-call --local test.ping` took {figures['floor_seconds']:.2f} s, {figures['floor_cpu_seconds']:.2f} s of "
        f"CPU, {figures['floor_peak_mib']:.0f} MiB; a converged run of the formula "
        f"{figures['converged_formula_cpu_seconds']:.2f} s of CPU ({figures['converged_cpu_vs_floor']:.2f} times), "
        f"{figures['converged_formula_peak_mib']:.0f} MiB. The start of the containers, taken off above, took "
        f"{', '.join(starts)} in the first applies, in the order of the table."
    )


if __name__ == "__main__":
    sys.exit(main())
