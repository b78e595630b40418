"""
Immich's users in Valkey, and the formula's own.

Everything that is not about Immich is in :py:mod:`valkey_acl <_states.valkey_acl>`.
"""

import contextlib
import json
import os
import secrets

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import durable
from immich_core import findings, pillar_paths, valkey_memory, valkey_users

__virtualname__ = "immich_valkey"


def __virtual__():
    if "immich_valkey.users" not in __salt__:
        return False, "The execution module immich_valkey is not available: it needs the Python library redis."
    return __virtualname__


def login_present(name, password_file="/etc/immich-formula/valkey.password", connection=None):
    """
    Ensure that the formula has an ACL user of its own, with a generated password in a file only root reads.

    name
        Anything; the user is always ``immich-formula``.
    password_file
        Path of the file; it is written before the user is, so that an interrupted run can be completed. Defaults
        to ``/etc/immich-formula/valkey.password``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`; ``immich_valkey.logins`` returns the connections.

    SLS Example:

    .. code-block:: yaml

        The formula has a Valkey login of its own:
          immich_valkey.login_present:
            - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    """
    ret = {"name": name, "result": True, "comment": "The formula has its Valkey login.", "changes": {}}
    missing = not os.path.exists(password_file)
    try:
        if missing and not __opts__["test"]:
            _write_private(password_file, secrets.token_urlsafe(32) + "\n")
        if missing:
            ret["changes"][password_file] = {"old": None, "new": "generated"}
        user = valkey_users.login_user(password_file)
        if missing and __opts__["test"]:
            user = {**user, "password_file": None, "password_hash": "0" * 64}  # the file is not there to be read
        done = __states__["valkey_acl.managed"](name, _fitted([user], connection), connection=connection)
        ret["changes"].update(done["changes"])
        if done["result"] is False:
            comment = _advice(done["comment"], done.get("refused"))
            return {**ret, "result": False, "changes": {}, "comment": comment}
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": "The formula's Valkey login would be created."}
        # From here on the formula authenticates as itself: the next state may take its former login away.
        __salt__["valkey_acl.disconnect"]()
        return {**ret, "comment": "The formula's Valkey login was created."}
    except (OSError, CommandExecutionError, SaltInvocationError) as err:
        return {**ret, "result": False, "comment": _advice(str(err), getattr(err, "refused", False))}


def login_absent(name, password_file="/etc/immich-formula/valkey.password", connection=None):
    """
    Ensure that the formula's own ACL user and its password file are gone.

    name
        Anything; the user is always ``immich-formula``.
    password_file
        Path of the file. Defaults to ``/etc/immich-formula/valkey.password``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`; it may be that user itself.

    SLS Example:

    .. code-block:: yaml

        The formula has no Valkey login:
          immich_valkey.login_absent:
            - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    """
    ret = {"name": name, "result": True, "comment": "The formula has no Valkey login.", "changes": {}}
    login = valkey_users.LOGIN
    try:
        if __salt__["valkey_acl.get"](login, connection=connection) is not None:
            ret["changes"][login] = {"old": "present", "new": None}
        if os.path.exists(password_file):
            ret["changes"][password_file] = {"old": "present", "new": None}
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": "The formula's Valkey login would be removed."}
        if login in ret["changes"]:
            __salt__["valkey_acl.delete"](login, connection=connection)
        if password_file in ret["changes"]:
            os.unlink(password_file)
            with contextlib.suppress(OSError):  # the folder goes if nothing else is in it
                os.rmdir(os.path.dirname(password_file))
        return {**ret, "comment": "The formula's Valkey login was removed."}
    except (OSError, CommandExecutionError, SaltInvocationError) as err:
        return {**ret, "result": False, "changes": {}, "comment": str(err)}


def memory_bounded(
    name, config_file, maxmemory=None, record_file="/var/lib/immich-formula/valkey.json", connection=None
):
    """
    Ensure that the server's memory is limited, and that it refuses writes rather than evict keys when it is full.

    name
        Anything; a sentence about it.
    config_file
        Path of the server's configuration file.
    maxmemory
        The limit, in the form of ``512m`` or ``2g``; ``0`` puts back what the server had before the formula. Defaults
        to an eighth of the host's memory for a server that has no limit, but at least 512 MB and twice what its data
        takes.
    record_file
        Path of the file that keeps what the server had before. Defaults to ``/var/lib/immich-formula/valkey.json``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Fails, and changes nothing, if the server's data takes more than the limit.

    SLS Example:

    .. code-block:: yaml

        Valkey's memory is bounded:
          immich_valkey.memory_bounded:
            - config_file: /etc/valkey/valkey.conf
            - maxmemory: 1g
    """
    if maxmemory == "0":
        return memory_as_before(name, config_file, record_file, connection)
    ret = {"name": name, "result": True, "changes": {}, "comment": "The server keeps the memory limit that it has."}
    try:
        held = valkey_memory.limits(__salt__["valkey_acl.pipeline"], connection)
        refusal = maxmemory and valkey_memory.refusal(maxmemory, held)
        if refusal:
            return {**ret, "result": False, "comment": findings.sentence(refusal)}
        settings = valkey_memory.directives(maxmemory, held, __grains__["mem_total"])
        if not settings:
            return ret
        if not __opts__["test"]:
            _note_memory(record_file, settings, held)
    except (OSError, CommandExecutionError, SaltInvocationError) as err:
        if __opts__["test"] and getattr(err, "unreachable", False):
            changes = {"maxmemory": {"old": None, "new": maxmemory or "a part of this host's memory"}}
            return {**ret, "result": None, "changes": changes, "comment": f"{err} If this run starts it, it gets one."}
        return {**ret, "result": False, "comment": str(err)}
    return __states__["valkey_config.managed"](name, config_file, settings=settings, connection=connection)


def memory_as_before(name, config_file, record_file="/var/lib/immich-formula/valkey.json", connection=None):
    """
    Ensure that the server has the memory limit that it had before the formula limited it.

    name
        Anything; a sentence about it.
    config_file
        Path of the server's configuration file.
    record_file
        Path of the file that ``memory_bounded`` wrote. Defaults to ``/var/lib/immich-formula/valkey.json``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    A limit that was changed afterwards stays.

    SLS Example:

    .. code-block:: yaml

        Valkey's memory limit is as before:
          immich_valkey.memory_as_before:
            - config_file: /etc/valkey/valkey.conf
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "The formula has not limited the server's memory."}
    try:
        record = _memory_record(record_file)
        if not record:
            return ret
        found = __salt__["valkey_config.compare"](config_file, settings=record["set"], connection=connection)
        if found["changes"]:
            ret["comment"] = "The memory limit was changed since the formula set it, and stays."
        else:
            ret = __states__["valkey_config.managed"](
                name, config_file, settings=record["before"], connection=connection
            )
        if ret["result"] and not __opts__["test"]:
            os.unlink(record_file)
        return ret
    except (OSError, CommandExecutionError, SaltInvocationError) as err:
        return {**ret, "result": False, "changes": {}, "comment": str(err)}


def _memory_record(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as stream:
        try:
            record = json.load(stream)
        except ValueError as err:
            raise CommandExecutionError(f"{path} is not what the formula wrote: {err}. Remove it.") from err
    return record


def _note_memory(path, settings, held):
    """Keep what the server had before the formula's first limit, and what the formula sets."""
    # The limit first: the former policy, at work under the formula's limit, might evict keys.
    before = {"maxmemory": str(held["limit"]), "maxmemory-policy": held["policy"]}
    record = {"before": (_memory_record(path) or {}).get("before", before), "set": settings}
    if record != _memory_record(path):
        _write_private(path, json.dumps(record) + "\n")


def no_client_without_password(name, secure_default=False, connection=None):
    """
    Ensure that no client uses ``default`` without a password, before it gets one and before a restart hides them.

    name
        Anything; a sentence about it.
    secure_default
        Whether ``default`` may get its password although clients are connected that use it without one. Defaults to
        false: then they are named, and the state fails.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    SLS Example:

    .. code-block:: yaml

        No client uses Valkey's default user without a password:
          immich_valkey.no_client_without_password:
            - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "No client uses default without a password."}
    if secure_default:
        return {**ret, "comment": "Clients that use default without a password are not looked for."}
    try:
        clients = _clients_without_password(connection)
    except (CommandExecutionError, SaltInvocationError) as err:
        return {**ret, "result": False, "comment": _advice(str(err), getattr(err, "refused", False))}
    return {**ret, "result": False, "comment": _refusal(clients)} if clients else ret


def users_managed(name, users, connection=None):
    """
    Ensure that the ACL users are as declared, with the right rules named where those of Immich's user are refused.

    name
        Anything; a sentence about the list.
    users
        List of users as of ``immich_valkey.users``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Fails, with the rules that do, if the rules of Immich's user break what it needs or must not be able to do. Only
    the server can evaluate that: a dry run reports new rules as not checked.

    SLS Example:

    .. code-block:: yaml

        The Valkey users are as listed:
          immich_valkey.users_managed:
            - users: {{ salt["immich_valkey.users"](settings) | json }}
            - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    """
    users = _fitted(users, connection)
    ret = __states__["valkey_acl.managed"](name, users, connection=connection)
    if ret.get("broken"):
        ret["comment"] += (
            " Rules count from left to right; these meet the requirements (immich:valkey:acl_users needs no entry for"
            f" Immich): {valkey_users.RULES}"
        )
    return ret


def former_passwords_absent(name, user, connection=None):
    """
    Ensure that of the passwords of Immich's ACL user only the pillar's is left, once Immich uses that one.

    :py:func:`users_managed` gives the user a new password beside the old one, so that no login is refused meanwhile.

    name
        Anything; a sentence about it.
    user
        Name of Immich's ACL user.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    SLS Example:

    .. code-block:: yaml

        Immich's former Valkey passwords are invalid:
          immich_valkey.former_passwords_absent:
            - user: immich
            - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"The ACL user {user} has no former password."}
    only = [{"name": user, "enabled": None, "password_pillar": pillar_paths.VALKEY_PASSWORD}]
    try:
        found = __salt__["valkey_acl.compare"](only, scratch=False, connection=connection)["changes"]
        # Without a password by now, it gets its first one in this run.
        if not found or not _has_password(user, connection):
            return ret
        ret["changes"] = {f"{user} passwords": {"old": "present and former", "new": "present"}}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"The former password of {user} would be made invalid."}
        __salt__["valkey_acl.replace"](only, connection=connection)
        return {**ret, "comment": f"The former password of {user} is invalid now."}
    except (CommandExecutionError, SaltInvocationError) as err:
        if __opts__["test"] and getattr(err, "unreachable", False):
            return ret
        return {**ret, "result": False, "changes": {}, "comment": _advice(str(err), getattr(err, "refused", False))}


def _has_password(user, connection):
    held = __salt__["valkey_acl.get"](user, connection=connection)
    return bool(held and held["passwords"])


def _clients_without_password(connection):
    try:
        return _clients_of_default(connection)
    except CommandExecutionError as err:
        if __opts__["test"] and getattr(err, "unreachable", False):
            return []
        raise


def _clients_of_default(connection):
    """The clients that a password for ``default`` would lock out: none if it has one, or is disabled."""
    default = __salt__["valkey_acl.get"]("default", connection=connection)
    if not default["nopass"] or not default["enabled"]:
        return []
    listed, own = __salt__["valkey_acl.pipeline"]([["CLIENT", "LIST"], ["CLIENT", "ID"]], connection=connection)
    clients = [dict(field.split("=", 1) for field in line.split(" ")) for line in listed.splitlines()]
    return [client for client in clients if client.get("user") == "default" and client["id"] != str(own)]


def _fitted(users, connection):
    """What this server knows of users. One that cannot be asked is for whoever speaks to it next to report."""
    try:
        server = __salt__["valkey_acl.server"](connection=connection)
    except (CommandExecutionError, SaltInvocationError):
        return users
    return valkey_users.fitted(users, server)


def _refusal(clients):
    named = ", ".join(client["addr"] + (f" ({client['name']})" if client["name"] else "") for client in clients)
    return (
        f"The Valkey user default has no password, and clients use it: {named}. They would be locked out at their next"
        " connection. Give them users of their own (immich:valkey:acl_users) or the password, then set"
        " immich:valkey:secure_default: True."
    )


def _advice(comment, refused):
    if not refused:
        return comment
    return (
        f"{comment} The formula can log in as its own user, as default with immich:valkey:admin_password, or as default"
        " without a password. If the administrator's password was changed on the server, put that one into the pillar."
    )


def _write_private(path, text):
    """A file for root alone, and its folder where that is not there yet."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    durable.write(path, text, 0o600)
