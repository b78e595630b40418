"""
Sessions: one open connection per target in a run, with what stays the same about its server
=============================================================================================

A session is a dictionary: ``client``, ``where``, ``whoami``, ``product``, ``version``, ``aclfile``, ``config_file`` and
what callers keep in it for the run. redis-py is imported when it is used: it may be installed in the same run, after
this package was imported.
"""

import hashlib
import re

from valkey_core import connection as arguments_of
from valkey_core import replies
from valkey_core.errors import BusyError, RefusedError, ServerError, UnreachableError

KEY = "valkey.session "


def missing_library():
    """Return why redis-py cannot be used, empty if it can, as for ``__virtual__``."""
    try:
        import redis
    except ImportError:
        return "The Python library redis is missing."
    if tuple(int(part) for part in re.findall(r"\d+", redis.__version__)[:2]) < (5, 0):
        return "The Python library redis is older than 5.0."
    return ""


def opened(context, connection, layers, lookup):
    """
    Return the session of a target, opened if there is none yet in this run.

    context
        The dictionary that keeps sessions for the run.

    connection
        Connection arguments, or a list of them, tried in turn until the server accepts one's credentials.

    layers
        What they are laid over, as for ``connection.merged``.

    lookup
        A function that returns what is at a path of the pillar, or None.

    Raises ``UnreachableError``, ``RefusedError`` if no credentials are accepted, ``BusyError``, other ``ServerError``
    if the user may not ask what a session needs or the server is too old, ``InvalidArgumentError`` for arguments
    that do not exist.
    """
    candidates = arguments_of.candidates(connection, layers)
    key = KEY + hashlib.sha256(repr([sorted(one.items()) for one in candidates]).encode()).hexdigest()
    if key not in context:
        context[key] = _open_first(candidates, lookup)
    return context[key]


def close_all(context):
    """Close all sessions of a run, so that the next use logs in again."""
    for key in [key for key in context if str(key).startswith(KEY)]:
        context.pop(key)["client"].close()


def pipeline(session, commands):
    """
    Return the replies of commands sent in one round trip; errors of single commands are among them.

    Raises ``UnreachableError``, ``RefusedError`` or ``BusyError`` where none is answered.
    """
    from redis import exceptions

    pipe = session["client"].pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    try:
        answers = pipe.execute(raise_on_error=False)
    except exceptions.AuthenticationError as err:
        raise RefusedError(f"{session['where']} does not accept the credentials.") from err
    except (exceptions.ConnectionError, exceptions.TimeoutError) as err:
        # The text of the library's error holds addresses and system errors, no credentials.
        raise UnreachableError(f"{session['where']} cannot be reached: {err}") from err
    except exceptions.ResponseError as err:
        raise RefusedError(f"{session['where']} refuses the connection: {err}") from err
    busy = next((str(reply) for reply in answers if _is_busy(reply)), None)
    if busy:
        raise BusyError(session["where"], busy)
    return answers


def answered(session, commands):
    """Return the replies of commands sent in one round trip. Raises ``ServerError`` for the first that is an error."""
    answers = pipeline(session, commands)
    for command, reply in zip(commands, answers):
        replies.check(reply, f"The server refused {' '.join(command[:2])}")
    return answers


def transaction(session, commands):
    """Return the replies of commands run in one transaction; errors of single commands are among them."""
    answers = pipeline(session, [["MULTI"], *commands, ["EXEC"]])
    for reply in answers[:-1]:
        replies.check(reply, "The server refused a command")
    replies.check(answers[-1], "The server refused a transaction")
    return answers[-1]


def _is_busy(reply):
    return isinstance(reply, Exception) and str(reply).startswith("BUSY ")


def _open_first(candidates, lookup):
    refusals = []
    for candidate in candidates:
        try:
            return {**_open(candidate, lookup), "candidates": candidates}
        except RefusedError as err:
            refusals.append(str(err))
    raise RefusedError(" ".join(dict.fromkeys(refusals)))


def _open(connection, lookup):
    where, username = arguments_of.where(connection), arguments_of.username(connection)
    session = {
        "client": _client(arguments_of.client_arguments(connection, lookup)),
        "where": where,
        "unix_socket": connection.get("unix_socket"),
        "host": arguments_of.host(connection),
    }
    who, info, aclfile = _greeting(session, username)
    replies.check(info, f"The user {username} may not run INFO at {where}")
    info = replies.info_fields(info)
    session.update(replies.product(info, where))
    replies.check(who, f"The user {username} cannot manage ACL users at {where}")
    replies.check(aclfile, f"The user {username} may not run CONFIG GET at {where}")
    session.update(
        whoami=who,
        aclfile=replies.pairs(aclfile).get("aclfile", ""),
        config_file=info.get("config_file", ""),
        process_id=int(info.get("process_id", 0)),
        executable=info.get("executable", ""),
    )
    return session


def _client(arguments):
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # A server that closed the connection meanwhile (its `timeout`) is asked once more on a new one; everything sent
    # here may be sent twice.
    client = redis.Redis(**arguments, retry=Retry(NoBackoff(), 1))
    # Replies as the protocol has them: the same in all versions of the library.
    client.response_callbacks.clear()
    return client


def _greeting(session, username):
    from redis import exceptions

    where = session["where"]
    try:
        answers = pipeline(session, [["ACL", "WHOAMI"], ["INFO", "server"], ["CONFIG", "GET", "aclfile"]])
    except RefusedError as err:
        if "protected mode" in str(err):
            raise RefusedError(f"{where} is in protected mode and accepts connections from its own host only.") from err
        raise RefusedError(f"{where} does not accept the credentials of the user {username}.") from err
    if any(isinstance(reply, exceptions.AuthenticationError) for reply in answers):
        raise RefusedError(f"{where} does not accept the user {username} without a password.")
    return answers


def save_command(session):
    """Return the command that saves the ACL users. Raises ``ServerError`` if the server has no file for them."""
    if session["aclfile"]:
        return ["ACL", "SAVE"]
    if session["config_file"]:
        return ["CONFIG", "REWRITE"]
    raise ServerError(f"{session['where']} has neither an ACL file nor a configuration file to save users in.")
