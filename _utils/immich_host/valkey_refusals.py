"""
What Valkey has denied to Immich, by its ACL LOG
================================================

A new release may need what the formula does not grant.
"""

import json
import re
import time

from host_core import terminal
from immich_core import findings
from immich_core.valkey_users import DENIES
from immich_io import containers

# Reasons of ACL LOG entries that are about rules; the others are about passwords.
DENIED = ("command", "key", "channel")
# How much of ACL LOG is read; a server keeps 128 entries by default.
LOG_ENTRIES = 128
# So many names are shown.
SHOWN = 5
# The doctor's row.
PART = "refused by Valkey"
# As Valkey names a command and its subcommand in ACL LOG.
COMMAND = re.compile(r"[a-z][a-z0-9_-]{0,40}(\|[a-z0-9_-]{1,40})?")


def found(settings, salt, connection=None):
    """
    Return what Valkey has denied to Immich's user since its server was started, for a day at most.

    As findings (``immich_core.findings``): an error if the rules lack what a new release of Immich may need, else a
    warning. A command that harms others is never among the first, nor is one that the rules allow by now.
    Names are shown as far as they are printable: the container decides them.

    settings
        The formula's settings.
    salt
        Salt's execution functions by name (``__salt__``).
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`. Defaults to the formula's logins.

    Raises CommandExecutionError if the server cannot be asked.
    """
    name, connection = settings["valkey"]["user"], connection or salt["immich_valkey.logins"](settings)
    logged = salt["valkey_acl.log"](LOG_ENTRIES, connection=connection)
    denied = [entry for entry in logged if entry.get("username") == name and entry.get("reason") in DENIED]
    if not denied:
        return []
    oldest = time.time() - containers.refusals_since()
    denied = [entry for entry in denied if float(entry["age-seconds"]) <= oldest]
    commands = {entry["object"] for entry in denied if entry["reason"] == "command"}
    commands = sorted(each for each in commands if COMMAND.fullmatch(each))
    may = salt["valkey_acl.dry_run"]
    denied_still = [each for each in commands if not may(name, each.split("|"), connection=connection)["allowed"]]
    harmful = _harmful(denied_still, salt, connection)
    each_kind = [_refused_commands([each for each in denied_still if each not in harmful], settings["valkey"])]
    each_kind.append(_refused_harm(harmful, name))
    each_kind += [_refused_names(kind, denied, name) for kind in ("key", "channel")]
    return [each for each in each_kind if each]


def _harmful(commands, salt, connection):
    """Those of some commands that no release of Immich is to have: what the formula denies, and @dangerous."""
    if not commands:
        return []
    listed = {words.lower().replace(" ", "|") for words in DENIES if isinstance(words, str)}
    listed.update(salt["valkey_acl.categories"]("dangerous", connection=connection))
    return [each for each in commands if each in listed or each.partition("|")[0] in listed]


def _refused_commands(commands, valkey):
    if not commands:
        return None
    rules = [*valkey["extra_rules"], *(f"+{each}" for each in commands)]
    seen = f"Valkey denied {_spoken(commands)} to the user {valkey['user']}: this release of Immich may need it"
    remedy = f"immich:valkey:extra_rules: {json.dumps(rules)}"
    return findings.finding("valkey-refused-command", PART, seen, remedy)


def _refused_harm(commands, user):
    if not commands:
        return None
    seen = f"Valkey denied {_spoken(commands)} to the user {user}, which harm others: Immich needs none of them"
    remedy = "do not grant it; see what asks for it: podman logs --tail 100 immich-server"
    return findings.finding("valkey-refused-harmful", PART, seen, remedy, severity=findings.WARNING)


def _refused_names(kind, denied, user):
    entries = [entry for entry in denied if entry["reason"] == kind]
    if not entries:
        return None
    names = list(dict.fromkeys(terminal.one_line(entry["object"], 60) for entry in entries))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    seen = f"Valkey denied the {kind} {', '.join(map(json.dumps, names[:SHOWN]))}{more} to the user {user}"
    remedy = (
        "if Immich's release notes name it, grant it in immich:valkey:extra_rules; else see what asks for it: "
        "podman logs --tail 100 immich-server"
    )
    return findings.finding(f"valkey-refused-{kind}", PART, seen, remedy, severity=findings.WARNING)


def _spoken(commands):
    names = [each.replace("|", " ").upper() for each in commands]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
