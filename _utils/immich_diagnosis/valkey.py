"""
Part: Valkey
============
"""

import functools
import os
import re
import socket

from salt.exceptions import CommandExecutionError

from immich_core import valkey_memory
from immich_diagnosis.check import FAILED, OK, WARNING, Check, NotCheckedError, call, of_finding
from immich_diagnosis.facts import read_text, settings_of
from immich_diagnosis.servers import answering, ask, listens, refusals, service
from immich_diagnosis.words import one_line

MIB = 1024**2
# Milliseconds for which a script may keep Valkey from answering at all; its default is 5000.
LONGEST_SCRIPT = 60000
# So much of a log's end is read.
LOG_BYTES = 65536
# Of maxmemory; and in MiB, what is not advised to be its half.
NEARLY_FULL, LEAST_MEMORY = 0.8, 64


def _acl_file_row(unit, here):
    """Valkey does not start without it, and an apply needs Valkey: an empty one holds until that has written it."""
    if not here["settings"] or os.path.exists(here["settings"]["lookup"]["valkey"]["acl_file"]):
        return None
    valkey = here["settings"]["lookup"]["valkey"]
    path = valkey["acl_file"]
    made = f"install -o {valkey['user']} -g {valkey['group']} -m 0640 /dev/null {path}"
    again = f"systemctl reset-failed {unit}; systemctl start {unit} && salt-call state.apply immich"
    return FAILED, f"{unit} does not start without its ACL file, and {path} is gone", f"{made}; {again}"


def _valkey_answers(here):
    if not here["valkey"]["managed"]:
        return [(OK, call(here, "valkey_acl.server", _logins(here))["version"])]
    port = here["valkey"]["port"]
    answer = ask((socket.AF_INET, ("127.0.0.1", port)), b"PING\r\n")
    # A server that a script keeps busy is reported by the next check.
    if not answer.startswith((b"+PONG", b"-NOAUTH", b"-DENIED", b"-BUSY")):
        words = answer.decode(errors="replace").strip() or "nothing"
        return [(FAILED, f"Valkey says {one_line(words)}", f"journalctl -n 20 -u {here['valkey']['units'][-1]}")]
    return [(OK, f"answers at port {port}")]


def _logins(here):
    return [{**login, "timeout": 2} for login in call(here, "immich_valkey.logins", settings_of(here))]


def _limits(here):
    return valkey_memory.limits(functools.partial(call, here, "valkey_acl.pipeline"), _logins(here))


def _scripts(here):
    try:
        held = _limits(here)
    except CommandExecutionError as error:
        if not getattr(error, "remedy", None):
            raise NotCheckedError("Valkey user") from error
        return [_busy_row(here, error.remedy, _end_of(_valkey_log(here)))]
    return _scripts_rows(held["busy_reply_threshold"])


def _busy_row(here, remedy, log):
    """The server says so, and SCRIPT KILL ends a script that has written nothing; a restart ends the others."""
    begun = re.findall(r"(\d+ \w{3} \d{4} \d\d:\d\d:\d\d)\S* \S Slow script detected", log)
    seen = "Valkey is busy with a script that does not end, and answers no client"
    if begun:
        seen = f"{seen}: since {begun[-1]}"
    if not here["valkey"]["managed"]:
        return FAILED, seen, f"on that server: valkey-cli {remedy}; if it replies UNKILLABLE: SHUTDOWN NOSAVE"
    return FAILED, seen, f"{_valkey_cli(here)} {remedy} || systemctl restart {here['valkey']['units'][-1]}"


def _valkey_log(here):
    """The log file that the server's configuration names, by the last such directive."""
    if not here["valkey"]["managed"]:
        return ""
    config = read_text(settings_of(here)["lookup"]["valkey"]["config_file"])
    named = re.findall(r"^logfile\s+\"?([^\"\n]+)", config, re.MULTILINE)
    return named[-1] if named else ""


def _end_of(path):
    """The last lines of a log, of whatever size; nothing where there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - LOG_BYTES))
            return stream.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _valkey_cli(here):
    """The client as the formula's own user, which fails where the server replies an error."""
    connection = settings_of(here)["valkey"]["connection"]
    program = "redis-cli" if here["valkey"]["units"][-1].startswith("redis") else "valkey-cli"
    password = f"REDISCLI_AUTH=$(cat {connection['password_file']})"
    return f"{password} {program} -e -p {connection['port']} --user {connection['username']}"


def _scripts_rows(threshold):
    """From which time on the server takes SCRIPT KILL, in milliseconds: with 0 or less, never."""
    if 0 < threshold <= LONGEST_SCRIPT:
        return [(OK, f"no script runs for long; SCRIPT KILL ends one after {threshold} ms")]
    seen = f"busy-reply-threshold is {threshold}: a script that does not end cannot be ended with SCRIPT KILL"
    return [(WARNING, seen, "set busy-reply-threshold to 5000 in Valkey's configuration and with CONFIG SET")]


def _memory(here):
    held = _limits(here)
    valkey = settings_of(here)["valkey"]
    return [_memory_row(held, valkey["managed"], valkey["maxmemory"])]


def _memory_row(held, managed, setting):
    """A full server refuses writes, BullMQ's own among them: nothing gets out of the queues by itself then."""
    used, limit = held["used"] / MIB, held["limit"] / MIB
    if not limit and managed and setting != "0":
        return WARNING, "has no limit: Immich can take all of the host's", "salt-call state.apply immich.valkey"
    if not limit:
        return OK, f"{used:.0f} MiB are used, without a limit"
    larger = f"immich:valkey:maxmemory: {2 * max(limit, used, LEAST_MEMORY):.0f}m"
    advice = larger if managed else "raise maxmemory on that server"
    seen = f"{used:.0f} of {limit:.0f} MiB (maxmemory) are used"
    if used >= limit:
        return FAILED, f"{seen}: Valkey refuses every write, and Immich's queues stop", advice
    if held["policy"] != "noeviction":
        advice = f"immich:valkey:maxmemory: {limit:.0f}m" if managed else "set maxmemory-policy to noeviction there"
        return WARNING, f"maxmemory-policy is {held['policy']}: when Valkey is full, it evicts Immich's jobs", advice
    if used >= limit * NEARLY_FULL:
        return WARNING, f"{seen}: when it is full, Valkey refuses every write", advice
    return OK, seen


def _acl(here):
    settings = settings_of(here)
    broken = call(here, "immich_valkey.verify", settings, _logins(here))
    return map(of_finding, broken) if broken else [(OK, f"the user {settings['valkey']['user']} is as declared")]


GROUPS = (
    (
        Check("Valkey service", service("valkey", _acl_file_row), gate=True),
        Check("Valkey", answering(_valkey_answers, "valkey"), gate=True),
        Check("Valkey scripts", _scripts, gate=True),
        Check("Valkey memory", _memory),
        Check("Valkey user", _acl, asks=("immich_valkey.verify",)),
        Check("refused by Valkey", refusals("immich_valkey.refusals", _logins), asks=("immich_valkey.refusals",)),
        Check("Valkey's address", listens("valkey", "immich.valkey")),
    ),
)
