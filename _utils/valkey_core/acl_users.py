"""
ACL users: what is declared against what the server holds
=========================================================

A declared user is a dictionary with ``name`` and the arguments of ``valkey_acl.set``, a definition one as of
``acl_rules.parse``. Definitions are compared by meaning. The server's table of commands is long, so it is given as a
function, ``commands``, which is called only where the texts of rules differ.
"""

import re

from valkey_core import acl_commands, acl_rules, passwords
from valkey_core.errors import InvalidArgumentError

SCRATCH_PREFIX = "salt-scratch-"
KEYS = {
    "name",
    "enabled",
    *passwords.SOURCES,
    "password_hash",
    "nopass",
    "keep_passwords",
    "rules",
    "allows",
    "denies",
}
# What a user needs who manages ACL users: taken from the login that a connection uses, it locks us out.
INDISPENSABLE = {"acl|getuser", "acl|list", "acl|setuser", "acl|whoami"}


def check(users):
    """Raise ``InvalidArgumentError``, with the reason, if a list of declared users cannot be."""
    names = set()
    for user in users:
        name = user.get("name")
        if not isinstance(name, str) or not name or re.search(r"[\s\0]", name, re.ASCII):
            raise InvalidArgumentError("An ACL user needs a name without blanks.")
        if name.startswith(SCRATCH_PREFIX):
            raise InvalidArgumentError(f"Names that begin with {SCRATCH_PREFIX} are reserved.")
        if name in names:
            raise InvalidArgumentError(f"The ACL user {name} is listed twice.")
        unknown = sorted(set(user) - KEYS)
        if unknown:
            raise InvalidArgumentError(f"The ACL user {name} has unknown settings: {', '.join(unknown)}.")
        for key in ("enabled", "nopass"):
            # A text such as "false" would count as true.
            if not isinstance(user.get(key), (bool, type(None))):
                raise InvalidArgumentError(f"The ACL user {name}: {key} is true or false, not {user[key]!r}.")
        names.add(name)


def definition(user, current, hashes):
    """
    Return the definition that a user should have: what is declared, over what there is.

    user
        The declared user.

    current
        The definition that the server holds, or None.

    hashes
        The SHA-256 of its declared passwords, as of ``passwords.declared``.

    Raises ``InvalidArgumentError`` for rules that are not ACL grammar, and what excludes each other.
    """
    current = current or acl_rules.new_user()
    tokens = acl_rules.split_rules(user.get("rules"))
    target = acl_rules.parse(tokens)
    if user.get("rules") is None:
        target.update(sanitize=current["sanitize"], selectors=current["selectors"])
    if not {"on", "off"} & {token.lower() for token in tokens}:
        enabled = user.get("enabled", True)
        target["enabled"] = current["enabled"] if enabled is None else bool(enabled)
    nopass = user.get("nopass")
    if nopass and (hashes or target["passwords"]):
        raise InvalidArgumentError("nopass and a password exclude each other.")
    if nopass and user.get("keep_passwords"):
        raise InvalidArgumentError("nopass and keep_passwords exclude each other.")
    if nopass or hashes:
        kept = current["passwords"] if user.get("keep_passwords") else set()
        target.update(nopass=bool(nopass), passwords=target["passwords"] | (hashes or set()) | kept)
    elif nopass is None and not target["nopass"] and not target["passwords"]:
        target.update(nopass=current["nopass"], passwords=set(current["passwords"]))
    return target


def changed(declared, current, commands):
    """Return the names in a dictionary of definitions that differ in meaning from those in another."""
    differing = [name for name, user in declared.items() if not _same(user, current.get(name), _command_text)]
    return [name for name in differing if not _same_but_commands(declared[name], current.get(name), commands)]


def same_rules(user, other, commands):
    """Return whether two definitions allow the same, whatever their passwords and whether they are enabled."""
    if other is None:
        return False
    user = {**user, **{key: other[key] for key in ("enabled", "nopass", "passwords")}}
    return _same(user, other, _command_text) or _same_but_commands(user, other, commands)


def removed(declared, current, remove, remove_unlisted, own):
    """
    Return the names of users to remove, and of unlisted users that stay.

    declared, current
        Definitions by name.

    remove, remove_unlisted
        As for ``valkey_acl.compare``.

    own
        The user that the connection is logged in as.
    """
    gone = [name for name in remove or [] if name in current]
    if not remove_unlisted:
        return gone, []
    unlisted = {name for name in current if name not in declared and not name.startswith(SCRATCH_PREFIX)}
    kept = unlisted & {"default", own}
    return sorted(set(gone) | unlisted - kept), sorted(kept)


def described(user):
    """Return a definition as ``valkey_acl.get`` does."""
    return {**shown(user), "passwords": len(user["passwords"])}


def shown(user):
    """Return what is shown of a definition in changes."""
    return {"enabled": user["enabled"], "nopass": user["nopass"], "rules": " ".join(acl_rules.user_rules(user))}


def change(old, new, commands):
    """Return old and new of what differs in meaning between two definitions. Of passwords only that they do."""
    if old is None:
        password = {"password": "changed"} if new["passwords"] else {}
        return {"old": None, "new": {**shown(new), **password}}
    before, after = shown(old), shown(new)
    keys = [key for key in before if before[key] != after[key]]
    if "rules" in keys and same_rules(old, new, commands):  # Redis 7.0 lists them in other words than it was given
        keys.remove("rules")
    found = {"old": {key: before[key] for key in keys}, "new": {key: after[key] for key in keys}}
    if old["passwords"] != new["passwords"]:
        found["new"]["password"] = "changed"
    return found


def manages_users(user, commands):
    """Return whether a connection logged in as this user could manage ACL users; ``commands`` is the table itself."""
    reached = frozenset().union(*(acl_commands.reached(selector, commands) for selector in user["selectors"]))
    return user["enabled"] and reached >= INDISPENSABLE


def accepts(user, hashes):
    """Return whether a user authenticates with one of these passwords, given as SHA-256."""
    return user["nopass"] or bool(user["passwords"] & hashes)


def has_databases(user):
    """Return whether a definition names databases."""
    return any(selector["dbs"] is not None for selector in user["selectors"])


def _same_but_commands(user, other, commands):
    """Whether two definitions mean the same; the table is asked for only if nothing but commands can differ."""
    if not _same(user, other, lambda selector: None):
        return False
    known = commands()
    return _same(user, other, lambda selector: acl_commands.reached(selector, known))


def _same(user, other, commands):
    return other is not None and _meaning(user, commands) == _meaning(other, commands)


def _meaning(user, commands):
    """Users of the same meaning can do the same. ``commands`` returns what is compared of a selector's commands."""
    root, *others = (
        (
            frozenset(selector["keys"].items()),
            frozenset(selector["channels"]),
            None if selector["dbs"] is None else frozenset(selector["dbs"]),
            commands(selector),
        )
        for selector in user["selectors"]
    )
    flags = (user["enabled"], user["nopass"], user["sanitize"])
    return flags, frozenset(user["passwords"]), root, frozenset(others)


def _command_text(selector):
    return (selector["all"], *selector["commands"])
