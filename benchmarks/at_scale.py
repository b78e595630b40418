"""
Measure the modules with many of everything, beside Ansible and Salt's own states, on disposable hosts.

Each tool makes its own users, roles, databases and networks: first from nothing, then several rounds in which
nothing is to be changed. In a round the tools take turns, so that what else the machine does hits all of them. Of
the rounds the fastest counts: what else the machine does can only add to it. Tools that take long for each thing
are measured on a part and scaled up: their start, and as many times what one thing took beyond it.
"""

import argparse
import contextlib
import json
import sys

from benchmarks import side_by_side
from benchmarks.side_by_side import say

# A Valkey server for each way of managing users, so that none has another's users to look at.
PREPARE = """
for way in each:6401 managed:6404 cli:6402 list:6405 template:6403; do
    folder=/srv/valkey-${way%:*}
    mkdir -p $folder && touch $folder/users.acl
    systemd-run -q --unit=valkey-${way%:*} --property=Type=notify \
        valkey-server --supervised systemd --port ${way#*:} --dir $folder --aclfile $folder/users.acl --save ''
done
runuser -u postgres -- psql -qc "ALTER ROLE postgres PASSWORD 'Benchmark'"
"""

# The hosts, and which share of all things Salt makes on each: where the cost is linear, so are its runs on them.
HOSTS = {"tenth": 0.1, "half": 0.5, "full": 1}

# What is measured: the names of its figures, how many there are for each ACL user, and the ways to do it. A way is what
# it is called, whether it is an SLS or a playbook, its file, and whether it is measured on a part.
SUBJECTS = [
    {
        "key": "acl",
        "unit": "acl_user",
        "title": "ACL users",
        "share": 1,
        "salt": ("valkey_acl.present", "sls", "acl", False),
        "rivals": {
            "ansible": ("Ansible, valkey-cli for each", "playbook", "acl_each", True),
            "ansible_list": ("Ansible, one look at all", "playbook", "acl_list", True),
        },
    },
    {
        "key": "acl_managed",
        "unit": "acl_managed_user",
        "title": "ACL users in one",
        "share": 1,
        "salt": ("valkey_acl.managed", "sls", "acl_managed", False),
        "rivals": {"ansible": ("Ansible, template", "playbook", "acl_template", False)},
    },
    {
        "key": "role",
        "unit": "role",
        "title": "roles",
        "share": 1,
        "salt": ("pgsql_role.present", "sls", "roles", False),
        "rivals": {
            "ansible": ("Ansible, community.postgresql", "playbook", "roles", True),
            "core": ("Salt, postgres_user", "sls", "core_roles", True),
        },
    },
    {
        "key": "database",
        "unit": "database",
        "title": "databases, 5 extensions each",
        "share": 0.2,
        "salt": ("pgsql_database, pgsql_extension", "sls", "databases", False),
        "rivals": {
            "ansible": ("Ansible, community.postgresql", "playbook", "databases", True),
            "core": ("Salt, postgres_database, _extension", "sls", "core_databases", True),
        },
    },
    {
        "key": "network",
        "unit": "network",
        "title": "networks",
        "share": 0.1,
        "salt": ("podman_network.present", "sls", "networks", False),
        "rivals": {"ansible": ("Ansible, containers.podman", "playbook", "networks", True)},
    },
]


def main():
    parser = argparse.ArgumentParser(
        prog="benchmarks/scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--size", type=int, default=1000, help="ACL users and roles (default 1000, at most 2000)")
    parser.add_argument("--part", type=int, default=20, help="of these, how many for the slow tools (default 20)")
    parser.add_argument("--rounds", type=int, default=5, help="converged runs of each tool (default 5)")
    side_by_side.add_without_ansible(parser)
    arguments = parser.parse_args()
    if not 1 <= arguments.part <= arguments.size <= 2000:
        parser.error("1 <= part <= size <= 2000")
    subjects = SUBJECTS if arguments.ansible else [_without_ansible(subject) for subject in SUBJECTS]
    results, facts = measure(subjects, arguments)
    figures = {**facts, "size": arguments.size, "part": arguments.part, "rounds": arguments.rounds}
    for subject, result in zip(subjects, results):
        figures.update(figures_of(subject, result))
    print(json.dumps(figures) if arguments.json else shown(subjects, figures, results))
    return 0


def _without_ansible(subject):
    rivals = {name: way for name, way in subject["rivals"].items() if way[1] != "playbook"}
    return {**subject, "rivals": rivals}


# -- measuring ---------------------------------------------------------------------------------------------


def measure(subjects, arguments):
    """Results by subject, and what they depend on."""
    with contextlib.ExitStack() as stack:
        hosts = {
            share: stack.enter_context(side_by_side.host(name, PREPARE, arguments.ansible))
            for name, share in HOSTS.items()
        }
        results = [measure_subject(subject, hosts, arguments) for subject in subjects]
        return results, side_by_side.surroundings(hosts[1], arguments.ansible)


def measure_subject(subject, hosts, arguments):
    """Seconds of the first and of the converged runs, by tool, and Salt's with fewer things on hosts with fewer."""
    count = max(1, round(arguments.size * subject["share"]))
    part = max(1, round(arguments.part * subject["share"]))
    full = hosts[1]
    ways = {"salt": subject["salt"], **subject["rivals"]}
    tools = {name: (kind, file, part if partly else count) for name, (_, kind, file, partly) in ways.items()}
    fewer = {share: (*tools["salt"][:2], max(1, round(count * share))) for share in hosts if share != 1}
    say(f"{subject['title']}: {count}; first time")
    first = {name: timed(full, tool, changes=True) for name, tool in tools.items()}
    for share, tool in fewer.items():
        timed(hosts[share], tool, changes=True)
    converged, starts, sizes = {name: [] for name in tools}, {"sls": [], "playbook": []}, {share: [] for share in fewer}
    for number in range(arguments.rounds):
        say(f"{subject['title']}: converged, round {number + 1} of {arguments.rounds}")
        starts["sls"].append(side_by_side.start_of_salt(full)["seconds"])
        if arguments.ansible:
            starts["playbook"].append(side_by_side.start_of_ansible(full)["seconds"])
        for share, tool in fewer.items():
            sizes[share].append(timed(hosts[share], tool))
        for name, tool in tools.items():
            converged[name].append(timed(full, tool))
    return {
        "count": count,
        "start": {kind: min(seconds) for kind, seconds in starts.items() if seconds},
        "tools": tools,
        "first": first,
        "converged": {name: min(seconds) for name, seconds in converged.items()},
        "sizes": {**{fewer[share][2]: min(sizes[share]) for share in fewer}, count: min(converged["salt"])},
    }


def timed(host, tool, changes=False):
    """Seconds of one run, which must change something or nothing: anything else would be another measurement."""
    kind, file, size = tool
    if kind == "sls":
        spent, changed = side_by_side.salt(host, f"benchmarks.states.scale.{file}", size=size)
    else:
        spent, changed = side_by_side.ansible(host, f"scale/{file}", size=size)
    if bool(changed) is not changes:
        raise RuntimeError(f"{file} with {size}: changed {changed}, where {'some' if changes else 'none'} should")
    return spent["seconds"]


# -- figures -----------------------------------------------------------------------------------------------


def each_ms(result, name, stage):
    """Milliseconds that one thing takes beyond the start of the tool."""
    kind, _, measured = result["tools"][name]
    return (result[stage][name] - result["start"][kind]) / measured * 1000


def whole_seconds(result, name, stage):
    """Seconds of a run with all things; of a tool that was measured on a part, scaled up."""
    kind, _, measured = result["tools"][name]
    if measured == result["count"]:
        return result[stage][name]
    return result["start"][kind] + each_ms(result, name, stage) * result["count"] / 1000


def marginal_ms(result):
    """Milliseconds that one more thing takes, from each size to the next: the same where the cost is linear."""
    sizes = sorted(result["sizes"].items())
    pairs = zip(sizes, sizes[1:])
    return [round((more - less) / (larger - smaller) * 1000, 3) for (smaller, less), (larger, more) in pairs]


def figures_of(subject, result):
    """The figures of one subject by name."""
    key, unit = subject["key"], subject["unit"]
    figures = {f"{unit}_marginal_ms": marginal_ms(result)}
    for stage, infix in (("converged", ""), ("first", "first_")):
        figures[f"{unit}_{infix}ms"] = round(each_ms(result, "salt", stage), 3)
        for name in subject["rivals"]:
            ratio = whole_seconds(result, name, stage) / whole_seconds(result, "salt", stage)
            figures[f"{subject['key']}_{infix}vs_{name}"] = round(ratio, 2)
            figures[f"{unit}_{infix}{name}_ms"] = round(each_ms(result, name, stage), 3)
    figures[f"{key}_floor_ms"] = round(result["start"]["sls"] * 1000, 1)
    return figures


def shown(subjects, figures, results):
    """Two tables: the tools side by side, and what each thing takes."""
    ratios, costs = [], []
    for subject, result in zip(subjects, results):
        title = f"{result['count']} {subject['title']}"
        for stage, infix in (("converged", ""), ("first", "first_")):
            key = f"{subject['key']}_{infix}vs_"
            own = f"{whole_seconds(result, 'salt', stage):.1f}"
            for name, (rival, *_) in subject["rivals"].items():
                measured = result["tools"][name][2]
                scaled = f" (of {measured})" if measured != result["count"] else ""
                theirs = f"{whole_seconds(result, name, stage):.1f}{scaled}"
                ratio = f"{figures[key + name]:.1f}"
                ratios.append([title, stage, own, rival, theirs, ratio])
        unit = subject["unit"]
        milliseconds = [f"{figures[f'{unit}_{infix}ms']:.2f}" for infix in ("", "first_")]
        sizes = " ".join(f"{size}: {seconds:.2f}" for size, seconds in result["sizes"].items())
        costs.append([subject["salt"][0], *milliseconds, sizes, " ".join(f"{ms:.2f}" for ms in marginal_ms(result))])
    sides = side_by_side.table(["what", "run", "these states, s", "rival", "rival, s", "ratio"], ratios, (0, 1, 3))
    header = ["state", "converged, ms each", "first, ms each", "converged, s by number", "one more, ms"]
    return f"{sides}\n\n{side_by_side.table(header, costs)}\n\n{_circumstances(figures)}"


def _circumstances(figures):
    return (
        f"{side_by_side.circumstances(figures)}. The fastest of {figures['rounds']} converged "
        f"runs; `of N`: measured with N and scaled up. ms each: beyond `salt-call --local test.ping`, which takes "
        f"{min(value for key, value in figures.items() if key.endswith('_floor_ms')) / 1000:.2f} s."
    )


if __name__ == "__main__":
    sys.exit(main())
