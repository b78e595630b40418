"""
What a server holds about ACL users and commands, through a session
===================================================================
"""

from valkey_core import acl_commands, acl_rules, acl_users, replies
from valkey_core import session as sessions

# More users than these are not read one by one, but from the list of all.
SINGLE_LOOKS = 20


def _list_lines(session):
    """The server's users as it writes them, a line each. Keeps the names of scratch users that a crash left."""
    (lines,) = sessions.pipeline(session, [["ACL", "LIST"]])
    replies.check(lines, f"The user {session['whoami']} may not list ACL users")
    names = [line.split(" ", 2)[1] for line in lines]
    session["stray"] = sorted(name for name in names if name.startswith(acl_users.SCRATCH_PREFIX))
    return lines


def read_all(session):
    """Lines and users that the server holds now."""
    lines = _list_lines(session)
    return lines, dict(acl_rules.parse_line(line) for line in lines)


def read(session, names):
    """Of these users those that the server holds now."""
    if len(names) > SINGLE_LOOKS:
        lines = {line.split(" ", 2)[1]: line for line in _list_lines(session)}
        return dict(acl_rules.parse_line(lines[name]) for name in names if name in lines)
    # What this takes does not grow with the number of the other users.
    users = {}
    for name, reply in zip(names, sessions.pipeline(session, [["ACL", "GETUSER", name] for name in names])):
        replies.check(reply, f"The user {session['whoami']} may not read ACL users")
        if reply is not None:
            users[name] = acl_rules.parse_reply(replies.pairs(reply))
    return users


def stray(session):
    """Scratch users that a crash left. Those of a transaction are never visible: one look in a run is enough."""
    if "stray" not in session:
        _list_lines(session)
    return session["stray"]


def command_table(session):
    """The table of all commands of the server, as of ``acl_commands.table``, asked for once."""
    if "table" not in session:
        (reply,) = sessions.pipeline(session, [["COMMAND"]])
        replies.check(reply, "The server refused COMMAND")
        session["table"] = acl_commands.table(reply)
    return session["table"]


def command_info(session, names):
    """The table of some commands. Those the server does not know are not in it."""
    if "table" in session:
        return session["table"]
    (reply,) = sessions.pipeline(session, [["COMMAND", "INFO", *sorted(set(names))]])
    replies.check(reply, "The server refused COMMAND INFO")
    return acl_commands.table(reply)


def forgets_sanitizing(session):
    """Valkey 9.1.2 takes the words about payloads and holds nothing of them; others show one of the two for default."""
    (reply,) = sessions.pipeline(session, [["ACL", "GETUSER", "default"]])
    replies.check(reply, f"The user {session['whoami']} may not read ACL users")
    return not any(flag.endswith("sanitize-payload") for flag in replies.pairs(reply)["flags"])
