"""
Change the configuration file of Valkey and Redis, and the running server with it.

Some directives a server takes over while it runs (``CONFIG SET``), others only when it starts. This module writes
the file, changes what can be changed live, and reports whether a restart is needed. It switches a server over to
an ACL file without losing a user: users and password that stood in the configuration file move along.

Connections are described in :py:mod:`valkey_acl <_modules.valkey_acl>`.

:depends: redis (redis-py) 5.0 or newer
"""

import contextlib
import grp
import os
import pwd
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import durable, pillar
from valkey_core import acl_file as users_file
from valkey_core import addresses, config_directives, errors, replies
from valkey_core import config_file as grammar
from valkey_core import session as sessions

__virtualname__ = "valkey_config"
__func_alias__ = {"apply_": "apply"}

_as_salts = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    missing = sessions.missing_library()
    return (False, missing) if missing else __virtualname__


@_as_salts
def get(*names, connection=None):
    """
    Return directives of the running server.

    names
        Names of directives, like ``bind`` and ``maxmemory``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Raises CommandExecutionError if the server cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_config.get bind aclfile
    """
    values = {}
    for reply in sessions.answered(_session(connection), [["CONFIG", "GET", name] for name in names]):
        values.update(replies.pairs(reply))
    return values


@_as_salts
def compare(config_file, include=None, exclude=None, settings=None, acl_file=None, connection=None):
    """
    Return what would have to change for file and running server to be as declared; changes nothing.

    config_file
        Path of the configuration file.
    include
        Words that directives have besides what they have, as ``{"bind": ["192.0.2.1"]}``. Defaults to none.
    exclude
        Words that directives do not have. Defaults to none.
    settings
        Values of directives, as ``{"maxmemory": "1gb"}``. Defaults to none.
    acl_file
        Path of the ACL file to use where the server has none yet. Defaults to no change.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Returns a dictionary: ``changes`` by directive; ``file``, whether the file would be written; ``live``, the
    directives that ``CONFIG SET`` would change; ``restart``, the directives for which the server has to restart;
    ``absent``, addresses to listen at that this host does not have.
    Raises CommandExecutionError if file or server cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_config.compare /etc/valkey/valkey.conf include='{"bind": ["192.0.2.1"]}'
    """
    plan = _plan(config_file, include, exclude, settings, acl_file, connection)
    return {key: plan[key] for key in ("changes", "file", "live", "restart", "absent")}


@_as_salts
def apply_(
    config_file,
    include=None,
    exclude=None,
    settings=None,
    acl_file=None,
    user=None,
    group=None,
    connection=None,
):
    """
    Write the configuration file and change what a running server can take over.

    config_file, include, exclude, settings, acl_file, connection
        As for :py:func:`compare`.
    user, group
        Owner of the ACL file, which the server must be able to write. Default to those of the configuration file.

    Returns the directives for which the server still has to restart. Raises CommandExecutionError before
    anything is changed if an address is absent or the ACL file holds users that the server does not know.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_config.apply /etc/valkey/valkey.conf include='{"bind": ["192.0.2.1"]}'
    """
    plan = _plan(config_file, include, exclude, settings, acl_file, connection)
    if plan["absent"]:
        raise errors.ServerError(
            f"This host does not have the address {', '.join(plan['absent'])}, and the server would stop at its next"
            " start with it in `bind`. Add the address first."
        )
    if plan["acl_file"]:
        _write_acl_file(plan["acl_file"], config_file, user, group, connection)
    if plan["file"]:
        with _server_errors():
            durable.replace(config_file, plan["text"])
    restart = list(plan["restart"])
    if restart:
        return restart  # which brings the rest along
    for name, words in plan["live"].items():
        restart += _set_live(name, words, connection)
    return restart


@_as_salts
def write(config_file, settings, test=False):
    """
    Write directives into the configuration file alone, for a server that is not running or is restarted afterwards.

    config_file
        Path of the configuration file.
    settings
        Values of directives, as ``{"port": 6379}``.
    test
        Whether to return what would change, and to change nothing. Defaults to False.

    Returns the ``old`` and ``new`` value of each directive that differed, by its name. ``old`` is None where the file
    did not have it. Raises CommandExecutionError if the file cannot be read or written.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_config.write /etc/valkey/valkey.conf '{"port": 6379}' test=True
    """
    text = _read(config_file)
    in_file = {name: grammar.directive(text, name) for name in settings}
    desired = {name: grammar.value_words(value) for name, value in settings.items()}
    differing = {name: words for name, words in desired.items() if words != in_file[name]}
    if differing and not test:
        durable.replace(config_file, grammar.edited(text, differing))
    return {
        name: {"old": None if in_file[name] is None else " ".join(in_file[name]), "new": " ".join(words)}
        for name, words in differing.items()
    }


@_as_salts
def restart(service, timeout=60, connection=None):
    """
    Restart the server once and wait until it answers.

    service
        Name of the service.
    timeout
        Seconds to wait for an answer. Defaults to 60.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Raises CommandExecutionError if the service does not restart or the server does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call valkey_config.restart valkey-server
    """
    sessions.close_all(__context__)
    if not __salt__["service.restart"](service):
        raise errors.ServerError(f"{service} did not restart: journalctl -u {service} shows why.")
    deadline = time.monotonic() + timeout
    while True:
        try:
            return bool(sessions.answered(_session(connection), [["ACL", "WHOAMI"]]))
        except errors.UnreachableError as err:
            if time.monotonic() > deadline:
                raise errors.ServerError(
                    f"{service} was restarted and does not answer after {timeout} seconds: journalctl -u {service}"
                    " shows why."
                ) from err
        time.sleep(0.1)


def _session(connection):
    layers = (__opts__.get("valkey"), __pillar__.get("valkey"))
    return sessions.opened(__context__, connection, layers, _from_pillar)


def _from_pillar(path):
    return pillar.value(__pillar__, path)


# --- Plan ------------------------------------------------------------------------------------------------


def _plan(config_file, include, exclude, settings, acl_file, connection):
    text = _read(config_file)
    names = sorted({*(include or {}), *(exclude or {}), *(settings or {}), "aclfile", "port"})
    running = {name: value.split() for name, value in get(*names, connection=connection).items()}
    missing = [name for name in names if name not in running]
    if missing:
        raise errors.InvalidArgumentError(f"The server knows no directive {', '.join(missing)}.")
    in_file = {name: grammar.directive(text, name) for name in names}
    desired = config_directives.desired(in_file, running, include, exclude, settings)
    switch = config_directives.acl_file_to_switch_on(in_file, running, acl_file)
    if switch:
        desired["aclfile"] = [switch]
    new_text = grammar.edited(text, {name: words for name, words in desired.items() if words != in_file[name]})
    if desired.get("aclfile") or in_file["aclfile"]:
        new_text = grammar.without_users(new_text)
    differing = config_directives.differing(desired, running)
    changes = config_directives.changes(desired, in_file, running)
    unheard = [] if "bind" in differing else _without_listener(include, running)
    if unheard:
        differing.append("bind")
        changes["bind"] = {"old": f"no listener at {', '.join(unheard)}", "new": " ".join(desired["bind"])}
    if new_text != text and not changes:
        changes["users"] = {"old": config_file, "new": "".join(in_file["aclfile"])}
    return {
        "text": new_text,
        "file": new_text != text,
        "changes": changes,
        "acl_file": switch,
        "live": {name: desired[name] for name in differing if name not in grammar.AT_START_ONLY},
        "restart": [name for name in differing if name in grammar.AT_START_ONLY],
        "absent": _absent_addresses(include),
    }


def _absent_addresses(include):
    """Addresses to bind that this host does not have; one with a leading - may be absent."""
    return [word for word in (include or {}).get("bind", []) if word[:1] not in "-*" and not addresses.is_own(word)]


def _without_listener(include, running):
    """Addresses to bind that this host has by now, and did not have when the server started. Set again, it binds them.

    Source: `applyBind` of src/config.c, Valkey 8.1, which CONFIG SET calls for the value that is set already too.
    """
    optional = [word[1:] for word in (include or {}).get("bind", []) if word.startswith("-")]
    port = int(running["port"][0])
    if not port:
        return []
    return [address for address in __salt__["netns.without_listener"](optional, port) if addresses.is_own(address)]


# --- The file --------------------------------------------------------------------------------------------


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError as err:
        raise errors.ServerError(f"The configuration file {path} cannot be read: {err.strerror}.") from err


@contextlib.contextmanager
def _server_errors():
    try:
        yield
    except OSError as err:
        raise errors.ServerError(f"{err}.") from err


def _write_acl_file(path, config_file, user, group, connection):
    """All users of the running server, so that it comes back with them."""
    (lines,) = sessions.answered(_session(connection), [["ACL", "LIST"]])
    if os.path.exists(path):
        in_file = users_file.lines_of(_read(path).split("\n"))["users"]
        strangers = set(in_file) - set(users_file.lines_of(lines)["users"])
        if strangers:
            raise errors.ServerError(
                f"{path} is not in use and holds users that the server does not know: {', '.join(sorted(strangers))}."
                " Move the file away, or add these users to the server."
            )
    status = os.stat(config_file)
    try:
        uid = pwd.getpwnam(user).pw_uid if user else status.st_uid
        gid = grp.getgrnam(group).gr_gid if group else status.st_gid
    except KeyError as err:
        raise errors.ServerError(f"There is no such owner for {path}: {err}.") from err
    with _server_errors():
        durable.write(os.path.realpath(path), "\n".join([*lines, ""]), 0o640, (uid, gid))


def _set_live(name, words, connection):
    """Change a directive of the running server; returns it if that takes a restart."""
    try:
        sessions.answered(_session(connection), [["CONFIG", "SET", name, " ".join(words)]])
    except errors.ServerError as err:
        if "immutable" in str(err):
            return [name]
        raise
    return []
