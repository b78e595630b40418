"""
Manage settings of a PostgreSQL server, through ALTER SYSTEM.

Both the configuration files and the running server are compared: if a run was interrupted before a restart that was
due, the next one restarts. If the server does not start with the new settings, the former ones are put back, and the
state fails.

Requires the execution modules ``pgsql_config``, ``pgsql_server``, ``systemd_unit`` and ``netns``. Both states take
``connection``: see the execution module ``pgsql_server``, which documents it.
"""

import salt.utils.network
from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import list_settings


def __virtual__():
    if "pgsql_config.get" not in __salt__:
        return False, "pgsql_config needs the execution module pgsql_config: is psycopg2 in Salt's Python?"
    return True


def present(name, settings=None, include=None, service=None, connection=None):
    """
    Ensure that the server runs with settings, and will after a restart.

    Settings that a running server cannot apply need a restart. That happens at most once, only when the running
    server differs, and is announced.

    name
        What the state is about, for the output only.
    settings
        ``{name: value}``. Defaults to none.
    include
        ``{name: [entry, …]}``: entries that a list setting shall contain besides what it has.
        In ``listen_addresses`` a wildcard contains every address of its kind. Defaults to none.
    service
        Service to restart where one is needed, such as ``postgresql@17-main``: also for an address in
        ``listen_addresses`` that this host did not have yet when the server started.
        Defaults to none: such a setting then takes effect when the server is restarted for another reason.

    .. code-block:: yaml

        PostgreSQL listens for the containers too:
          pgsql_config.present:
            - settings:
                max_connections: 200
            - include:
                listen_addresses: [10.88.0.1]
            - service: postgresql@17-main
    """
    ret = {"name": name, "result": True, "comment": "PostgreSQL runs with the settings as specified.", "changes": {}}
    try:
        current = _current([*(settings or {}), *(include or {})], connection)
        if current is None:
            ret["result"] = None
            ret["changes"] = {
                key: {"old": None, "new": new} for key, new in {**(settings or {}), **(include or {})}.items()
            }
            ret["comment"] = f"PostgreSQL is not there yet. It would be set up{_restarted(service, 'would be')}."
            return ret
        statements = dict(settings or {})
        for key, entries in (include or {}).items():
            statements[key] = list_settings.including(key, current[key]["persisted"], entries)
        desired = {key: current[key]["below"] if value is None else value for key, value in statements.items()}
        ret = _apply(ret, current, desired, statements, service, connection)
        if ret["result"] is True and not ret["changes"] and service:
            return _listening(ret, (include or {}).get("listen_addresses", []), service, connection)
    except (CommandExecutionError, SaltInvocationError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def absent(name, include=None, service=None, connection=None):
    """
    Ensure that list settings do not contain certain entries.

    name
        What the state is about, for the output only.
    include
        ``{name: [entry, …]}``: entries that the setting shall not contain. Defaults to none.
    service
        Service to restart where one is needed. Defaults to none: the entries then go at the next restart.

    .. code-block:: yaml

        PostgreSQL no longer listens for the containers:
          pgsql_config.absent:
            - include:
                listen_addresses: [10.88.0.1]
    """
    ret = {"name": name, "result": True, "comment": "PostgreSQL runs without these settings.", "changes": {}}
    try:
        current = _current(list(include or {}), connection)
        if current is None:
            ret["comment"] = "PostgreSQL is not there."
            return ret
        desired, statements = {}, {}
        for key, entries in (include or {}).items():
            desired[key] = list_settings.excluding(key, current[key]["persisted"], entries)
            # What ALTER SYSTEM wrote is reset where it is the same as the files below it.
            as_below = not _changes({key: current[key]["below"]}, {key: desired[key]}, connection)
            statements[key] = None if as_below else desired[key]
        return _apply(ret, current, desired, statements, service, connection)
    except (CommandExecutionError, SaltInvocationError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def _current(names, connection):
    try:
        return __salt__["pgsql_config.get"](names, connection)
    except CommandExecutionError as err:
        if __opts__["test"] and getattr(err, "absent", None) == "server":
            return None
        raise


def _apply(ret, current, desired, statements, service, connection):
    """Bring files and running server to what is declared; ``statements`` are the values for ALTER SYSTEM."""
    persisted = _persisted_changes(current, desired, connection)
    running = _running_changes(current, desired, connection)
    due = {key: change for key, change in running.items() if current[key]["restart"]}
    # Without a service to restart, a setting that only waits for a restart is nothing this state can change.
    pending = {key: change for key, change in running.items() if service or key not in due}
    changes = {**pending, **persisted}
    if not changes:
        if due:
            ret["comment"] = f"At the next restart PostgreSQL applies: {', '.join(due)}."
        return ret
    if __opts__["test"]:
        ret["result"] = None
        ret["changes"] = changes
        ret["comment"] = f"PostgreSQL would be set up{_outcome(due, service, 'would be')}."
        if due and service:
            ret["restarts"] = {service: list(due)}
        return ret
    # Read while the server answers: one that does not start can neither tell nor take them.
    former = _former(current, connection) if due and service else {}
    file = __salt__["pgsql_config.auto_file"](connection) if former else None
    if persisted:
        __salt__["pgsql_config.set"]({key: statements[key] for key in persisted}, connection)
    else:
        __salt__["pgsql_server.reload"](connection)
    ret["changes"] = changes
    current = _current(list(desired), connection)
    due = {
        key: change for key, change in _running_changes(current, desired, connection).items() if current[key]["restart"]
    }
    if due and service:
        try:
            __salt__["pgsql_server.restart"](service, connection)
        except CommandExecutionError as err:
            return _not_restarted(ret, str(err), desired, former, file, service, connection)
        current = _current(list(desired), connection)
    left = {**_persisted_changes(current, desired, connection), **_running_changes(current, desired, connection)}
    if not service:
        left = {key: change for key, change in left.items() if key not in due}
    if left:
        ret["result"] = False
        ret["comment"] = (
            f"There were no errors, but these settings are not as specified: {', '.join(left)}. "
            f"Are they given on the command line of the server?"
        )
        return ret
    ret["comment"] = f"PostgreSQL was set up{_outcome(due, service, 'was')}."
    return ret


def _former(current, connection):
    """``{name: value}`` for the file of ALTER SYSTEM with which the server starts as it runs now; None is no entry."""
    waiting = _running_changes(current, {key: held["persisted"] for key, held in current.items()}, connection)

    def written(key, held):
        if key in waiting and held["restart"]:
            return held["running"]
        return held["persisted"] if held["persisted"] != held["below"] else None

    return {key: written(key, held) for key, held in current.items()}


def _not_restarted(ret, why, desired, former, file, service, connection):
    """The return after a failed restart. A server that does not start with the new settings gets the former ones."""
    if not _is_down(service, connection):
        return {**ret, "result": False, "comment": _persisted_only(service, why)}
    ret = {**ret, "result": False, "changes": {}}
    wanted = ", ".join(f"{key} {value}" for key, value in desired.items())
    try:
        __salt__["pgsql_config.restore"](file, former)
        __salt__["pgsql_server.restart"](service, connection)
    except CommandExecutionError as err:
        comment = f"{service} did not restart with {wanted}, nor with its former settings: {why} Then: {err}"
        return {**ret, "comment": comment}
    comment = f"{service} does not start with {wanted}, and runs with its former settings again. {why}"
    return {**ret, "comment": comment}


def _is_down(service, connection):
    """Whether the unit has ended. One that does not answer yet may be recovering, and is left to that."""
    if __salt__["systemd_unit.status"](service)["active"] not in ("failed", "inactive"):
        return False
    try:
        __salt__["pgsql_server.version"](connection)
    except CommandExecutionError:
        return True
    return False


def _listening(ret, entries, service, connection):
    """Restart a server that has addresses in its settings and does not listen there: it started before they were."""
    addresses = [entry for entry in entries if salt.utils.network.is_ip(entry)]
    if not addresses:
        return ret
    port = __salt__["pgsql_config.get"](["port"], connection)["port"]["running"]
    missing = __salt__["netns.without_listener"](addresses, port)
    if not missing:
        return ret
    ret["changes"] = {"listening": {"old": None, "new": ", ".join(missing)}}
    if __opts__["test"]:
        comment = f"PostgreSQL does not listen at {', '.join(missing)}{_restarted(service, 'would be')}."
        return {**ret, "result": None, "comment": comment, "restarts": {service: ["listen_addresses"]}}
    _restart(service, connection)
    left = __salt__["netns.without_listener"](missing, port)
    if left:
        comment = f"{service} was restarted and does not listen at {', '.join(left)}: does this host have the address?"
        return {**ret, "result": False, "comment": comment}
    return {**ret, "comment": f"PostgreSQL did not listen at {', '.join(missing)}{_restarted(service, 'was')}."}


def _persisted_changes(current, desired, connection):
    return _changes({key: value["persisted"] for key, value in current.items()}, desired, connection)


def _running_changes(current, desired, connection):
    running = {key: value["running"] for key, value in current.items() if value["comparable"]}
    return _changes(running, {key: desired[key] for key in running}, connection)


def _changes(old, new, connection):
    return __salt__["pgsql_config.changes"](old, new, connection)


def _outcome(due, service, verb):
    if not due:
        return ""
    if service:
        return _restarted(service, verb)
    return f"; effective after a restart of PostgreSQL: {', '.join(due)}"


def _restarted(service, verb):
    return f", and {service} {verb} restarted" if service else ""


def _restart(service, connection):
    try:
        __salt__["pgsql_server.restart"](service, connection)
    except CommandExecutionError as err:
        raise CommandExecutionError(_persisted_only(service, err)) from err


def _persisted_only(service, why):
    return f"The settings are persisted, but {service} did not restart: see `journalctl -u {service}`. {why}"
