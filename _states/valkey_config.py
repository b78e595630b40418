"""
Keep directives of a Valkey or Redis server as declared, in its configuration file and in the running server.

What is not declared is ignored. The server is restarted only if it runs without something that it takes over
at its start alone, at most once, and never again for the same thing; also if an earlier run was interrupted
between writing and restarting.
"""

import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "valkey_config"


def __virtual__():
    if "valkey_config.compare" not in __salt__:
        return False, "The execution module valkey_config is not available: it needs the Python library redis."
    return __virtualname__


def managed(
    name,
    config_file,
    include=None,
    settings=None,
    acl_file=None,
    service=None,
    user=None,
    group=None,
    connection=None,
):
    """
    Ensure that a server has these directives, and an ACL file.

    name
        Anything; a sentence about the configuration.
    config_file
        Path of the configuration file.
    include
        Words that directives have besides what they have, as ``bind: [192.0.2.1]``. Defaults to none.
    settings
        Values of directives, as ``maxmemory: 1gb``. Defaults to none.
    acl_file
        Path of the ACL file to switch on where the server has none. All its users move there, and the password of
        ``default``; ``user`` lines and ``requirepass`` are taken out of the configuration file, with which the
        server would not start. Must be in a folder that the server may write to. Defaults to no change.
    service
        Name of the service to restart where that is needed. Defaults to none, and then a needed restart is a
        failure.
    user, group
        Owner of the ACL file. Default to those of the configuration file.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Fails before it changes anything if the server is to listen at an address that the host does not have: it would
    not start again.

    SLS Example:

    .. code-block:: yaml

        Valkey listens at one more address and keeps its users in a file:
          valkey_config.managed:
            - config_file: /etc/valkey/valkey.conf
            - include:
                bind: [192.0.2.1]
            - acl_file: /etc/valkey/users.acl
            - service: valkey-server
    """
    declared = {"config_file": config_file, "include": include, "settings": settings, "acl_file": acl_file}
    return _ensure(name, declared, service, connection, user=user, group=group)


def in_file(name, config_file, settings):
    """
    Ensure that the configuration file has directives, without a server that runs: it reads them when it starts.

    name
        Anything; a sentence about the configuration.
    config_file
        Path of the configuration file.
    settings
        Values of directives, as ``port: 6379``.

    SLS Example:

    .. code-block:: yaml

        Valkey's configuration has the declared port:
          valkey_config.in_file:
            - config_file: /etc/valkey/valkey.conf
            - settings:
                port: 6379
    """
    ret = {"name": name, "result": True, "comment": "The file is as specified.", "changes": {}}
    test = __opts__["test"]
    if test and not os.path.exists(config_file):
        comment = f"{config_file} is not there yet; it would have the directives."
        return {**ret, "result": None, "deferred": True, "comment": comment}
    try:
        ret["changes"] = __salt__["valkey_config.write"](config_file, settings, test=test)
    except (CommandExecutionError, SaltInvocationError) as err:
        return {**ret, "result": False, "comment": str(err)}
    if not ret["changes"]:
        return ret
    changed = ", ".join(ret["changes"])
    if test:
        return {**ret, "result": None, "comment": f"Would be changed in {config_file}: {changed}."}
    return {**ret, "comment": f"Changed in {config_file}: {changed}."}


def absent(name, config_file, include, connection=None):
    """
    Ensure that directives do not have certain words; the inverse of ``include`` above.

    name
        Anything; a sentence about the configuration.
    config_file
        Path of the configuration file.
    include
        Words that directives do not have, as ``bind: [192.0.2.1]``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`.

    An ACL file stays: without it the users would be lost. Fails if nothing would be left of a directive.

    SLS Example:

    .. code-block:: yaml

        Valkey listens at the address no more:
          valkey_config.absent:
            - config_file: /etc/valkey/valkey.conf
            - include:
                bind: [192.0.2.1]
    """
    return _ensure(name, {"config_file": config_file, "exclude": include}, None, connection)


def _ensure(name, declared, service, connection, **owner):
    ret = {"name": name, "result": True, "comment": "The configuration is as specified.", "changes": {}}
    test = __opts__["test"]
    if test and not os.path.exists(declared["config_file"]):
        ret["changes"] = {declared["config_file"]: {"old": None, "new": "configured"}}
        return {**ret, "result": None, "comment": "The server is not there yet; it would be configured and restarted."}
    try:
        found = __salt__["valkey_config.compare"](**declared, connection=connection)
        ret["changes"] = found["changes"]
        if found["absent"] and not test:
            return {**ret, "result": False, "changes": {}, "comment": _absence(found["absent"])}
        if not ret["changes"] and not found["absent"]:
            return ret
        if found["restart"] and not service:
            comment = f"The server has to be restarted for {', '.join(found['restart'])}, and no service is named."
            return {**ret, "result": False, "changes": {}, "comment": comment}
        if test:
            restarts = {"restarts": {service: found["restart"]}} if found["restart"] else {}
            deferred = {} if found["changes"] else {"deferred": True}
            return {**ret, **restarts, **deferred, "result": None, "comment": _announcement(found, service)}
        restart = __salt__["valkey_config.apply"](**declared, **owner, connection=connection)
        if restart:
            _restart(restart, service, connection)
        left = __salt__["valkey_config.compare"](**declared, connection=connection)["changes"]
        if left:
            comment = f"There were no errors, but the server disagrees about: {', '.join(sorted(left))}."
            return {**ret, "result": False, "comment": comment}
        ret["comment"] = f"Changed: {', '.join(sorted(ret['changes']))}."
        if restart:
            ret["comment"] += f" {service} was restarted once, for {', '.join(restart)}."
        return ret
    except (CommandExecutionError, SaltInvocationError) as err:
        if test and getattr(err, "unreachable", False):
            # The server may be what this very run would install or start.
            return {**ret, **_unseen(declared, err, service)}
        return {**ret, "result": False, "changes": {}, "comment": str(err)}


def _restart(directives, service, connection):
    if not service:
        raise CommandExecutionError(f"Written, but the server has to be restarted for {', '.join(directives)}.")
    __salt__["valkey_config.restart"](service, connection=connection)
    if "aclfile" in directives:
        # A folder that the server may not write to fails this run, not a later one.
        __salt__["valkey_acl.save"](connection=connection)


def _announcement(found, service):
    comment = f"Would be changed: {', '.join(sorted(found['changes'])) or 'nothing yet'}."
    if found["restart"]:
        comment += f" {service} would be restarted once, for {', '.join(found['restart'])}."
    if found["absent"]:
        comment += f" This host does not have the address {', '.join(found['absent'])} yet."
    return comment


def _absence(addresses):
    return (
        f"This host does not have the address {', '.join(addresses)}, and the server would stop at its next start"
        " with it in `bind`. Add the address first; nothing was changed."
    )


def _unseen(declared, err, service):
    """Result on a server that cannot be asked yet."""
    names = {**(declared.get("include") or {}), **(declared.get("exclude") or {}), **(declared.get("settings") or {})}
    if declared.get("acl_file"):
        names["aclfile"] = declared["acl_file"]
    changes = {name: {"old": None, "new": "as specified"} for name in names}
    comment = f"{err} If this run starts it, it would be configured"
    comment += f", and {service} would be restarted once." if service and declared.get("acl_file") else "."
    return {"result": None, "changes": changes, "comment": comment}
