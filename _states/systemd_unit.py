"""
Keep units of systemd running, enabled, or loaded from their current files.

For units that need no more than that; Salt's ``service`` states know more, and start five times as many processes.
"""

import os

from salt.exceptions import CommandExecutionError

from host_core import unit_states

# What systemd calls a unit that is as desired; one that is static or generated cannot be enabled, nor has it to be.
GOOD = {
    "enabled": {"enabled", "enabled-runtime", "static", "generated", "alias", "indirect"},
    "active": unit_states.RUNNING,
}
VERBS = {"enabled": "enable", "active": "start"}


def __virtual__():
    if "systemd_unit.status" not in __salt__:
        return False, "The state systemd_unit needs the execution module systemd_unit."
    return True


def running(name):
    """
    Make sure that a unit is enabled and active.

    name
        Name of the unit, with its kind.

    .. code-block:: yaml

        Valkey is running:
          systemd_unit.running:
            - name: valkey-server.service
    """
    return _managed(name, "running", ("enabled", "active"))


def enabled(name):
    """
    Make sure that a unit is started at boot; whether it runs now is ignored.

    name
        Name of the unit, with its kind.

    .. code-block:: yaml

        Free blocks are trimmed weekly:
          systemd_unit.enabled:
            - name: fstrim.timer
    """
    return _managed(name, "enabled", ("enabled",))


def loaded(name):
    """
    Make sure that systemd has loaded the unit's files as they are on the disk; nothing is restarted.

    name
        Name of the unit, with its kind.

    Let it ``watch`` the states that write these files: then a dry run reports it too, before a file has changed.

    .. code-block:: yaml

        systemd has loaded the files of Valkey's unit:
          systemd_unit.loaded:
            - name: valkey-server.service
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"systemd has loaded the files of {name}"}
    try:
        if __salt__["systemd_unit.status"](name)["outdated"]:
            return _reloaded(ret)
    except CommandExecutionError as error:
        return {**ret, "result": False, "comment": str(error)}
    return ret


def files_absent(name, files):
    """
    Make sure that unit files are absent from the disk and not loaded by systemd.

    name
        What the state is about, for the output.

    files
        List of paths: unit files, drop-ins, and what belongs to them.

    .. code-block:: yaml

        The files of the backup's units are absent:
          systemd_unit.files_absent:
            - files:
              - /etc/systemd/system/t-backup.service
              - /etc/systemd/system/t-backup.timer
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The files are absent"}
    present = [path for path in files if os.path.lexists(path)]
    if not present:
        return ret
    ret["changes"] = {path: {"old": "present", "new": None} for path in present}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"Would be removed: {', '.join(present)}"}
    try:
        for path in present:
            os.unlink(path)
        __salt__["systemd_unit.call"]("daemon-reload")
    except (OSError, CommandExecutionError) as error:
        gone = {path: change for path, change in ret["changes"].items() if not os.path.lexists(path)}
        return {**ret, "result": False, "changes": gone, "comment": str(error)}
    return {**ret, "comment": f"Removed: {', '.join(present)}"}


def mod_watch(name, **_):
    """
    Read the unit's files again after a watched file has changed, or would in a dry run.

    .. note::
        Not to be called directly: Salt does, where ``loaded`` itself found nothing to do.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    try:
        return _reloaded(ret)
    except CommandExecutionError as error:
        return {**ret, "result": False, "comment": str(error)}


def _reloaded(ret):
    ret["changes"] = {"files": {"old": "outdated", "new": "loaded"}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"systemd would read the files of {ret['name']} again"}
    __salt__["systemd_unit.call"]("daemon-reload")
    return {**ret, "comment": f"systemd has read the files of {ret['name']} again"}


def _managed(name, word, desired):
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is {word} as specified"}
    try:
        before = __salt__["systemd_unit.status"](name)
        if "active" in desired and before["active"] == "activating" and not __opts__["test"]:
            # It is being started: this waits until it is active, and is no change of this state.
            __salt__["systemd_unit.call"]("start", name)
            before = __salt__["systemd_unit.status"](name)
        missing = before["loaded"] == "not-found"
        if missing and not __opts__["test"]:
            return {
                **ret,
                "result": False,
                "comment": f"There is no unit {name} on this host: is its package installed?",
            }
        ret["changes"] = _changes(before, desired)
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be {word}"}
        if before["outdated"]:
            __salt__["systemd_unit.call"]("daemon-reload")
        for key in ret["changes"]:
            __salt__["systemd_unit.call"](VERBS[key], name)
        left = _changes(__salt__["systemd_unit.status"](name), desired)
    except CommandExecutionError as error:
        advice = f"See `systemctl status {name}` and `journalctl -u {name}`, then apply again"
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\n{advice}"}
    if left:
        return {**ret, "result": False, "comment": f"There were no errors, but {name} still is {left}"}
    return {**ret, "comment": f"{name} is {word} now"}


def _changes(status, desired):
    return {key: {"old": status[key] or None, "new": key} for key in desired if status[key] not in GOOD[key]}
