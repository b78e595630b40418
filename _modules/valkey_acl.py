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
server accepts one's credentials. A layer that says one kind of password or of address takes the place of the other
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

import fnmatch
import hashlib
import os
import re
import secrets
import socket
import time

import salt.utils.data
from salt.exceptions import CommandExecutionError, SaltInvocationError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    REDIS_VERSION = tuple(int(part) for part in re.findall(r"\d+", redis.__version__)[:2])
except ImportError:
    REDIS_VERSION = None

__virtualname__ = "valkey_acl"
__func_alias__ = {"list_": "list", "set_": "set"}

SCRATCH_PREFIX = "salt-scratch-"
# What the server takes for a blank (isspace() of C), which other spaces of Unicode are not.
BLANKS = re.compile(r"\s+", re.ASCII)
# After this time no file system gives a changed file the time stamp that it had before.
FILE_STAMP_SECONDS = 2
MINIMUM = {"Valkey": (7, 2), "Redis": (7, 0)}
# db=, alldbs and resetdbs: https://github.com/valkey-io/valkey/pull/2309. Redis has nothing like it.
DATABASE_RULES = (9, 1)
PASSWORD_SOURCES = ("password", "password_pillar", "password_file")
ADDRESSES = ("host", "unix_socket")
CONNECTION_KEYS = {
    *ADDRESSES,
    "port",
    "username",
    *PASSWORD_SOURCES,
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "timeout",
}
USER_KEYS = {
    "name",
    "enabled",
    "password",
    "password_pillar",
    "password_file",
    "password_hash",
    "nopass",
    "keep_passwords",
    "rules",
    "allows",
    "denies",
}
# More users than these are not read one by one, but from the list of all.
SINGLE_LOOKS = 20
# What ACL GETUSER says in the words of rules, of a user and of each of its selectors.
REPLY_RULES = ("keys", "channels", "databases", "commands")
# What a user needs who manages ACL users: taken from the login that a connection uses, it locks us out.
INDISPENSABLE = {"acl|getuser", "acl|list", "acl|setuser", "acl|whoami"}


class UnreachableError(CommandExecutionError):
    """Nothing answers where the server should be. States tell it apart under ``test=True``."""

    unreachable = True


class BusyError(CommandExecutionError):
    """The server runs a script that does not end, and answers nothing else until ``remedy`` is called."""

    def __init__(self, where, reply):
        # The reply names what ends it: "BUSY … You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        self.remedy = "FUNCTION KILL" if "FUNCTION KILL" in reply else "SCRIPT KILL"
        super().__init__(
            f"{where} is busy with a script and answers nobody else. End it as its administrator: {self.remedy}. Where"
            " that replies UNKILLABLE, the script has written, and only SHUTDOWN NOSAVE or a restart of the service"
            " ends it."
        )


class _RefusedError(CommandExecutionError):
    """The server answers and does not accept the credentials."""


def __virtual__():
    if REDIS_VERSION is None:
        return False, "The Python library redis is missing."
    if REDIS_VERSION < (5, 0):
        return False, "The Python library redis is older than 5.0."
    return __virtualname__


# --- Execution functions ---------------------------------------------------------------------------------


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
    return user and _described(user)


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
    return {name: _described(user) for name, user in users.items()}


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
        ``[GET, "a key"]``; without arguments it is about the command whatever its arguments. Checked with
        ``ACL DRYRUN`` before the old rules are replaced. Defaults to none.
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


def dry_run(name, command, rules=None, connection=None):
    """
    Tell whether a user may run a command, without running it.

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
        subject = _scratch(_declared({"name": name, "rules": rules}, None))
    else:
        if name not in _read(session, [name]):
            raise CommandExecutionError(f"There is no ACL user {name}.")
        subject = {"name": name, "set": None}
    words = _words(command)
    table = _command_info(session, [words[0]])
    subject["lines"] = _dry_run_lines(words, table)
    (denials,) = _dry_runs(session, [subject])
    refusals = [denial for denial in denials if denial]
    return {"allowed": not refusals, "reason": refusals[0] if refusals else ""}


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


def log(count=10, reset=False, connection=None):
    """
    Return what the server denied lately, the newest first.

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
    entries = [_pairs(entry) for entry in _one(connection, "ACL", "LOG", count)]
    if reset:
        _one(connection, "ACL", "LOG", "RESET")
    return entries


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
    _raise(_pipeline(session, [_save_command(session)])[0], "The server could not save its ACL users")
    return True


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


def compare(users, remove=None, remove_unlisted=False, scratch=True, connection=None):
    """
    Tell what would have to change for the users to be as declared; changes nothing.

    users
        List of dictionaries with ``name`` and the arguments of :py:func:`set_`.
    remove
        Names of users that should not be. Defaults to none.
    remove_unlisted
        Whether users that are not in the list should not be, apart from ``default`` and the user that the
        connection is logged in as. Defaults to false.
    scratch
        Whether a scratch user may serve to check new rules on the server; it lives within one transaction.
        Without it they are checked as far as the formula knows the server's rules. Defaults to true.
    connection
        See :ref:`valkey-connection`.

    Returns a dictionary: ``changes`` by user; ``problems``, sentences that speak against applying it;
    ``unsaved``, whether memory and file differ about them; ``kept``, unlisted users that stay although
    ``remove_unlisted`` is set.
    Raises SaltInvocationError for what is not ACL grammar, CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.compare '[{"name": "alice", "rules": "~app:* +@read"}]'
    """
    plan = _plan(_session(connection), users, remove, remove_unlisted, scratch)
    return {key: plan[key] for key in ("changes", "problems", "unsaved", "kept")}


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
        raise CommandExecutionError(" ".join(plan["problems"]))
    if not plan["changes"] and not plan["unsaved"] and not plan["stray"]:
        return {}
    save_command = _save_command(session)
    # Saved once before: a full disk or a folder that the server may not write to shows while nothing is changed.
    # Scratch users that a crash left go first, they must never be in a file.
    sweep = [["ACL", "DELUSER", *plan["stray"]]] if plan["stray"] else []
    for reply in _pipeline(session, [*sweep, save_command]):
        _raise(reply, "The server cannot save its ACL users, so nothing was changed")
    session["stray"] = []
    if not plan["changes"]:
        return {}
    replies = _transaction(session, [*plan["commands"], save_command])
    failures = [reply for reply in replies if isinstance(reply, Exception)]
    if failures:
        _transaction(session, [*plan["undo"], save_command])
        raise CommandExecutionError(
            f"The server could not set and save its ACL users, so they are as they were: {failures[0]}."
        )
    return plan["changes"]


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
    replies = _pipeline(_session(connection), commands)
    for command, reply in zip(commands, replies):
        _raise(reply, f"The server refused {' '.join(command[:2])}")
    return replies


def server(connection=None):
    """
    Return what the server says about itself: product, version, config_file, aclfile, process_id.

    connection
        See :ref:`valkey-connection`.

    Raises CommandExecutionError if the server cannot be asked or is too old.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.server
    """
    session = _session(connection)
    return {key: session[key] for key in ("product", "version", "config_file", "aclfile", "process_id", "whoami")}


def disconnect():
    """
    Close all connections of this run, so that the next function logs in anew.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_acl.disconnect
    """
    for key in [key for key in __context__ if str(key).startswith("valkey_acl.session ")]:
        __context__.pop(key)["client"].close()
    return True


# --- Connection ------------------------------------------------------------------------------------------


def _session(connection):
    """The open connection to a target, and what stays the same about its server during a run."""
    candidates = [_merged(one) for one in (connection if isinstance(connection, list) else [connection])]
    key = "valkey_acl.session " + hashlib.sha256(repr([sorted(c.items()) for c in candidates]).encode()).hexdigest()
    if key not in __context__:
        __context__[key] = _open_first(candidates)
    return __context__[key]


def _merged(connection):
    # config.get masks what it takes from the pillar, since Salt 3008.
    merged = {}
    for layer in (__opts__.get("valkey"), __pillar__.get("valkey"), connection):
        said = layer or {}
        for ways in (PASSWORD_SOURCES, ADDRESSES):
            if any(said.get(way) is not None for way in ways):
                merged = {key: value for key, value in merged.items() if key not in ways}
        merged.update(said)
    unknown = sorted(set(merged) - CONNECTION_KEYS)
    if unknown:
        raise SaltInvocationError(f"Unknown connection settings: {', '.join(unknown)}.")
    return merged


def _open_first(candidates):
    refusals = []
    for candidate in candidates:
        try:
            return {**_open(candidate), "candidates": candidates}
        except _RefusedError as err:
            refusals.append(str(err))
    error = CommandExecutionError(" ".join(dict.fromkeys(refusals)))
    error.refused = True
    raise error


def _open(connection):
    where = _where(connection)
    username = connection.get("username") or "default"
    client = redis.Redis(**_client_arguments(connection))
    # Replies as the protocol has them: the same in all versions of the library.
    client.response_callbacks.clear()
    session = {
        "client": client,
        "where": where,
        "unix_socket": connection.get("unix_socket"),
        "host": connection.get("host") or "127.0.0.1",
    }
    try:
        replies = _pipeline(
            session,
            [["ACL", "WHOAMI"], ["INFO", "server"], ["CONFIG", "GET", "aclfile"]],
        )
    except _RefusedError as err:
        if "protected mode" in str(err):
            raise _RefusedError(f"{where} is in protected mode and lets in nobody but its own host.") from err
        raise _RefusedError(f"{where} does not accept the credentials of the user {username}.") from err
    if any(isinstance(reply, redis.exceptions.AuthenticationError) for reply in replies):
        raise _RefusedError(f"{where} does not accept the user {username} without a password.")
    who, info, aclfile = replies
    _raise(info, f"The user {username} may not run INFO at {where}")
    info = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    session.update(_product(info, where))
    _raise(who, f"The user {username} cannot manage ACL users at {where}")
    _raise(aclfile, f"The user {username} may not run CONFIG GET at {where}")
    session.update(
        whoami=who,
        aclfile=_pairs(aclfile).get("aclfile", ""),
        config_file=info.get("config_file", ""),
        process_id=int(info.get("process_id", 0)),
        executable=info.get("executable", ""),
    )
    return session


def _where(connection):
    if connection.get("unix_socket"):
        return f"Valkey at {connection['unix_socket']}"
    return f"Valkey at {connection.get('host') or '127.0.0.1'}:{connection.get('port') or 6379}"


def _client_arguments(connection):
    timeout = float(connection.get("timeout") or 5)
    arguments = {
        "username": connection.get("username") or None,
        "password": _connection_password(connection),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "encoding": "utf-8",
        "encoding_errors": "surrogateescape",
        "decode_responses": True,
        "max_connections": 1,
        "protocol": 2,
        # A server that closed the connection meanwhile (its `timeout`) is asked once more on a new one;
        # everything sent here may be sent twice.
        "retry": Retry(NoBackoff(), 1),
    }
    if connection.get("unix_socket"):
        return {**arguments, "unix_socket_path": connection["unix_socket"]}
    arguments.update(host=connection.get("host") or "127.0.0.1", port=int(connection.get("port") or 6379))
    if connection.get("tls"):
        arguments.update(
            ssl=True,
            ssl_ca_certs=connection.get("tls_ca"),
            ssl_certfile=connection.get("tls_cert"),
            ssl_keyfile=connection.get("tls_key"),
        )
    return arguments


def _connection_password(connection):
    if connection.get("password"):
        return str(connection["password"])
    if connection.get("password_pillar"):
        return _connection_pillar_password(connection["password_pillar"])
    if connection.get("password_file"):
        return _file_password(connection["password_file"])
    return None


def _connection_pillar_password(path):
    try:
        return _pillar_passwords(path)[0]
    except SaltInvocationError as err:
        raise _RefusedError(str(err)) from err


def _pipeline(session, commands):
    """Replies of commands sent in one round trip; errors of single commands are among them."""
    pipe = session["client"].pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    try:
        replies = pipe.execute(raise_on_error=False)
    except redis.exceptions.AuthenticationError as err:
        raise _RefusedError(f"{session['where']} does not accept the credentials.") from err
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as err:
        # The text of the library's error holds addresses and system errors, no credentials.
        raise UnreachableError(f"{session['where']} cannot be reached: {err}") from err
    except redis.exceptions.ResponseError as err:
        raise _RefusedError(f"{session['where']} refuses the connection: {err}") from err
    busy = next((str(reply) for reply in replies if _is_busy(reply)), None)
    if busy:
        raise BusyError(session["where"], busy)
    return replies


def _transaction(session, commands):
    replies = _pipeline(session, [["MULTI"], *commands, ["EXEC"]])
    for reply in replies[:-1]:
        _raise(reply, "The server refused a command")
    _raise(replies[-1], "The server refused a transaction")
    return replies[-1]


def _delete_own(session, name):
    """Delete the user of the connection and save, in one transaction: the server hangs up within it."""
    try:
        _transaction(session, [["ACL", "DELUSER", name], _save_command(session)])
    except _RefusedError:
        pass  # cut off, and not let in again: the user is gone
    else:
        raise CommandExecutionError(f"The server did not delete the ACL user {name}.")
    disconnect()
    path = session["aclfile"] or session["config_file"]
    if _is_local(session) and name in _file_lines(session, path)["users"]:
        raise CommandExecutionError(f"The ACL user {name} is deleted, but the server did not save that in {path}.")
    return True


def _is_busy(reply):
    return isinstance(reply, redis.exceptions.ResponseError) and str(reply).startswith("BUSY ")


def _raise(reply, sentence):
    if isinstance(reply, Exception):
        raise CommandExecutionError(f"{sentence}: {reply}.")


def _one(connection, *command):
    (reply,) = pipeline([list(command)], connection)
    return reply


def _pairs(flat):
    if isinstance(flat, dict):
        return flat
    return dict(zip(flat[::2], flat[1::2]))


def _product(info, where):
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if _numbers(version) < MINIMUM[product]:
        raise CommandExecutionError(
            f"{product} {version} at {where.split(' at ', 1)[1]} is too old: Valkey 7.2 or Redis 7.0 is the least."
        )
    return {"product": product, "version": version}


def _numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


# --- Passwords -------------------------------------------------------------------------------------------


def _pillar_passwords(path):
    # pillar.get returns asterisks to modules, since Salt 3008.
    found = salt.utils.data.traverse_dict_and_list(__pillar__, path, None, delimiter=":")
    found = found if isinstance(found, list) else [found]
    if not found or not all(isinstance(one, str) and one for one in found):
        raise SaltInvocationError(f"The pillar has no password at {path}.")
    return found


def _file_password(path):
    try:
        with open(path, encoding="utf-8") as stream:
            password = stream.read().rstrip("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise _RefusedError(f"The password file {path} cannot be read.") from err
    if not password:
        raise _RefusedError(f"The password file {path} is empty.")
    return password


def _hash(password):
    if not isinstance(password, str) or not password:
        raise SaltInvocationError("A password must be a string that is not empty.")
    return hashlib.sha256(password.encode()).hexdigest()


def _as_list(value):
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _declared_hashes(user):
    """The SHA-256 of each declared password, or None if none is declared."""
    sources = ("password", "password_pillar", "password_file", "password_hash")
    if all(user.get(source) is None for source in sources):
        return None
    hashes = {_hash(password) for password in _as_list(user.get("password"))}
    for path in _as_list(user.get("password_pillar")):
        hashes.update(_hash(password) for password in _pillar_passwords(path))
    hashes.update(_hash(_file_password(path)) for path in _as_list(user.get("password_file")))
    for one in _as_list(user.get("password_hash")):
        hashes.add(_checked_hash(one))
    return hashes


def _checked_hash(text):
    text = str(text).lstrip("#").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise SaltInvocationError("A password hash must be 64 hexadecimal digits (SHA-256).")
    return text


# --- The grammar of ACL rules ----------------------------------------------------------------------------
# After ACLSetUser and ACLSetSelector in the server's src/acl.c. A user is plain data, in a normal form.


def _new_user():
    return {
        "enabled": False,
        "nopass": False,
        "passwords": set(),
        "sanitize": True,
        "selectors": [_new_selector()],
    }


def _new_selector():
    return {"keys": {}, "channels": set(), "dbs": None, "all": False, "commands": []}


def _parse(tokens, user=None):
    """The user that the server would hold after these rules; the first selector is the root one."""
    user = user or _new_user()
    for position, token in enumerate(tokens, 1):
        try:
            _apply_user_rule(user, token)
        except ValueError as err:
            # The piece of a password with a blank must not be in a message.
            secret = any(one[:1] in "><" for one in tokens)
            shown = f"number {position}" if secret else f"{token!r}"
            raise SaltInvocationError(f"The rule {shown} is not ACL grammar: {err}.") from None
    return user


def _apply_user_rule(user, token):
    word, sign = token.lower(), token[:1]
    if word in ("on", "off"):
        user["enabled"] = word == "on"
    elif word == "nopass":
        user["nopass"] = True
        user["passwords"] = set()
    elif word == "resetpass":
        user["nopass"] = False
        user["passwords"] = set()
    elif word in ("sanitize-payload", "skip-sanitize-payload"):
        user["sanitize"] = word == "sanitize-payload"
    elif word == "reset":
        user.update(_new_user())
    elif word == "clearselectors":
        del user["selectors"][1:]
    elif sign in ("#", ">"):
        user["passwords"].add(_checked_hash(token) if sign == "#" else _hash(token[1:]))
        user["nopass"] = False
    elif sign in ("!", "<"):
        user["passwords"].discard(_checked_hash(token[1:]) if sign == "!" else _hash(token[1:]))
    elif sign == "(":
        selector = _new_selector()
        for inner in _split(token[1:-1]):
            _apply_selector_rule(selector, inner)
        user["selectors"].append(selector)
    else:
        _apply_selector_rule(user["selectors"][0], token)


def _apply_selector_rule(selector, token):
    word, sign = token.lower(), token[:1]
    if sign in ("+", "-") and len(token) > 1:
        _apply_command_rule(selector, word)
    elif sign in ("~", "%"):
        _apply_key_rule(selector, token)
    elif sign == "&" and len(token) > 1:
        channels = selector["channels"] | {token[1:]}
        selector["channels"] = {"*"} if "*" in channels else channels
    elif word in _SELECTOR_WORDS:
        _SELECTOR_WORDS[word](selector)
    elif word.startswith("db="):
        _apply_database_rule(selector, word)
    else:
        raise ValueError("no such rule")


_SELECTOR_WORDS = {
    "allkeys": lambda selector: selector.update(keys={"*": "RW"}),
    "resetkeys": lambda selector: selector.update(keys={}),
    "allchannels": lambda selector: selector.update(channels={"*"}),
    "resetchannels": lambda selector: selector.update(channels=set()),
    "allcommands": lambda selector: selector.update(all=True, commands=[]),
    "nocommands": lambda selector: selector.update(all=False, commands=[]),
    "alldbs": lambda selector: selector.update(dbs=None),
    "resetdbs": lambda selector: selector.update(dbs=set()),
}


def _apply_command_rule(selector, rule):
    """Keep the order of rules; a later one for the same thing takes the place of the earlier one."""
    name = rule[1:]
    if name == "@all":
        selector.update(all=rule[0] == "+", commands=[])
        return
    nested = name + "|"
    kept = [one for one in selector["commands"] if one[1:] != name and not one[1:].startswith(nested)]
    selector["commands"] = [*kept, rule]


def _apply_key_rule(selector, token):
    head, tilde, pattern = token.partition("~")
    rights = "RW" if head == "" else head[1:].upper()
    if not tilde or not rights or set(rights) - set("RW"):
        raise ValueError("a key pattern is ~PATTERN, %R~PATTERN, %W~PATTERN or %RW~PATTERN")
    keys = dict(selector["keys"])
    keys[pattern] = "".join(sorted({*keys.get(pattern, ""), *rights}))
    selector["keys"] = {"*": "RW"} if keys.get("*") == "RW" else keys


def _apply_database_rule(selector, word):
    numbers = word[3:].split(",")
    if not all(number.isdigit() for number in numbers):
        raise ValueError("databases are db=NUMBER[,NUMBER...]")
    if selector["dbs"]:
        # Whether a second one adds or replaces is not the same in all versions of the server.
        raise ValueError("write one db= with all numbers")
    selector["dbs"] = {int(number) for number in numbers}


def _split(text):
    return [piece for piece in re.split(BLANKS, text) if piece]


def _tokens(rules):
    """Single rules of a string or list; what stands in parentheses is one."""
    pieces = []
    for item in [rules] if isinstance(rules, str) else rules or []:
        if not isinstance(item, str):
            raise SaltInvocationError("ACL rules must be strings.")
        pieces += [item] if item[:1] in ("<", ">") and not isinstance(rules, str) else _split(item)
    tokens, opened = [], []
    for piece in pieces:
        if opened or piece.startswith("("):
            opened.append(piece)
            if piece.endswith(")"):
                tokens.append(" ".join(opened))
                opened = []
        else:
            tokens.append(piece)
    if opened:
        raise SaltInvocationError("A parenthesis in the ACL rules is not closed.")
    return tokens


def _selector_rules(selector):
    keys = [
        f"~{pattern}" if rights == "RW" else f"%{rights}~{pattern}"
        for pattern, rights in sorted(selector["keys"].items())
    ]
    channels = ["resetchannels", *(f"&{pattern}" for pattern in sorted(selector["channels"]))]
    if selector["channels"] == {"*"}:
        channels = ["&*"]
    databases = []
    if selector["dbs"] is not None:
        databases = ["resetdbs"]
        if selector["dbs"]:
            databases = ["db=" + ",".join(str(number) for number in sorted(selector["dbs"]))]
    return [*keys, *channels, *databases, "+@all" if selector["all"] else "-@all", *selector["commands"]]


def _user_rules(user):
    """The rules of a user without flags and passwords, as the server would list them."""
    root, *others = user["selectors"]
    flags = [] if user["sanitize"] else ["skip-sanitize-payload"]
    return [*flags, *_selector_rules(root), *(f"({' '.join(_selector_rules(one))})" for one in others)]


def _setuser_arguments(user):
    passwords = ["nopass"] if user["nopass"] else [f"#{one}" for one in sorted(user["passwords"])]
    return ["reset", "on" if user["enabled"] else "off", *passwords, *_user_rules(user)]


def _parse_line(line):
    _, name, *rest = line.split(" ")
    return name, _parse(_tokens(" ".join(rest)))


# --- Comparison by meaning -------------------------------------------------------------------------------


def _meaning(user, commands):
    """Users of the same meaning can do the same. ``commands`` tells what is compared of a selector's commands."""
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


def _allowed(selector, table):
    """
    The commands and subcommands that the rules of a selector allow.

    After ACLSetSelectorCommandBitsForCategory and ACLChangeSelectorPerm in the server's src/acl.c: a rule for a
    command reaches its subcommands, also if only the command is in the category.
    """
    allowed = set(table) if selector["all"] else set()
    for rule in selector["commands"]:
        name = rule[1:]
        if name in table or name.startswith("@"):
            reached = _category_members(table, name) if name.startswith("@") else {name, *table[name]["subcommands"]}
            allowed = {one for one in allowed if one.partition("|")[0] not in reached or one in table} - reached
            allowed |= reached if rule[0] == "+" else set()
        else:
            allowed.add(name)  # a first argument, as in +select|1
    containers = {name for name, entry in table.items() if entry["subcommands"]}
    return frozenset(
        one
        for one in allowed
        if one not in containers and (one in table or "|" not in one or one.partition("|")[0] not in allowed)
    )


def _category_members(table, category):
    members = set()
    for name, entry in table.items():
        if category in entry["categories"]:
            members.update([name, *entry["subcommands"]])
    return members


def _command_table(session):
    if "table" not in session:
        (reply,) = _pipeline(session, [["COMMAND"]])
        _raise(reply, "The server refused COMMAND")
        session["table"] = _parsed_commands(reply)
    return session["table"]


def _command_info(session, names):
    """The table of some commands. Those the server does not know are not in it."""
    if "table" in session:
        return session["table"]
    (reply,) = _pipeline(session, [["COMMAND", "INFO", *sorted(set(names))]])
    _raise(reply, "The server refused COMMAND INFO")
    return _parsed_commands(reply)


def _parsed_commands(reply):
    table = {}
    for entry in reply:
        if not entry:
            continue
        subcommands = [one for one in (entry[9] if len(entry) > 9 else []) if one]
        table[entry[0].lower()] = {
            "arity": entry[1],
            "categories": frozenset(entry[6]),
            "subcommands": {one[0].lower() for one in subcommands},
        }
        table.update(_parsed_commands(subcommands))
    return table


# --- Plan ------------------------------------------------------------------------------------------------


def _list_lines(session):
    """The server's users as it writes them, a line each. Tells on the way whether a crash left scratch users."""
    (lines,) = _pipeline(session, [["ACL", "LIST"]])
    _raise(lines, f"The user {session['whoami']} may not list ACL users")
    session["stray"] = sorted(line.split(" ", 2)[1] for line in lines if line.startswith(f"user {SCRATCH_PREFIX}"))
    return lines


def _read_all(session):
    """Lines and users that the server holds now."""
    lines = _list_lines(session)
    return lines, dict(_parse_line(line) for line in lines)


def _read(session, names):
    """Of these users those that the server holds now."""
    if len(names) > SINGLE_LOOKS:
        lines = {line.split(" ", 2)[1]: line for line in _list_lines(session)}
        return dict(_parse_line(lines[name]) for name in names if name in lines)
    # What this takes does not grow with the number of the other users.
    replies = _pipeline(session, [["ACL", "GETUSER", name] for name in names])
    users = {}
    for name, reply in zip(names, replies):
        _raise(reply, f"The user {session['whoami']} may not read ACL users")
        if reply is not None:
            users[name] = _parse_reply(_pairs(reply))
    return users


def _parse_reply(reply):
    """The user that ACL GETUSER describes: in the words of rules, apart from passwords, which lack their sign."""
    user = _parse([*reply["flags"], *(f"#{one}" for one in reply["passwords"]), *_reply_rules(reply)])
    for other in reply["selectors"]:
        selector = _new_selector()
        for rule in _reply_rules(_pairs(other)):
            _apply_selector_rule(selector, rule)
        user["selectors"].append(selector)
    return user


def _reply_rules(reply):
    # A user of no database has nothing there, one of all of them `alldbs`; a server without databases says neither.
    databases = ["resetdbs"] if reply.get("databases") == "" else []
    return [*databases, *(rule for part in REPLY_RULES for rule in reply.get(part, "").split(" ") if rule)]


def _stray(session):
    """Scratch users that a crash left. Nobody ever sees those of a run that lives: one look in a run is enough."""
    if "stray" not in session:
        _list_lines(session)
    return session["stray"]


def _plan(session, users, remove, remove_unlisted, scratch):
    """What to send, what it changes, and what speaks against it."""
    _check_users(users)
    ours = None if remove_unlisted else [*(user["name"] for user in users), *(remove or [])]
    lines, current = _read_all(session) if ours is None else (None, _read(session, ours))
    stray = _stray(session)
    declared = {user["name"]: _declared(user, current.get(user["name"])) for user in users}
    if any(not user["sanitize"] for user in declared.values()) and _forgets_sanitizing(session):
        for user in declared.values():
            user["sanitize"] = True
    changed = _changed(session, declared, current)
    removed, kept = _removed(session, declared, current, remove, remove_unlisted)
    changes = {name: _change(session, current.get(name), declared[name]) for name in changed}
    changes.update({name: {"old": _shown(current[name]), "new": None} for name in removed})
    problems = _database_problems(session, declared, changed)
    problems = problems or _promise_problems(session, users, declared, changed, scratch)
    problems += _lockout_problems(session, declared, current, changed, removed)
    unsaved = bool(stray) or _unsaved(session, lines, current, ours)
    if (changes or unsaved) and not (session["aclfile"] or session["config_file"]):
        problems.append(
            f"{session['where']} has neither an ACL file nor a configuration file: a restart would forget the users."
            " Start it with one of them."
        )
    return {
        "changes": changes,
        "problems": problems,
        "unsaved": unsaved,
        "kept": kept,
        "stray": stray,
        "commands": [
            *(["ACL", "SETUSER", name, *_setuser_arguments(declared[name])] for name in changed),
            *(["ACL", "DELUSER", name] for name in removed),
        ],
        "undo": [
            ["ACL", "SETUSER", name, *_setuser_arguments(current[name])]
            if name in current
            else ["ACL", "DELUSER", name]
            for name in [*changed, *removed]
        ],
    }


def _check_users(users):
    names = set()
    for user in users:
        name = user.get("name")
        if not isinstance(name, str) or not name or re.search(r"[\s\0]", name, re.ASCII):
            raise SaltInvocationError("An ACL user needs a name without blanks.")
        if name.startswith(SCRATCH_PREFIX):
            raise SaltInvocationError(f"Names that begin with {SCRATCH_PREFIX} are reserved.")
        if name in names:
            raise SaltInvocationError(f"The ACL user {name} is listed twice.")
        unknown = sorted(set(user) - USER_KEYS)
        if unknown:
            raise SaltInvocationError(f"The ACL user {name} has unknown settings: {', '.join(unknown)}.")
        for key in ("enabled", "nopass"):
            # A text such as "false" would count as true.
            if not isinstance(user.get(key), (bool, type(None))):
                raise SaltInvocationError(f"The ACL user {name}: {key} is true or false, not {user[key]!r}.")
        names.add(name)


def _declared(user, current):
    """The definition that a user should have: what is declared, over what there is."""
    try:
        return _merged_definition(user, current or _new_user())
    except (SaltInvocationError, CommandExecutionError) as err:
        raise type(err)(f"The ACL user {user['name']}: {err}") from err


def _merged_definition(user, current):
    tokens = _tokens(user.get("rules"))
    target = _parse(tokens)
    if user.get("rules") is None:
        target.update(sanitize=current["sanitize"], selectors=current["selectors"])
    if not {"on", "off"} & {token.lower() for token in tokens}:
        enabled = user.get("enabled", True)
        target["enabled"] = current["enabled"] if enabled is None else bool(enabled)
    hashes, nopass = _declared_hashes(user), user.get("nopass")
    if nopass and (hashes or target["passwords"]):
        raise SaltInvocationError("nopass and a password exclude each other.")
    if nopass and user.get("keep_passwords"):
        raise SaltInvocationError("nopass and keep_passwords exclude each other.")
    if nopass or hashes:
        kept = current["passwords"] if user.get("keep_passwords") else set()
        target.update(nopass=bool(nopass), passwords=target["passwords"] | (hashes or set()) | kept)
    elif nopass is None and not target["nopass"] and not target["passwords"]:
        target.update(nopass=current["nopass"], passwords=set(current["passwords"]))
    return target


def _changed(session, declared, current):
    """Names of declared users that differ in meaning. The server's table is asked for only where texts differ."""
    differing = [name for name, user in declared.items() if not _same(user, current.get(name), _command_text)]
    if not any(_same(declared[name], current.get(name), lambda selector: None) for name in differing):
        return differing
    table = _command_table(session)
    return [
        name
        for name in differing
        if not _same(declared[name], current.get(name), lambda selector: _allowed(selector, table))
    ]


def _same(user, other, commands):
    return other is not None and _meaning(user, commands) == _meaning(other, commands)


def _same_rules(session, user, other):
    table = _command_table(session)
    flags = {key: other[key] for key in ("enabled", "nopass", "passwords")}
    return _same({**user, **flags}, other, lambda selector: _allowed(selector, table))


def _removed(session, declared, current, remove, remove_unlisted):
    removed = [name for name in remove or [] if name in current]
    if not remove_unlisted:
        return removed, []
    unlisted = {name for name in current if name not in declared and not name.startswith(SCRATCH_PREFIX)}
    kept = unlisted & {"default", session["whoami"]}
    return sorted(set(removed) | unlisted - kept), sorted(kept)


def _described(user):
    return {
        "enabled": user["enabled"],
        "nopass": user["nopass"],
        "passwords": len(user["passwords"]),
        "rules": " ".join(_user_rules(user)),
    }


def _shown(user):
    return {"enabled": user["enabled"], "nopass": user["nopass"], "rules": " ".join(_user_rules(user))}


def _change(session, old, new):
    """Old and new of what differs in meaning. Of passwords only that they do."""
    if old is None:
        password = {"password": "changed"} if new["passwords"] else {}
        return {"old": None, "new": {**_shown(new), **password}}
    before, after = _shown(old), _shown(new)
    keys = [key for key in before if before[key] != after[key]]
    if "rules" in keys and _same_rules(session, old, new):  # Redis 7.0 tells them in other words than they were given
        keys.remove("rules")
    change = {"old": {key: before[key] for key in keys}, "new": {key: after[key] for key in keys}}
    if old["passwords"] != new["passwords"]:
        change["new"]["password"] = "changed"
    return change


def _lockout_problems(session, declared, current, changed, removed):
    own = session["whoami"]
    if "default" in removed:
        return ["The server does not let the user default be removed; it can be disabled instead."]
    if own in removed:
        return [f"{own} is the user of the connection itself: log in as another user to remove it."]
    if own not in changed:
        return []
    if _lets_in(session, current[own]) and not _lets_in(session, declared[own]):
        return [
            f"The connection logs in as {own}, whose password would be another one: list a second connection with that."
        ]
    table = _command_table(session)
    allowed = frozenset().union(*(_allowed(selector, table) for selector in declared[own]["selectors"]))
    if declared[own]["enabled"] and allowed >= INDISPENSABLE:
        return []
    return [f"The connection is logged in as {own}, who could manage no ACL users afterwards: log in as another user."]


def _forgets_sanitizing(session):
    """Valkey 9.1.2 takes the words about payloads and holds nothing of them; others show one of the two for default."""
    (reply,) = _pipeline(session, [["ACL", "GETUSER", "default"]])
    _raise(reply, f"The user {session['whoami']} may not read ACL users")
    return not any(flag.endswith("sanitize-payload") for flag in _pairs(reply)["flags"])


def _knows_databases(session):
    return session["product"] == "Valkey" and _numbers(session["version"]) >= DATABASE_RULES


def _database_problems(session, declared, changed):
    if _knows_databases(session):
        return []
    return [
        f"{session['product']} {session['version']} knows no db= in the rules of {name}: Valkey 9.1 is the least."
        for name in changed
        if any(selector["dbs"] is not None for selector in declared[name]["selectors"])
    ]


def _lets_in(session, user):
    """Whether a user takes the password of one of the connections that log in as the session's user."""
    return user["nopass"] or any(
        password in user["passwords"]
        for candidate in session["candidates"]
        if (candidate.get("username") or "default") == session["whoami"]
        for password in _candidate_hashes(candidate)
    )


def _candidate_hashes(candidate):
    try:
        password = _connection_password(candidate)
    except _RefusedError:  # it has none now
        return set()
    return {_hash(password)} if password else set()


# --- Promises --------------------------------------------------------------------------------------------


def _promise_problems(session, users, declared, changed, scratch):
    """Sentences about allows and denies that the rules break, and about rules that the server does not take."""
    promising = [user for user in users if user.get("allows") or user.get("denies")]
    promises = {
        user["name"]: [(_words(command), True) for command in _as_list(user.get("allows"))]
        + [(_words(command), False) for command in _as_list(user.get("denies"))]
        for user in promising
    }
    asked = sorted({words[0] for pairs in promises.values() for words, _ in pairs})
    table = _command_info(session, asked) if asked else {}
    subjects, foreseen = [], []
    for name, user in declared.items():
        pairs = promises.get(name, [])
        if name not in changed and not pairs:
            continue
        subject = {"user": name, "name": name, "set": None, "pairs": pairs, "lines": []}
        subject["spans"] = [_dry_run_lines(words, table) for words, _ in pairs]
        subject["lines"] = [line for span in subject["spans"] for line in span]
        if name in changed and not scratch:
            foreseen.append(subject)
            continue
        if name in changed:
            subject.update(_scratch(user))
        subjects.append(subject)
    problems = []
    for subject, denials in zip(subjects, _dry_runs(session, subjects)):
        problems += _broken(subject, denials)
    for subject in foreseen:
        user = declared[subject["user"]]
        problems += _unknown_rules(session, subject["user"], user)
        if subject["lines"]:
            problems += _broken(subject, _foreseen(session, user, subject["lines"]))
    return problems


def _words(command):
    words = command.split() if isinstance(command, str) else [str(word) for word in command or []]
    if not words:
        raise SaltInvocationError("A command in allows or denies is empty.")
    return [words[0].lower(), *words[1:]]


def _dry_run_lines(words, table):
    """
    What to hand to ACL DRYRUN for one command; a command without subcommand means all of them but HELP.

    ``bare`` says that no arguments were given: what follows the command is padding that only serves its arity,
    and a denial of a key or channel does not count.
    """
    name = words[0]
    if name not in table:
        return [{"words": words, "bare": False}]
    if table[name]["subcommands"]:
        if len(words) == 1:
            return [
                _padded(one.split("|"), table[one]) for one in sorted(table[name]["subcommands"] - {f"{name}|help"})
            ]
        name = f"{name}|{words[1].lower()}"
        if name in table and len(words) == 2:
            return [_padded(words, table[name])]
    elif len(words) == 1:
        return [_padded(words, table[name])]
    return [{"words": words, "bare": False}]


def _padded(words, entry):
    return {"words": [*words, *["0"] * (abs(entry["arity"]) - len(words))], "bare": True}


def _scratch(user):
    """A user with the same rules for ACL DRYRUN, in which nobody can log in whatever they say."""
    return {"name": SCRATCH_PREFIX + secrets.token_hex(8), "set": ["reset", "off", *_user_rules(user)]}


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
    replies = iter(_transaction(session, commands))
    return [_subject_denials(subject, replies) for subject in subjects]


def _subject_denials(subject, replies):
    refused = next(replies) if subject["set"] else None
    denials = [_denial(line, next(replies)) for line in subject["lines"]]
    if subject["set"]:
        next(replies)
    if isinstance(refused, Exception):
        raise CommandExecutionError(
            f"The server does not take the rules of {subject.get('user', 'the user')}: {refused}."
        )
    return denials


def _denial(line, reply):
    text = str(reply)
    if text == "OK":
        return ""
    if isinstance(reply, Exception) and "not found" not in text:
        raise CommandExecutionError(f"ACL DRYRUN of {' '.join(line['words'])} failed: {text}.")
    if line["bare"] and "permissions to run" not in text:
        return ""  # about the padding, not about the command
    return re.sub(r"^User \S+ has", "has", text)


def _broken(subject, denials):
    """Sentences about promises that do not hold."""
    position, problems = 0, []
    for (words, allow), span in zip(subject["pairs"], subject["spans"]):
        found = denials[position : position + len(span)]
        position += len(span)
        command = " ".join([words[0].upper(), *words[1:]])
        if allow and any(found):
            problems.append(
                f"{command} must be allowed to {subject['user']}, but is denied: {next(filter(None, found))}."
            )
        if not allow and not all(found):
            problems.append(f"{command} must be denied to {subject['user']}, but is allowed.")
    return problems


def _unknown_rules(session, name, user):
    """Sentences about rules for commands and categories that the server does not know."""
    table = _command_table(session)
    known = set(table).union(*(entry["categories"] for entry in table.values()))
    rules = [rule for selector in user["selectors"] for rule in selector["commands"]]
    return [
        f"The server does not take the rules of {name}: it knows no {rule[1:]}."
        for rule in rules
        if rule[1:] not in known and not _is_first_argument(rule, table)
    ]


def _is_first_argument(rule, table):
    command, _, argument = rule[1:].partition("|")
    return rule[0] == "+" and bool(argument) and command in table and not table[command]["subcommands"]


def _foreseen(session, user, lines):
    """What ACL DRYRUN would say, told from the rules alone: under test=True there is no scratch user."""
    table = _command_table(session)
    keyed = _pipeline(session, [["COMMAND", "GETKEYSANDFLAGS", *line["words"]] for line in lines])
    denials = []
    for line, reply in zip(lines, keyed):
        keys = [] if line["bare"] or isinstance(reply, Exception) else reply
        verdicts = [_selector_denial(selector, table, line, keys) for selector in user["selectors"]]
        denials.append("" if "" in verdicts else verdicts[0])
    return denials


def _selector_denial(selector, table, line, keys):
    words = [line["words"][0].lower(), *line["words"][1:]]
    entry = table.get(words[0])
    if entry is None:
        return f"Command '{words[0]}' not found"
    name = f"{words[0]}|{words[1].lower()}" if entry["subcommands"] and len(words) > 1 else words[0]
    allowed = _allowed(selector, table)
    if name not in allowed and "|".join(words[:2]) not in allowed:
        return f"has no permissions to run the '{name}' command"
    for key, flags in keys:
        if not _key_allowed(selector, key, set(flags)):
            return f"has no permissions to access the '{key}' key"
    for channel, literal in [] if line["bare"] else _channels(words):
        if not _channel_allowed(selector, channel, literal):
            return f"has no permissions to access the '{channel}' channel"
    return ""


def _key_allowed(selector, key, flags):
    needed = ("R" if "access" in flags else "") + ("W" if flags & {"insert", "delete", "update"} else "")
    granted = {right for pattern, rights in selector["keys"].items() if _matches(pattern, key) for right in rights}
    return set(needed) <= granted


def _channels(words):
    """Channels that a command names, and whether a pattern has to be granted to the letter."""
    if words[0] in ("publish", "spublish"):
        return [(words[1], False)]
    if words[0] in ("subscribe", "ssubscribe"):
        return [(word, False) for word in words[1:]]
    return [(word, True) for word in words[1:]] if words[0] == "psubscribe" else []


def _channel_allowed(selector, channel, literal):
    if "*" in selector["channels"]:
        return True
    if literal:
        return channel in selector["channels"]
    return any(_matches(pattern, channel) for pattern in selector["channels"])


def _matches(pattern, text):
    # The server's globs know [^...] and \x, Python's [!...] and [x].
    pattern = re.sub(r"\\(.)", r"[\1]", pattern, flags=re.DOTALL).replace("[^", "[!")
    return fnmatch.fnmatchcase(text, pattern)


# --- Saving ----------------------------------------------------------------------------------------------


def _save_command(session):
    if session["aclfile"]:
        return ["ACL", "SAVE"]
    if session["config_file"]:
        return ["CONFIG", "REWRITE"]
    raise CommandExecutionError(
        f"{session['where']} has neither an ACL file nor a configuration file to save users in."
    )


def _unsaved(session, lines, current, names):
    """
    Whether the file from which the server takes its users at its next start says something else than its memory,
    about some users or, if names is None, about any; only then the lines of memory are looked at.

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
    saved = _saved_users(session, in_file, names)
    names = set(saved) | set(current) if names is None else names
    if any((name in saved) != (name in current) for name in names):
        return True
    return bool(_changed(session, {name: saved[name] for name in names if name in saved}, current))


def _file_lines(session, path):
    """
    The lines of a file that are about users, by name, and its `requirepass` lines.

    They are kept as long as the file is the one that was read. A file that has changed just now could change again
    without its time stamps moving, and is not kept.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        status = os.fstat(stream.fileno())
        stamp = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        stamp_known, lines = session.get("file", (None, None))
        if stamp == stamp_known:
            return lines
        lines = {"users": {}, "requirepass": []}
        for line in (line.strip(" \t\r\n") for line in stream):
            if line.startswith("user "):
                lines["users"][re.split(BLANKS, line, maxsplit=2)[1]] = line
            elif line.startswith("requirepass "):
                lines["requirepass"].append(line)
    if time.time() - status.st_ctime > FILE_STAMP_SECONDS:
        session["file"] = stamp, lines
    return lines


def _saved_users(session, in_file, names):
    """The users of a file, only those of these names if there are any."""
    lines = in_file["users"]
    wanted = lines if names is None else [name for name in names if name in lines]
    try:
        users = dict(_parse_line(" ".join(_split(lines[name]))) for name in wanted)
    except SaltInvocationError:
        return {}
    if "default" not in lines:
        # What the server makes of itself when no file speaks of it.
        users["default"] = _parse(["on", "nopass", "~*", "&*", "+@all"])
        passwords = [line.split(None, 1)[1].strip('"') for line in in_file["requirepass"]]
        if passwords and not session["aclfile"]:
            users["default"].update(nopass=False, passwords={_hash(passwords[-1])})
    return users


def _is_local(session):
    """Whether the server runs on this host and sees the same files."""
    if "local" not in session:
        session["local"] = _runs_here(session)
    return session["local"]


def _runs_here(session):
    if not session["unix_socket"] and not _is_own_address(session["host"]):
        return False
    try:
        with open(f"/proc/{session['process_id']}/comm", encoding="utf-8") as stream:
            command = stream.read().strip()
    except OSError:
        return False
    return command == os.path.basename(session["executable"])[:15]


def _is_own_address(host):
    """An address is this host's own if a socket can be bound to it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
