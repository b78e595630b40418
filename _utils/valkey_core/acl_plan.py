"""
What has to change for ACL users to be as declared
==================================================
"""

from valkey_core import acl_judging, acl_reading, acl_rules, acl_saving, acl_users, errors, passwords, replies
from valkey_core import connection as arguments_of


def plan(session, users, remove, remove_unlisted, scratch, from_pillar):
    """
    What to send, what it changes, and what speaks against it.

    session
        As of ``session.opened``.
    users, remove, remove_unlisted, scratch
        As for ``valkey_acl.compare``.
    from_pillar
        A function from a path to what the pillar has there.
    """
    acl_users.check(users)
    ours = None if remove_unlisted else [*(user["name"] for user in users), *(remove or [])]
    lines, current = acl_reading.read_all(session) if ours is None else (None, acl_reading.read(session, ours))
    stray = acl_reading.stray(session)
    declared = {user["name"]: definition(user, current.get(user["name"]), from_pillar) for user in users}
    if any(not user["sanitize"] for user in declared.values()) and acl_reading.forgets_sanitizing(session):
        for user in declared.values():
            user["sanitize"] = True

    def commands():
        return acl_reading.command_table(session)

    changed = acl_users.changed(declared, current, commands)
    removed, kept = acl_users.removed(declared, current, remove, remove_unlisted, session["whoami"])
    changes = {name: acl_users.change(current.get(name), declared[name], commands) for name in changed}
    changes.update({name: {"old": acl_users.shown(current[name]), "new": None} for name in removed})
    judged = {"problems": _database_problems(session, declared, changed), "broken": [], "unchecked": []}
    if not judged["problems"]:
        new_rules = {
            name: declared[name]
            for name in changed
            if not acl_users.same_rules(declared[name], current.get(name), commands)
        }
        judged = acl_judging.judged(session, users, new_rules, scratch)
    problems = [*judged["problems"], *_lockout_problems(session, declared, current, changed, removed, from_pillar)]
    unsaved = bool(stray) or acl_saving.unsaved(session, lines, current, ours)
    if (changes or unsaved) and not (session["aclfile"] or session["config_file"]):
        problems.append(
            f"{session['where']} has neither an ACL file nor a configuration file: a restart would forget the users."
            " Start it with one of them."
        )
    return {
        **judged,
        "changes": changes,
        "problems": problems,
        "unsaved": unsaved,
        "kept": kept,
        "stray": stray,
        "commands": [
            *(["ACL", "SETUSER", name, *acl_rules.setuser_arguments(declared[name])] for name in changed),
            *(["ACL", "DELUSER", name] for name in removed),
        ],
        "undo": [
            ["ACL", "SETUSER", name, *acl_rules.setuser_arguments(current[name])]
            if name in current
            else ["ACL", "DELUSER", name]
            for name in [*changed, *removed]
        ],
    }


def definition(user, current, from_pillar):
    """The definition that a user should have: what is declared, over what there is."""
    try:
        return acl_users.definition(user, current, passwords.declared(user, from_pillar))
    except errors.ValkeyError as err:
        raise type(err)(f"The ACL user {user['name']}: {err}") from err


def _lockout_problems(session, declared, current, changed, removed, from_pillar):
    own = session["whoami"]
    if "default" in removed:
        return ["The server does not let the user default be removed; it can be disabled instead."]
    if own in removed:
        return [f"{own} is the user of the connection itself: log in as another user to remove it."]
    if own not in changed:
        return []
    hashes = _own_hashes(session, from_pillar)
    if acl_users.accepts(current[own], hashes) and not acl_users.accepts(declared[own], hashes):
        return [
            f"The connection logs in as {own}, whose password would be another one: list a second connection with that."
        ]
    if acl_users.manages_users(declared[own], acl_reading.command_table(session)):
        return []
    return [f"The connection is logged in as {own}, who could manage no ACL users afterwards: log in as another user."]


def _own_hashes(session, from_pillar):
    """The SHA-256 of the passwords of the connections that log in as the session's user."""
    own = [each for each in session["candidates"] if arguments_of.username(each) == session["whoami"]]
    return set().union(*(_candidate_hashes(each, from_pillar) for each in own))


def _candidate_hashes(candidate, from_pillar):
    try:
        password = arguments_of.password(candidate, from_pillar)
    except errors.RefusedError:  # it has none now
        return set()
    return {passwords.sha256(password)} if password else set()


def _database_problems(session, declared, changed):
    if replies.knows_databases(session):
        return []
    return [
        f"{session['product']} {session['version']} knows no db= in the rules of {name}: Valkey 9.1 is the least."
        for name in changed
        if acl_users.has_databases(declared[name])
    ]
