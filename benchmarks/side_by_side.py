"""Salt and Ansible on disposable hosts, timed in turns: what the benchmarks share."""

import contextlib
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

from tests.host import images, tools
from tests.host.machine import Host, HostError

PLAYBOOKS = "/srv/formula/benchmarks/playbooks"
METER = "/srv/formula/benchmarks/meter.py"
RUN_SECONDS = 3600


def say(text):
    """Show one line of progress on standard error."""
    print(f"[benchmark] {text}", file=sys.stderr, flush=True)


def require_hosts():
    """Install what booting hosts takes; end where none can be booted."""
    why_not = tools.obstacle()
    if why_not:
        sys.exit(f"no test host can be booted here: {why_not}")
    tools.install()


def add_without_ansible(parser):
    """Let a command line leave Ansible out, whose layer takes minutes to build and whose runs take most of the time."""
    parser.add_argument("--without-ansible", dest="ansible", action="store_false", help="leave Ansible out")


def layers(ansible):
    """Lower layers of the hosts."""
    return images.with_ansible() if ansible else images.ready()


@contextlib.contextmanager
def host(name, script, ansible):
    """A disposable host, with Ansible or not, the formula's modules in place, on which a shell script has run."""
    require_hosts()
    say(f"booting the host {name}")
    with Host(name, layers=layers(ansible)) as booted:
        booted.run(script)
        booted.salt("saltutil.sync_all")
        yield booted


def start_of_salt(on):
    """What salt-call takes to do nothing: see meter.py."""
    return metered(on, "salt-call --local test.ping")[0]


def start_of_ansible(on):
    """What ansible-playbook takes to do nothing: see meter.py."""
    return metered(on, f"cd {PLAYBOOKS} && ansible-playbook nothing.yml")[0]


def salt(on, sls, **pillar):
    """Apply an SLS as a user would; return what it took (see meter.py) and how many states changed something."""
    command = f"salt-call --local --retcode-passthrough state.apply {sls} pillar='{json.dumps(pillar)}'"
    spent, output = metered(on, command)
    summary = re.search(r"^Succeeded: +(\d+)(?: \(changed=(\d+)\))?", output, re.MULTILINE)
    if not summary:
        raise HostError(f"{command}: no summary\n{output[-3000:]}")
    return spent, int(summary[2] or 0)


def ansible(on, playbook, **variables):
    """Run a playbook as a user would; return what it took (see meter.py) and how many tasks changed something."""
    spent, output = metered(on, f"cd {PLAYBOOKS} && ansible-playbook {playbook}.yml -e '{json.dumps(variables)}'")
    return spent, int(re.search(r"changed=(\d+)", output)[1])


def metered(on, command):
    """Run a shell command on a host; return what it took (see meter.py) and what it printed."""
    done = on.run(f"python3 {METER} {shlex.quote(command)}", timeout=RUN_SECONDS)
    return json.loads(done.stderr.splitlines()[-1]), done.stdout


def surroundings(on, with_ansible):
    """What the figures depend on: this machine, how busy it is, and versions."""
    memory = re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024**2),
        "load": round(os.getloadavg()[1], 1),
        "salt": on.out("salt-call --version").split()[1],
        "ansible_core": re.search(r"core ([\d.]+)", on.out("ansible-playbook --version"))[1] if with_ansible else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def circumstances(figures):
    """What the figures depend on, in words."""
    rival = f", ansible-core {figures['ansible_core']}" if figures["ansible_core"] else ""
    return (
        f"{figures['date']}, {figures['cores']} cores, {figures['memory_gib']} GiB, load {figures['load']}, "
        f"Salt {figures['salt']}{rival}"
    )


def table(header, rows, texts=(0,)):
    """Rows under a header as a Markdown table: columns numbered in ``texts`` to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    rule = ["-" * width if column in texts else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines = [_aligned(row, widths, texts) for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _aligned(row, widths, texts):
    return [
        cell.ljust(width) if column in texts else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths))
    ]
