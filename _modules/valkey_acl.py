"""
Manage the ACL users of Valkey and Redis.

What a user may do is compared by meaning: rules are read the way the server reads them, so that
``+get +get``, ``%RW~a`` and ``~a`` or two orders of the same rules are no difference. Passwords reach
the server only as SHA-256.

:depends: redis (redis-py) 5.0 or newer
:servers: Valkey 7.2 to 9, Redis 7 to 8

.. _valkey-connection:

**Connection.** Each function takes ``connection``, a dictionary that is merged over the ``valkey`` key of the pillar,
and that over the same key of the minion's configuration, or a list of dictionaries, tried in turn until the server
accepts one's credentials. A layer that has one kind of password or of address replaces the other kinds below it. Its
keys, all optional:

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

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import pillar
from valkey_core import acl_assertions, acl_judging, acl_plan, acl_reading, acl_saving, acl_users, errors, replies
from valkey_core import session as sessions

__virtualname__ = "valkey_acl"
__func_alias__ = {"list_": "list", "set_": "set"}

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
    user = acl_reading.read(session, [name]).get(name)
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
    users = acl_reading.read_all(_session(connection))[1]
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
    if name not in acl_reading.read(session, [name]):
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
        subject = {
            "user": name,
            **acl_judging.scratch(acl_plan.definition({"name": name, "rules": rules}, None, _from_pillar)),
        }
    else:
        if name not in acl_reading.read(session, [name]):
            raise errors.ServerError(f"There is no ACL user {name}.")
        subject = {"user": name, "name": name, "set": None}
    words = acl_assertions.words(command)
    subject["lines"] = acl_assertions.lines(words, acl_reading.command_info(session, [words[0]]))
    (denials,) = acl_judging.dry_runs(session, [subject])
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
    plan = acl_plan.plan(_session(connection), users, remove, remove_unlisted, scratch, _from_pillar)
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
    plan = acl_plan.plan(session, users, remove, remove_unlisted, True, _from_pillar)
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
        pass  # disconnected, and the login refused: the user is deleted
    else:
        raise errors.ServerError(f"The server did not delete the ACL user {name}.")
    sessions.close_all(__context__)
    path = session["aclfile"] or session["config_file"]
    if acl_saving.is_local(session) and name in acl_saving.file_lines(session, path)["users"]:
        raise errors.ServerError(f"The ACL user {name} is deleted, but the server did not save that in {path}.")
    return True
