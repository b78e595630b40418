"""
Change the configuration file of Valkey and Redis, and the running server with it.

Some directives a server takes over while it runs (``CONFIG SET``), others only when it starts. This module writes
the file, changes what can be changed live, and says whether a restart is left to do. It switches a server over to
an ACL file without losing a user: users and password that stood in the configuration file move along.

Connections are described in :py:mod:`valkey_acl <_modules.valkey_acl>`.

:depends: redis (redis-py) 5.0 or newer
"""

import contextlib
import grp
import os
import pwd
import re
import shlex
import socket
import tempfile
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "valkey_config"
__func_alias__ = {"apply_": "apply"}

# Directives a running server refuses to change: createStandardConfig and IMMUTABLE_CONFIG in its src/config.c.
# One that is missing here is found out by trying.
AT_START_ONLY = {
    "aclfile",
    "cluster-config-file",
    "cluster-enabled",
    "daemonize",
    "databases",
    "disable-thp",
    "io-threads",
    "logfile",
    "pidfile",
    "rdbchecksum",
    "supervised",
    "syslog-enabled",
    "syslog-facility",
    "syslog-ident",
    "tcp-backlog",
    "unixsocket",
    "unixsocketperm",
}
# In `bind`, these include each IPv4 address.
ALL_ADDRESSES = {"*", "0.0.0.0"}
MOVED = "# Moved to the ACL file by Salt: "


def __virtual__():
    if "valkey_acl.pipeline" not in __salt__:
        return False, "The execution module valkey_acl is not available: it needs the Python library redis."
    return __virtualname__


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
    replies = __salt__["valkey_acl.pipeline"]([["CONFIG", "GET", name] for name in names], connection=connection)
    values = {}
    for reply in replies:
        values.update(zip(reply[::2], reply[1::2]))
    return values


def compare(config_file, include=None, exclude=None, settings=None, acl_file=None, connection=None):
    """
    Tell what would have to change for file and running server to be as declared; changes nothing.

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
        raise CommandExecutionError(
            f"This host does not have the address {', '.join(plan['absent'])}, and the server would stop at its next"
            " start if told to listen there. Add the address first."
        )
    if plan["acl_file"]:
        _write_acl_file(plan["acl_file"], config_file, user, group, connection)
    if plan["file"]:
        _write(config_file, plan["text"])
    restart = list(plan["restart"])
    if restart:
        return restart  # which brings the rest along
    for name, words in plan["live"].items():
        restart += _set_live(name, words, connection)
    return restart


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
    __salt__["valkey_acl.disconnect"]()
    if not __salt__["service.restart"](service):
        raise CommandExecutionError(f"{service} did not restart: journalctl -u {service} tells why.")
    deadline = time.monotonic() + timeout
    while True:
        try:
            return __salt__["valkey_acl.whoami"](connection) is not None
        except CommandExecutionError as err:
            if not getattr(err, "unreachable", False):
                raise
            if time.monotonic() > deadline:
                raise CommandExecutionError(
                    f"{service} was restarted and does not answer after {timeout} seconds: journalctl -u {service}"
                    " tells why."
                ) from err
        time.sleep(0.1)


# --- Plan ------------------------------------------------------------------------------------------------


def _plan(config_file, include, exclude, settings, acl_file, connection):
    text = _read(config_file)
    names = sorted({*(include or {}), *(exclude or {}), *(settings or {}), "aclfile", "port"})
    running = {name: value.split() for name, value in get(*names, connection=connection).items()}
    missing = [name for name in names if name not in running]
    if missing:
        raise SaltInvocationError(f"The server knows no directive {', '.join(missing)}.")
    in_file = {name: _directive(text, name) for name in names}
    wanted = _wanted(in_file, running, include, exclude, settings)
    switch = _acl_file_to_switch_on(in_file, running, acl_file)
    if switch:
        wanted["aclfile"] = [switch]
    new_text = _edited(text, {name: words for name, words in wanted.items() if words != in_file[name]})
    if wanted.get("aclfile") or in_file["aclfile"]:
        new_text = _without_users(new_text)
    differing = [name for name, words in wanted.items() if not _equal(words, running[name])]
    changes = {
        name: {"old": " ".join(running[name] if name in differing else in_file[name] or []), "new": " ".join(words)}
        for name, words in wanted.items()
        if name in differing or words != in_file[name]
    }
    unheard = [] if "bind" in differing else _without_listener(include, running)
    if unheard:
        differing.append("bind")
        changes["bind"] = {"old": f"no listener at {', '.join(unheard)}", "new": " ".join(wanted["bind"])}
    if new_text != text and not changes:
        changes["users"] = {"old": config_file, "new": "".join(in_file["aclfile"])}
    return {
        "text": new_text,
        "file": new_text != text,
        "changes": changes,
        "acl_file": switch,
        "live": {name: wanted[name] for name in differing if name not in AT_START_ONLY},
        "restart": [name for name in differing if name in AT_START_ONLY],
        "absent": _absent_addresses(include),
    }


def _wanted(in_file, running, include, exclude, settings):
    """The words that each directive should have."""
    wanted = {name: _value_words(value) for name, value in (settings or {}).items()}
    for name, words in (include or {}).items():
        have = running[name] if in_file[name] is None else in_file[name]
        everywhere = name == "bind" and ALL_ADDRESSES & set(have)
        wanted[name] = have if everywhere else [*have, *(word for word in words if word not in have)]
    for name, words in (exclude or {}).items():
        have = running[name] if in_file[name] is None else in_file[name]
        left = [word for word in have if word not in words]
        if not left and have:
            raise CommandExecutionError(f"Without {' '.join(words)}, nothing would be left of the directive {name}.")
        wanted[name] = left
    return wanted


def _value_words(value):
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return shlex.split(str(value))


def _acl_file_to_switch_on(in_file, running, acl_file):
    """The ACL file that the server does not use yet, or None. One that it uses already is as good as ours."""
    if not acl_file or running["aclfile"]:
        return None
    return in_file["aclfile"][0] if in_file["aclfile"] else acl_file


def _equal(words, others):
    return [_plain(word) for word in words] == [_plain(word) for word in others]


def _plain(word):
    """Sizes as bytes: the server says 1073741824 where the file says 1gb."""
    size = re.fullmatch(r"(\d+)(k|kb|m|mb|g|gb)", word.lower())
    if not size:
        return word
    unit = size.group(2)
    base = 1024 if unit.endswith("b") else 1000
    return str(int(size.group(1)) * base ** ("kmg".index(unit[0]) + 1))


def _absent_addresses(include):
    """Addresses to bind that this host does not have; one with a leading - may be absent."""
    return [word for word in (include or {}).get("bind", []) if word[:1] not in "-*" and not _bindable(word)]


def _without_listener(include, running):
    """Addresses to bind that this host has by now, and did not have when the server started. Set again, it binds them.

    Source: `applyBind` of src/config.c, Valkey 8.1, which CONFIG SET calls for the value that is set already too.
    """
    addresses = [word[1:] for word in (include or {}).get("bind", []) if word.startswith("-")]
    port = int(running["port"][0])
    if not port:
        return []
    return [address for address in __salt__["netns.without_listener"](addresses, port) if _bindable(address)]


def _bindable(address):
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(target)
    except OSError:
        return False
    return True


# --- The file --------------------------------------------------------------------------------------------


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError as err:
        raise CommandExecutionError(f"The configuration file {path} cannot be read: {err.strerror}.") from err


def _name(line):
    if line.startswith("#"):  # as most lines of the file that comes with the server
        return ""
    words = line.split(None, 1)
    return words[0].lower() if words else ""


def _directive(text, name):
    """The words of a directive, or None if the file does not have it. The last one counts."""
    found = [line for line in text.splitlines() if _name(line) == name]
    return shlex.split(found[-1])[1:] if found else None


def _edited(text, directives):
    """The text with these directives, each where its last one stood, or at the end."""
    lines = text.splitlines()
    for name, words in directives.items():
        line = " ".join([name, *(_quoted(word) for word in words)])
        places = [place for place, old in enumerate(lines) if _name(old) == name]
        if places:
            lines[places[-1]] = line
        else:
            lines.append(line)
    return "\n".join(lines) + "\n" if directives else text


def _quoted(word):
    if re.fullmatch(r"[^\s\"'\\]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _without_users(text):
    """
    The text without users and password, which the ACL file holds now.

    A server with ``user`` lines and an ``aclfile`` refuses to start; ``requirepass`` would be read and overridden.
    """
    lines = []
    for line in text.splitlines(keepends=True):
        if _name(line) == "user":
            lines.append(f"{MOVED}user {line.split()[1]}\n")
        elif _name(line) == "requirepass":
            lines.append(f"{MOVED}requirepass\n")
        else:
            lines.append(line)
    return "".join(lines)


def _write(path, text, owner=None, mode=None):
    """Replace a file in one step, with the owner and mode it has."""
    before = os.stat(path) if os.path.exists(path) else None
    uid, gid = owner or (before.st_uid, before.st_gid)
    folder = os.path.dirname(os.path.realpath(path))
    try:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".salt-")
    except OSError as err:
        raise CommandExecutionError(f"{folder} cannot be written: {err.strerror}.") from err
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), mode or before.st_mode & 0o7777)
        os.replace(temporary, os.path.realpath(path))
    except OSError as err:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise CommandExecutionError(f"{path} cannot be written: {err.strerror}.") from err


def _write_acl_file(path, config_file, user, group, connection):
    """All users of the running server, so that it comes back with them."""
    (lines,) = __salt__["valkey_acl.pipeline"]([["ACL", "LIST"]], connection=connection)
    known = {line.split()[1] for line in lines}
    if os.path.exists(path):
        strangers = {line.split()[1] for line in _read(path).splitlines() if _name(line) == "user"} - known
        if strangers:
            raise CommandExecutionError(
                f"{path} is not in use and holds users that the server does not know: {', '.join(sorted(strangers))}."
                " Move the file away, or add these users to the server."
            )
    status = os.stat(config_file)
    try:
        uid = pwd.getpwnam(user).pw_uid if user else status.st_uid
        gid = grp.getgrnam(group).gr_gid if group else status.st_gid
    except KeyError as err:
        raise CommandExecutionError(f"There is no such owner for {path}: {err}.") from err
    _write(path, "\n".join([*lines, ""]), (uid, gid), 0o640)


def _set_live(name, words, connection):
    """Change a directive of the running server; returns it if that takes a restart."""
    try:
        __salt__["valkey_acl.pipeline"]([["CONFIG", "SET", name, " ".join(words)]], connection=connection)
    except CommandExecutionError as err:
        if "immutable" in str(err):
            return [name]
        raise
    return []
