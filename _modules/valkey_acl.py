"""
Manage the ACL users of Valkey and Redis.

What a user may do is compared by meaning: rules are read the way the server reads them, so that
``+get +get``, ``%RW~a`` and ``~a`` or two orders of the same rules are no difference. Passwords reach
the server only as SHA-256.

:depends: redis (redis-py) 5.0 or newer
:servers: Valkey 7.2 to 9, Redis 7 to 8

.. _valkey-connection:

**Connection.** Each function takes ``connection``, a dictionary that is laid over the ``valkey`` key of the
pillar, and that over the same key of the minion's configuration, or a list of dictionaries, tried in turn until the
server accepts one's credentials. A layer that has one kind of password or of address replaces the other
kinds below it. Its keys, all optional:

host
    Name or address of the server. Defaults to ``127.0.0.1``.
port
    TCP port. Defaults to 6379.
unix_socket
    Path of a Unix socket, instead of host and port.
username
    ACL user to log in as. Defaults to ``default``.
password, password_pillar, password_file
    The password itself, the pillar path of it, or the path of a file that holds it. Defaults to no password.
tls, tls_ca, tls_cert, tls_key
    Whether to use TLS (defaults to false), and paths of the CA bundle, client certificate and key.
timeout
    Seconds to wait for the connection and for each answer. Defaults to 5.

One connection per target is opened in a run and shared by all functions.

.. code-block:: yaml

    valkey:
      host: valkey.example.net
      tls: true
      password_file: /etc/salt/valkey.password
"""

import itertools
import os
import secrets
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import pillar
from valkey_core import (
    acl_assertions,
    acl_commands,
    acl_file,
    acl_rules,
    acl_users,
    addresses,
    errors,
    passwords,
    replies,
)
from valkey_core import connection as arguments_of
from valkey_core import session as sessions

__virtualname__ = "valkey_acl"
__func_alias__ = {"list_": "list", "set_": "set"}

# After this time no file system gives a changed file the time stamp that it had before.
FILE_STAMP_SECONDS = 2
# More users than these are not read one by one, but from the list of all.
SINGLE_LOOKS = 20

_as_salts = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    missing = sessions.missing_library()
    return (False, missing) if missing else __virtualname__


@_as_salts
def get(name, connection=None):
    """
    Return one ACL user, or None if there is no such user.

    name
        Name of the user.
    connection
        See :ref:`valkey-connection`.

    The answer has the keys ``enabled``, ``nopass``, ``passwords`` (how many) and ``rules``.
    Raises CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.get alice
    """
    session = _session(connection)
    user = _read(session, [name]).get(name)
    return user and acl_users.described(user)


@_as_salts
def list_(connection=None):
    """
    Return all ACL users by name, each as :py:func:`get` describes it.

    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.list
    """
    users = _read_all(_session(connection))[1]
    return {name: acl_users.described(user) for name, user in users.items()}


@_as_salts
def set_(
    name,
    enabled=True,
    password=None,
    password_pillar=None,
    password_file=None,
    password_hash=None,
    nopass=None,
    keep_passwords=False,
    rules=None,
    allows=None,
    denies=None,
    connection=None,
):
    """
    Create an ACL user or replace its definition in one command, and save.

    name
        Name of the user.
    enabled
        Whether one can log in as this user. Defaults to true. None leaves that as it is.
    password, password_pillar, password_file, password_hash
        The password, pillar path of it, path of a file with it, or its SHA-256 in 64 hexadecimal digits;
        each one or a list. Defaults to the passwords that the user has.
    nopass
        True lets anyone in without a password. Defaults to what the user has, and to false with a password.
    keep_passwords
        Whether the passwords that the user has stay valid beside those given, as for the time in which its clients
        change from one to the next. Defaults to false.
    rules
        Rules in the server's ACL grammar, a string or a list, read from left to right. Defaults to the rules
        that the user has.
    allows, denies
        Commands that these rules must allow and must deny, each a string like ``CLIENT KILL`` or a list like
        ``[GET, "a key"]``; without arguments it is about the command whatever its arguments. Judged by
        the server (``ACL DRYRUN``) before the old rules are replaced. Defaults to none.
    connection
        See :ref:`valkey-connection`.

    Returns the changes, empty if there are none. Raises SaltInvocationError for what is not ACL grammar, and
    CommandExecutionError if the server refuses or cannot save; the users are then as they were.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.set alice password_pillar=alice:password rules='~app:* +@read +@write -@dangerous'
    """
    user = {
        "name": name,
        "enabled": enabled,
        "password": password,
        "password_pillar": password_pillar,
        "password_file": password_file,
        "password_hash": password_hash,
        "nopass": nopass,
        "keep_passwords": keep_passwords,
        "rules": rules,
        "allows": allows,
        "denies": denies,
    }
    return replace([user], connection=connection)


@_as_salts
def delete(name, connection=None):
    """
    Delete an ACL user and save; its clients are disconnected.

    name
        Name of the user.
    connection
        See :ref:`valkey-connection`.

    Returns whether there was such a user. Raises CommandExecutionError if the server refuses, as it does for
    ``default``, or cannot save.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.delete alice
    """
    session = _session(connection)
    if name not in _read(session, [name]):
        return False
    if name == session["whoami"] != "default":
        return _delete_own(session, name)
    replace([], remove=[name], connection=connection)
    return True


@_as_salts
def dry_run(name, command, rules=None, connection=None):
    """
    Return whether a user may run a command, without running it.

    name
        Name of the user. With rules, any name: they are tried on a disabled scratch user.
    command
        A string like ``CLIENT KILL`` or a list like ``[GET, "a key"]``. Without arguments it is about the
        command whatever its arguments.
    rules
        Rules to try instead of those the user has. Defaults to none.
    connection
        See :ref:`valkey-connection`.

    Returns ``{"allowed": bool, "reason": str}``. Raises CommandExecutionError if there is no such user.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.dry_run alice FLUSHALL
    """
    session = _session(connection)
    if rules is not None:
        subject = {"user": name, **_scratch(_definition({"name": name, "rules": rules}, None))}
    else:
        if name not in _read(session, [name]):
            raise errors.ServerError(f"There is no ACL user {name}.")
        subject = {"user": name, "name": name, "set": None}
    words = acl_assertions.words(command)
    subject["lines"] = acl_assertions.lines(words, _command_info(session, [words[0]]))
    (denials,) = _dry_runs(session, [subject])
    refusals = [denial for denial in denials if denial]
    return {"allowed": not refusals, "reason": refusals[0] if refusals else ""}


@_as_salts
def whoami(connection=None):
    """
    Return the name of the ACL user that the connection is logged in as.

    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.whoami
    """
    return _one(connection, "ACL", "WHOAMI")


@_as_salts
def log(count=10, reset=False, connection=None):
    """
    Return the newest denials that the server has logged, the newest first.

    count
        How many entries at most. Defaults to 10.
    reset
        Empty the log afterwards. Defaults to false.
    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.log
    """
    entries = [replies.pairs(entry) for entry in _one(connection, "ACL", "LOG", count)]
    if reset:
        _one(connection, "ACL", "LOG", "RESET")
    return entries


@_as_salts
def save(connection=None):
    """
    Make the users of the running server outlive a restart: ACL file or configuration file, whichever it has.

    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server has neither or cannot write it.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.save
    """
    session = _session(connection)
    (reply,) = sessions.pipeline(session, [sessions.save_command(session)])
    replies.check(reply, "The server could not save its ACL users")
    return True


@_as_salts
def load(connection=None):
    """
    Let the server read its ACL file again; users that are only in memory are lost.

    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server has no ACL file or finds errors in it.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.load
    """
    return _one(connection, "ACL", "LOAD") == "OK"


@_as_salts
def categories(category=None, connection=None):
    """
    Return the command categories, or the commands of one.

    category
        A category like ``dangerous``. Defaults to the list of categories.
    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError for an unknown category.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.categories dangerous
    """
    return sorted(_one(connection, "ACL", "CAT", *([category.lstrip("@")] if category else [])))


@_as_salts
def compare(users, remove=None, remove_unlisted=False, scratch=True, connection=None):
    """
    Return what would have to change for the users to be as declared; changes nothing.

    users
        List of dictionaries with ``name`` and the arguments of :py:func:`set_`.
    remove
        Names of users that should not be. Defaults to none.
    remove_unlisted
        Whether users that are not in the list should not be, apart from ``default`` and the user that the
        connection is logged in as. Defaults to false.
    scratch
        Whether a scratch user with new rules may be created for the server to judge them; it lives within one
        transaction. Without it, ``allows`` and ``denies`` are judged only where rules stay as they are, and of new
        rules only the names of commands and categories are looked up. Defaults to true.
    connection
        See :ref:`valkey-connection`.

    Returns a dictionary: ``changes`` by user; ``problems``, sentences that speak against applying it;
    ``broken``, users whose ``allows`` and ``denies`` do not hold; ``unchecked``, those whose were not judged;
    ``unsaved``, whether memory and file differ about them; ``kept``, unlisted users that stay although
    ``remove_unlisted`` is set.
    Raises SaltInvocationError for what is not ACL grammar, CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.compare '[{"name": "alice", "rules": "~app:* +@read"}]'
    """
    plan = _plan(_session(connection), users, remove, remove_unlisted, scratch)
    return {key: plan[key] for key in ("changes", "problems", "broken", "unchecked", "unsaved", "kept")}


@_as_salts
def replace(users, remove=None, remove_unlisted=False, connection=None):
    """
    Make the users as declared, in one transaction, and save.

    users, remove, remove_unlisted, connection
        As for :py:func:`compare`.

    Returns the changes by user, empty if there were none. Raises CommandExecutionError before anything is
    changed if there are problems or the server cannot save. What it can save before, but not after the change, as on
    a disk that is nearly full, is taken back.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.replace '[{"name": "alice", "rules": "~app:* +@read"}]'
    """
    session = _session(connection)
    plan = _plan(session, users, remove, remove_unlisted, True)
    if plan["problems"]:
        raise errors.ServerError(" ".join(plan["problems"]))
    if not plan["changes"] and not plan["unsaved"] and not plan["stray"]:
        return {}
    save_command = sessions.save_command(session)
    # Saved once before: a full disk or a folder that the server may not write to shows while nothing is changed.
    # Scratch users that a crash left go first, they must never be in a file.
    sweep = [["ACL", "DELUSER", *plan["stray"]]] if plan["stray"] else []
    for reply in sessions.pipeline(session, [*sweep, save_command]):
        replies.check(reply, "The server cannot save its ACL users, so nothing was changed")
    session["stray"] = []
    if not plan["changes"]:
        return {}
    answers = sessions.transaction(session, [*plan["commands"], save_command])
    failures = [reply for reply in answers if isinstance(reply, Exception)]
    if failures:
        sessions.transaction(session, [*plan["undo"], save_command])
        raise errors.ServerError(
            f"The server could not set and save its ACL users, so they are as they were: {failures[0]}."
        )
    return plan["changes"]


@_as_salts
def pipeline(commands, connection=None):
    """
    Run several commands in one round trip and return their replies.

    commands
        List of commands, each a list of words.
    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError for the first reply that is an error.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.pipeline '[["CONFIG", "GET", "bind"], ["ACL", "WHOAMI"]]'
    """
    return sessions.answered(_session(connection), commands)


@_as_salts
def server(connection=None):
    """
    Return what a server reports about itself: product, version, config_file, aclfile, process_id.

    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server cannot be asked or is too old.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.server
    """
    session = _session(connection)
    return {key: session[key] for key in ("product", "version", "config_file", "aclfile", "process_id", "whoami")}


@_as_salts
def disconnect():
    """
    Close all connections of this run, so that the next function logs in again.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.disconnect
    """
    sessions.close_all(__context__)
    return True


# --- Connection ------------------------------------------------------------------------------------------


def _session(connection):
    layers = (__opts__.get("valkey"), __pillar__.get("valkey"))
    return sessions.opened(__context__, connection, layers, _from_pillar)


def _from_pillar(path):
    return pillar.value(__pillar__, path)


def _one(connection, *command):
    (reply,) = sessions.answered(_session(connection), [list(command)])
    return reply


def _delete_own(session, name):
    """Delete the user of the connection and save, in one transaction: the server hangs up within it."""
    try:
        sessions.transaction(session, [["ACL", "DELUSER", name], sessions.save_command(session)])
    except errors.RefusedError:
        pass  # cut off, and not let in again: the user is gone
    else:
        raise errors.ServerError(f"The server did not delete the ACL user {name}.")
    sessions.close_all(__context__)
    path = session["aclfile"] or session["config_file"]
    if _is_local(session) and name in _file_lines(session, path)["users"]:
        raise errors.ServerError(f"The ACL user {name} is deleted, but the server did not save that in {path}.")
    return True


# --- What the server holds -------------------------------------------------------------------------------


def _list_lines(session):
    """The server's users as it writes them, a line each. Keeps the names of scratch users that a crash left."""
    (lines,) = sessions.pipeline(session, [["ACL", "LIST"]])
    replies.check(lines, f"The user {session['whoami']} may not list ACL users")
    names = [line.split(" ", 2)[1] for line in lines]
    session["stray"] = sorted(name for name in names if name.startswith(acl_users.SCRATCH_PREFIX))
    return lines


def _read_all(session):
    """Lines and users that the server holds now."""
    lines = _list_lines(session)
    return lines, dict(acl_rules.parse_line(line) for line in lines)


def _read(session, names):
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


def _stray(session):
    """Scratch users that a crash left. Those of a transaction are never visible: one look in a run is enough."""
    if "stray" not in session:
        _list_lines(session)
    return session["stray"]


def _command_table(session):
    if "table" not in session:
        (reply,) = sessions.pipeline(session, [["COMMAND"]])
        replies.check(reply, "The server refused COMMAND")
        session["table"] = acl_commands.table(reply)
    return session["table"]


def _command_info(session, names):
    """The table of some commands. Those the server does not know are not in it."""
    if "table" in session:
        return session["table"]
    (reply,) = sessions.pipeline(session, [["COMMAND", "INFO", *sorted(set(names))]])
    replies.check(reply, "The server refused COMMAND INFO")
    return acl_commands.table(reply)


def _forgets_sanitizing(session):
    """Valkey 9.1.2 takes the words about payloads and holds nothing of them; others show one of the two for default."""
    (reply,) = sessions.pipeline(session, [["ACL", "GETUSER", "default"]])
    replies.check(reply, f"The user {session['whoami']} may not read ACL users")
    return not any(flag.endswith("sanitize-payload") for flag in replies.pairs(reply)["flags"])


# --- Plan ------------------------------------------------------------------------------------------------


def _plan(session, users, remove, remove_unlisted, scratch):
    """What to send, what it changes, and what speaks against it."""
    acl_users.check(users)
    ours = None if remove_unlisted else [*(user["name"] for user in users), *(remove or [])]
    lines, current = _read_all(session) if ours is None else (None, _read(session, ours))
    stray = _stray(session)
    declared = {user["name"]: _definition(user, current.get(user["name"])) for user in users}
    if any(not user["sanitize"] for user in declared.values()) and _forgets_sanitizing(session):
        for user in declared.values():
            user["sanitize"] = True

    def commands():
        return _command_table(session)

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
        judged = _judged(session, users, new_rules, scratch)
    problems = [*judged["problems"], *_lockout_problems(session, declared, current, changed, removed)]
    unsaved = bool(stray) or _unsaved(session, lines, current, ours)
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


def _definition(user, current):
    """The definition that a user should have: what is declared, over what there is."""
    try:
        return acl_users.definition(user, current, passwords.declared(user, _from_pillar))
    except errors.ValkeyError as err:
        raise type(err)(f"The ACL user {user['name']}: {err}") from err


def _lockout_problems(session, declared, current, changed, removed):
    own = session["whoami"]
    if "default" in removed:
        return ["The server does not let the user default be removed; it can be disabled instead."]
    if own in removed:
        return [f"{own} is the user of the connection itself: log in as another user to remove it."]
    if own not in changed:
        return []
    hashes = _own_hashes(session)
    if acl_users.accepts(current[own], hashes) and not acl_users.accepts(declared[own], hashes):
        return [
            f"The connection logs in as {own}, whose password would be another one: list a second connection with that."
        ]
    if acl_users.manages_users(declared[own], _command_table(session)):
        return []
    return [f"The connection is logged in as {own}, who could manage no ACL users afterwards: log in as another user."]


def _own_hashes(session):
    """The SHA-256 of the passwords of the connections that log in as the session's user."""
    own = [each for each in session["candidates"] if arguments_of.username(each) == session["whoami"]]
    return set().union(*map(_candidate_hashes, own))


def _candidate_hashes(candidate):
    try:
        password = arguments_of.password(candidate, _from_pillar)
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


# --- Rules, judged by the server -------------------------------------------------------------------------


def _judged(session, users, new_rules, scratch):
    """
    ``problems``, sentences about allows and denies that do not hold and about rules that the server does not take;
    ``broken``, users whose allows and denies do not hold; ``unchecked``, users whose allows and denies were not judged.

    ``ACL DRYRUN`` takes only a user that exists. For new rules (``new_rules``, by name) that is a scratch user; where
    there may be none, the commands and categories in them are looked up, no more.
    """
    assertions = {user["name"]: acl_assertions.of(user) for user in users}
    asked = sorted({words[0] for pairs in assertions.values() for words, _ in pairs})
    table = _command_info(session, asked) if asked else {}
    subjects = [
        _subject(name, pairs, table, new_rules.get(name))
        for name, pairs in assertions.items()
        if (scratch if name in new_rules else pairs)
    ]
    broken = {}
    for subject, denials in zip(subjects, _dry_runs(session, subjects)):
        rest = iter(denials)
        found = [[next(rest) for _ in span] for span in subject["spans"]]
        broken[subject["user"]] = acl_assertions.broken(subject["user"], subject["pairs"], found)
    unknown = [] if scratch else _unknown_names(session, new_rules)
    return {
        "problems": [*itertools.chain.from_iterable(broken.values()), *unknown],
        "broken": [name for name, sentences in broken.items() if sentences],
        "unchecked": [name for name, pairs in assertions.items() if pairs and name in new_rules and not scratch],
    }


def _subject(name, pairs, table, new_rules):
    """A user to ask ACL DRYRUN about: the one that there is, or a scratch user with the new rules."""
    spans = [acl_assertions.lines(words, table) for words, _ in pairs]
    return {
        **(_scratch(new_rules) if new_rules else {"name": name, "set": None}),
        "user": name,
        "pairs": pairs,
        "spans": spans,
        "lines": [line for span in spans for line in span],
    }


def _scratch(user):
    """A disabled user without a password and with the same rules, for ACL DRYRUN."""
    name = acl_users.SCRATCH_PREFIX + secrets.token_hex(8)
    return {"name": name, "set": ["reset", "off", *acl_rules.user_rules(user)]}


def _dry_runs(session, subjects):
    """
    For each subject the reasons why its lines are denied, "" where one is allowed.

    A scratch user is made and removed within one transaction: no other client ever sees it, no file can hold it.
    """
    if not subjects:
        return []
    commands = []
    for subject in subjects:
        if subject["set"]:
            commands.append(["ACL", "SETUSER", subject["name"], *subject["set"]])
        commands += [["ACL", "DRYRUN", subject["name"], *line["words"]] for line in subject["lines"]]
        if subject["set"]:
            commands.append(["ACL", "DELUSER", subject["name"]])
    answers = iter(sessions.transaction(session, commands))
    return [_subject_denials(subject, answers) for subject in subjects]


def _subject_denials(subject, answers):
    refused = next(answers) if subject["set"] else None
    denied = [next(answers) for _ in subject["lines"]]
    if subject["set"]:
        next(answers)
    replies.check(refused, f"The server does not take the rules of {subject['user']}")
    return [acl_assertions.denial(line, reply) for line, reply in zip(subject["lines"], denied)]


def _unknown_names(session, new_rules):
    return [
        f"The server does not take the rules of {name}: it knows no {unknown}."
        for name, user in new_rules.items()
        for unknown in acl_commands.unknown(user, _command_table(session))
    ]


# --- Saving ----------------------------------------------------------------------------------------------


def _unsaved(session, lines, current, names):
    """
    Whether the file from which the server takes its users at its next start differs from its memory, in
    some users or, if names is None, in any; only then the lines of memory are looked at.

    Only a file on this host can be read; of a server elsewhere nothing is claimed.
    """
    path = session["aclfile"] or session["config_file"]
    if not path or not _is_local(session):
        return False
    try:
        in_file = _file_lines(session, path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if names is None and set(in_file["users"].values()) == set(lines):
        return False
    saved = acl_file.users_of(in_file, names, bool(session["aclfile"]))
    names = set(saved) | set(current) if names is None else names
    if any((name in saved) != (name in current) for name in names):
        return True
    saved = {name: saved[name] for name in names if name in saved}
    return bool(acl_users.changed(saved, current, lambda: _command_table(session)))


def _file_lines(session, path):
    """
    The lines of a file that are about users, as of ``acl_file.lines_of``.

    They are kept as long as the file is the one that was read. A file that has changed just now could change again
    without its time stamps moving, and is not kept.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        status = os.fstat(stream.fileno())
        stamp = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        stamp_known, lines = session.get("file", (None, None))
        if stamp == stamp_known:
            return lines
        lines = acl_file.lines_of(stream)
    if time.time() - status.st_ctime > FILE_STAMP_SECONDS:
        session["file"] = stamp, lines
    return lines


def _is_local(session):
    """Whether the server runs on this host and sees the same files."""
    if "local" not in session:
        session["local"] = _runs_here(session)
    return session["local"]


def _runs_here(session):
    if not session["unix_socket"] and not addresses.is_own(session["host"]):
        return False
    try:
        with open(f"/proc/{session['process_id']}/comm", encoding="utf-8") as stream:
            command = stream.read().strip()
    except OSError:
        return False
    return command == os.path.basename(session["executable"])[:15]
