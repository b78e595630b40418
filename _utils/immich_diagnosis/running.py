"""
Groups of checks, side by side
==============================

Each group runs in a process of its own (``pgsql_core`` changes the user of the process to connect). Each check has the
same time, and more of it on a busy host: a service that hangs costs no more than that.
"""

import json
import os
import resource
import select
import signal
import time
import traceback

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core.command import CommandError
from immich_diagnosis import facts
from immich_diagnosis.check import FAILED, WARNING, NotCheckedError, table_row
from immich_diagnosis.parts import FORMULA
from immich_diagnosis.words import one_line, remedy_of

# What a check's process, and each that it starts, may fill with data, in bytes: what it is answered, others have
# written.
LARGEST_CHECK = 1024**3


def run_groups(groups, here, seconds):
    """Rows of all groups in their order, and what the checks left in ``here["told"]``; ``seconds`` are for each."""
    children = [{**_fork(group, here), "seconds": seconds * _times(group)} for group in groups]
    _read(children)
    rows, told = [], {}
    for group, child in zip(groups, children):
        _end(child)
        messages = [json.loads(line) for line in child["text"].decode().split("\n")[:-1]]
        for message in messages:
            told.update(message["told"])
        rows += _group_rows(group, [message["rows"] for message in messages], child["seconds"])
    return rows, told


def _times(group):
    return max(check.times for check in group)


def _group_rows(group, answers, seconds):
    """The answers of a group's checks; what did not answer in time, and what was behind it."""
    rows = [table_row(check.part, *found) for check, answer in zip(group, answers) for found in answer]
    silent = group[len(answers) :]
    if silent and not (answers and _stops(group[len(answers) - 1], answers[-1])):
        # The first of them took too long; a check behind it never had its turn.
        rows.append(table_row(silent[0].part, *_silence(group, seconds)))
        cause, silent = f"{silent[0].part} took longer than {seconds:.0f} s", silent[1:]
    elif silent:
        cause = f"needs {group[len(answers) - 1].part}"
    return rows + [table_row(check.part, WARNING, f"not checked: {cause}", "") for check in silent]


def _silence(group, seconds):
    """What a check says that did not end in time. On a busy host that proves nothing."""
    load, cpus = os.getloadavg()[0], os.cpu_count()
    advice = f"salt-call immich.doctor timeout={max(20, seconds * 3 / _times(group)):.0f}"
    if load > 2 * cpus:
        busy = f"this host is busy, with a load of {load:.0f} on {cpus} CPUs"
        return WARNING, f"not checked: took longer than {seconds:.0f} s; {busy}", advice
    # The formula's own checks ask Podman and the file server, and what hangs of these is reported below.
    return WARNING if group is FORMULA else FAILED, f"no answer within {seconds:.0f} s", advice


def _stops(check, answer):
    return check.gate and any(result == FAILED for result, *_ in answer)


def _fork(group, here):
    """Run a group in a process of its own, which writes a line of JSON for each check."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return {"pid": pid, "reader": reader, "text": b""}
    try:
        os.setsid()  # one signal ends it with all that it started
        _limit_data()
        os.close(reader)
        for check in group:
            message = _checked(check, here)
            os.write(writer, (json.dumps(message) + "\n").encode())
            if _stops(check, message["rows"]):
                break
    finally:
        os._exit(0)


def _limit_data():
    """For each of them, so that an answer without end fails one check, and not what else runs on this host."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = LARGEST_CHECK + int(facts.read_text("/proc/self/statm").split()[5]) * resource.getpagesize()
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _checked(check, here):
    here = {**here, "told": {}}
    try:
        rows = [tuple(found) for found in check.function(here)]
    except NotCheckedError as error:
        rows = [(WARNING, f"not checked: needs {error}")]
    except (CommandExecutionError, SaltInvocationError, CommandError, OSError) as error:
        rows = [(FAILED, one_line(error), remedy_of(error))]
    except MemoryError:
        seen = f"not checked: the answer takes more than {LARGEST_CHECK // 1024**2} MiB"
        rows = [(WARNING, seen, "find out what fills the log, the list or the answer that it reads")]
    except Exception as error:  # noqa: BLE001 (one check that breaks must not hide the others)
        place = traceback.extract_tb(error.__traceback__)[-1]
        broken = f"this check broke: {type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}"
        rows = [(WARNING, f"not checked: {broken}", "report it, with the output of `salt-call -l debug immich.doctor`")]
    return {"rows": rows, "told": here["told"]}


def _read(children):
    """Read what the groups write, until each has ended or one of its checks has taken longer than its time."""
    for child in children:
        child["deadline"] = time.monotonic() + child["seconds"]
    waiting = {child["reader"]: child for child in children}
    while waiting:
        left = min(child["deadline"] for child in waiting.values()) - time.monotonic()
        for reader in select.select(list(waiting), [], [], max(0, left))[0]:
            chunk = os.read(reader, 65536)
            waiting[reader]["text"] += chunk
            if b"\n" in chunk:
                waiting[reader]["deadline"] = time.monotonic() + waiting[reader]["seconds"]
            if not chunk:
                del waiting[reader]
        waiting = {reader: child for reader, child in waiting.items() if child["deadline"] > time.monotonic()}


def _end(child):
    """A process that waits for a dead network share cannot be ended: then it is left to init."""
    os.close(child["reader"])
    try:
        os.killpg(child["pid"], signal.SIGKILL)
    except ProcessLookupError:
        pass
    for _ in range(20):
        if os.waitpid(child["pid"], os.WNOHANG)[0]:
            return
        time.sleep(0.01)
