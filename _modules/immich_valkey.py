"""
What Immich needs from Valkey, and what it must not be able to do there.

Turns the formula's settings into users and connections for :py:mod:`valkey_acl <_modules.valkey_acl>`, which knows
nothing of Immich.
"""

import json
import re
import time

from salt.exceptions import SaltInvocationError

from host_core import pillar, terminal
from immich_core import containers, findings, valkey_users
from immich_core.pillar_paths import VALKEY_ADMIN_PASSWORD, VALKEY_PASSWORD
from immich_core.valkey_users import ALLOWS, DENIES, LOGIN, RULES

__virtualname__ = "immich_valkey"

# All keys that Immich has.
QUEUES = "immich_bull:*"
# Reasons of ACL LOG entries that are about rules; the others are about passwords.
DENIED = ("command", "key", "channel")
# How much of ACL LOG is read; a server keeps 128 entries by default.
LOG_ENTRIES = 128
# So many names are shown.
SHOWN = 5
# The doctor's rows.
USER_PART, REFUSED_PART = "Valkey user", "refused by Valkey"
APPLY = findings.apply("immich.valkey")
# As Valkey names a command and its subcommand in ACL LOG.
COMMAND = re.compile(r"[a-z][a-z0-9_-]{0,40}(\|[a-z0-9_-]{1,40})?")


def __virtual__():
    if "valkey_acl.compare" not in __salt__:
        return False, "The execution module valkey_acl is not available: it needs the Python library redis."
    return __virtualname__


def logins(settings, own=True):
    """
    Return the connections by which the formula may reach Valkey, the preferred one first.

    settings
        The formula's settings, as of ``immich_settings.get``.
    own
        Whether the formula's own ACL user is among them. Defaults to true.

    Its own user comes first, so that the administrator's password can be changed by pillar; then ``default`` with
    the pillar's password, and without one, as on a new server. A server that the formula does not manage has the
    one connection of ``valkey:admin``.

    Called by the SLS ``immich.valkey`` and ``immich.app``.
    """
    connection = settings["valkey"]["connection"]
    if not settings["valkey"]["managed"]:
        return [connection]
    server = {"host": connection["host"], "port": connection["port"]}
    administrator = {**server, "username": "default", "password_pillar": VALKEY_ADMIN_PASSWORD}
    return [*([connection] if own else []), administrator, server]


def users(settings):
    """
    Return the users that ``valkey_acl.managed`` is to keep: Immich's own, those listed, and ``default``.

    settings
        The formula's settings, as of ``immich_settings.get``.

    An entry for Immich's own user gives its rules, and ``valkey:extra_rules`` come after them. Of ``default`` only the
    password is declared, and only where the formula manages the server. Raises SaltInvocationError for an entry named
    as the formula's own user.

    Called by the SLS ``immich.valkey``.
    """
    valkey = settings["valkey"]
    listed = {user["name"]: user for user in valkey["acl_users"]}
    if LOGIN in listed:
        raise SaltInvocationError(f"{LOGIN} is the formula's own user in Valkey: give the entry another name.")
    own = {
        "name": valkey["user"],
        "password_pillar": VALKEY_PASSWORD,
        # A new password is valid beside the old one until Immich uses it: immich_valkey.former_passwords_absent.
        "keep_passwords": True,
        "rules": " ".join([listed.get(valkey["user"], {}).get("rules") or RULES, *valkey["extra_rules"]]),
        "allows": ALLOWS,
        "denies": DENIES,
    }
    default = {"name": "default", "enabled": None, "password_pillar": VALKEY_ADMIN_PASSWORD}
    return [
        own,
        *(user for name, user in listed.items() if name != valkey["user"]),
        *([default] if valkey["managed"] else []),
    ]


def queues_move(settings, old, new):
    """
    Move Immich's queues from one database number to another, and return how many keys that were.

    A key of the same name in the new one is of an earlier time, and is replaced. Immich is stopped.

    settings
        The formula's settings, as of ``immich_settings.get``.
    old, new
        Database numbers.

    Raises CommandExecutionError if the server cannot be asked, or its administrator may not move keys.

    Called by the state ``immich_identity.migrated``.
    """
    # The formula's own user has no keys.
    connection = logins(settings, own=False)
    old, new, cursor, moved = str(old), str(new), "0", 0
    # A connection is shared, so each batch leaves it in the database where it found it.
    back = ["SELECT", "0"]
    while True:
        scan = ["SCAN", cursor, "MATCH", QUEUES, "COUNT", "1000"]
        _, (cursor, keys), _ = __salt__["valkey_acl.pipeline"]([["SELECT", old], scan, back], connection=connection)
        steps = [(["SELECT", new], ["DEL", key], ["SELECT", old], ["MOVE", key, new]) for key in keys]
        commands = [command for step in steps for command in step]
        if commands:
            __salt__["valkey_acl.pipeline"]([*commands, back], connection=connection)
        moved += len(keys)
        if cursor == "0":
            return moved


def former_user_remove(settings, name):
    """
    Delete an ACL user that Immich no longer logs in as, unless the pillar declares it; return whether it was.

    settings
        The formula's settings, as of ``immich_settings.get``.
    name
        Name of the user.

    Raises CommandExecutionError if the server cannot be asked.

    Called by the state ``immich_identity.recorded``.
    """
    connection = logins(settings)
    declared = [user["name"] for user in users(settings)]
    if name in (*declared, LOGIN, "default") or __salt__["valkey_acl.get"](name, connection=connection) is None:
        return False
    __salt__["valkey_acl.delete"](name, connection=connection)
    return True


def verify(settings, connection=None):
    """
    Return what of Immich's user is not as declared on the running server, as findings (``immich_core.findings``).

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`. Defaults to the formula's logins.

    The user's password is compared where the pillar has one.

    Raises CommandExecutionError if the server cannot be asked.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    name = settings["valkey"]["user"]
    own = {"name": name, "enabled": None, "allows": ALLOWS, "denies": DENIES}
    if pillar.value(__pillar__, VALKEY_PASSWORD) is not None:
        # A former password beside it is a finding of its own.
        own.update(password_pillar=VALKEY_PASSWORD, keep_passwords=True)
    connection = connection or logins(settings)
    held = __salt__["valkey_acl.list"](connection=connection)
    if name not in held:
        return [_finding("valkey-acl-user-absent", f"Valkey has no ACL user {name}")]
    broken = []
    if not held[name]["enabled"]:
        broken.append(_finding("valkey-acl-user-disabled", f"The ACL user {name} is disabled"))
    if held[name]["nopass"]:
        broken.append(_finding("valkey-nopass", f"The ACL user {name} needs no password"))
    if held[name]["passwords"] > 1:
        seen = f"The ACL user {name} has a former password besides the present one"
        broken.append(_finding("valkey-former-password", seen, findings.apply("immich.app")))
    if settings["valkey"]["managed"] and held["default"]["enabled"] and held["default"]["nopass"]:
        broken.append(_finding("valkey-default-nopass", "The Valkey user default needs no password"))
    declared = valkey_users.fitted([own], __salt__["valkey_acl.server"](connection=connection))
    found = __salt__["valkey_acl.compare"](declared, scratch=False, connection=connection)
    broken += [_finding("valkey-acl-denied", problem) for problem in found["problems"]]
    if "password" in found["changes"].get(name, {}).get("new", {}):
        seen = f"is not the password of the ACL user {name} in Valkey"
        broken.append(_finding("valkey-password", seen, findings.apply(), VALKEY_PASSWORD))
    if found["unsaved"]:
        seen = "Valkey's ACL users are not saved as they are, a restart would change them"
        broken.append(_finding("valkey-acl-unsaved", seen))
    return broken


def _finding(code, seen, remedy=APPLY, path=""):
    return findings.finding(code, USER_PART, seen, remedy, path)


def refusals(settings, connection=None):
    """
    Return what Valkey has denied to Immich's user since its server was started, for a day at most.

    ``{"found": findings, "unknown": ""}``; a finding is an error if the rules lack what a new release of Immich may
    need, else a warning. A command that harms others is never among the first, nor is one that the rules allow by now.
    Names are shown as far as they are printable: the container decides them.

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`. Defaults to the formula's logins.

    Raises CommandExecutionError if the server cannot be asked.

    Called by ``immich_app.warnings`` and by ``immich.doctor``.
    """
    name, connection = settings["valkey"]["user"], connection or logins(settings)
    logged = __salt__["valkey_acl.log"](LOG_ENTRIES, connection=connection)
    denied = [entry for entry in logged if entry.get("username") == name and entry.get("reason") in DENIED]
    if not denied:
        return {"found": [], "unknown": ""}
    oldest = time.time() - containers.refusals_since()
    denied = [entry for entry in denied if float(entry["age-seconds"]) <= oldest]
    commands = {entry["object"] for entry in denied if entry["reason"] == "command"}
    commands = sorted(each for each in commands if COMMAND.fullmatch(each))
    may = __salt__["valkey_acl.dry_run"]
    denied_still = [each for each in commands if not may(name, each.split("|"), connection=connection)["allowed"]]
    harmful = _harmful(denied_still, connection)
    found = [_refused_commands([each for each in denied_still if each not in harmful], settings["valkey"])]
    found.append(_refused_harm(harmful, name))
    found += [_refused_names(kind, denied, name) for kind in ("key", "channel")]
    return {"found": [each for each in found if each], "unknown": ""}


def _harmful(commands, connection):
    """Those of some commands that no release of Immich is to have: what the formula denies, and @dangerous."""
    if not commands:
        return []
    listed = {words.lower().replace(" ", "|") for words in DENIES if isinstance(words, str)}
    listed.update(__salt__["valkey_acl.categories"]("dangerous", connection=connection))
    return [each for each in commands if each in listed or each.partition("|")[0] in listed]


def _refused_commands(commands, valkey):
    if not commands:
        return None
    rules = [*valkey["extra_rules"], *(f"+{each}" for each in commands)]
    seen = f"Valkey denied {_spoken(commands)} to the user {valkey['user']}: this release of Immich may need it"
    remedy = f"immich:valkey:extra_rules: {json.dumps(rules)}"
    return findings.finding("valkey-refused-command", REFUSED_PART, seen, remedy)


def _refused_harm(commands, user):
    if not commands:
        return None
    seen = f"Valkey denied {_spoken(commands)} to the user {user}, which harm others: Immich needs none of them"
    remedy = "do not grant it; see what asks for it: podman logs --tail 100 immich-server"
    return findings.finding("valkey-refused-harmful", REFUSED_PART, seen, remedy, severity=findings.WARNING)


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
    return findings.finding(f"valkey-refused-{kind}", REFUSED_PART, seen, remedy, severity=findings.WARNING)


def _spoken(commands):
    names = [each.replace("|", " ").upper() for each in commands]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
