"""
Keep units of systemd running, or enabled.

For units that need no more than that; Salt's ``service`` states know more, and start five times as many processes.

:depends: - ``_utils/systemd_looks.py``
"""

from salt.exceptions import CommandExecutionError

# What systemd calls a unit that is as wanted; one that is static or generated cannot be enabled, nor has it to be.
GOOD = {
    "enabled": {"enabled", "enabled-runtime", "static", "generated", "alias", "indirect"},
    "active": {"active", "reloading"},
}
VERBS = {"enabled": "enable", "active": "start"}


def __virtual__():
    if "systemd_unit.status" not in __salt__:
        return False, "The state systemd_unit needs the execution module systemd_unit."
    if "systemd_looks.statuses" not in __utils__:
        return False, "The state systemd_unit needs _utils/systemd_looks.py: run saltutil.sync_utils."
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
    Make sure that a unit is started at boot; whether it runs now is left alone.

    name
        Name of the unit, with its kind.

    .. code-block:: yaml

        Free blocks are trimmed weekly:
          systemd_unit.enabled:
            - name: fstrim.timer
    """
    return _managed(name, "enabled", ("enabled",))


def _managed(name, word, wanted):
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is {word} as specified"}
    try:
        before = __utils__["systemd_looks.statuses"](globals(), name)[name]
        missing = before["loaded"] == "not-found"
        if missing and not __opts__["test"]:
            return {
                **ret,
                "result": False,
                "comment": f"There is no unit {name} on this host: is its package installed?",
            }
        ret["changes"] = _changes(before, wanted)
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be {word}"}
        if before["outdated"]:
            __salt__["systemd_unit.call"]("daemon-reload")
        for key in ret["changes"]:
            __salt__["systemd_unit.call"](VERBS[key], name)
        left = _changes(__salt__["systemd_unit.status"](name), wanted)
    except CommandExecutionError as error:
        advice = f"See `systemctl status {name}` and `journalctl -u {name}`, then apply again"
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\n{advice}"}
    if left:
        return {**ret, "result": False, "comment": f"There were no errors, but {name} still is {left}"}
    return {**ret, "comment": f"{name} is {word} now"}


def _changes(status, wanted):
    return {key: {"old": status[key] or None, "new": key} for key in wanted if status[key] not in GOOD[key]}
