"""
Backups of Immich's database on this host
=========================================

The states of ``immich.backup``.
"""

from salt.exceptions import CommandExecutionError

from host_core import mounts, pillar, unit_states

__virtualname__ = "immich_backup"


def __virtual__():
    if "immich.backup_plan" not in __salt__:
        return False, "The execution module immich is missing: run saltutil.sync_all"
    return __virtualname__


def directory_present(name, user):
    """
    Make sure that the directory of the backups exists and that only its user can read it.

    Nothing is created below a mount point that is not mounted: the backups would fill the wrong disk.

    name
        Absolute path.

    user
        Who dumps.

    .. code-block:: yaml

        The directory of the backups is present:
          immich_backup.directory_present:
            - name: /var/backups/immich
            - user: postgres
    """
    mount = mounts.missing(name)
    if mount:
        comment = f"{mount} is in /etc/fstab and is not mounted. Mount it (`mount {mount}`), then apply again"
        return {"name": name, "changes": {}, "result": False, "comment": comment}
    if __opts__["test"] and not __salt__["user.info"](user):
        user = None  # comes with PostgreSQL's package, and Salt would log a warning
    return __states__["file.directory"](name, user=user, mode="0700", makedirs=True)


def passfile_managed(name, password_pillar, user):
    """
    Make sure that a file has the password of the database's administrator, in libpq's format.

    The form is that of the chapter *The Password File* in PostgreSQL's documentation: its line matches every server,
    since only one program reads it.

    name
        Path of the file.

    password_pillar
        Pillar path of the password, as in ``immich:postgres:admin:password``.

    user
        The only one who can read it.

    .. code-block:: yaml

        The backup's password is managed:
          immich_backup.passfile_managed:
            - name: /etc/immich-formula/backup.pgpass
            - password_pillar: immich:postgres:admin:password
            - user: root
    """
    password = pillar.value(__pillar__, password_pillar)
    if not isinstance(password, str):
        comment = f"The pillar has no password at {password_pillar}"
        return {"name": name, "changes": {}, "result": False, "comment": comment}
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return __states__["file.managed"](
        name, contents=f"*:*:*:*:{escaped}", user=user, group="root", mode="0600", show_changes=False
    )


def scheduled(name, enabled=True):
    """
    Make sure that systemd has loaded the current unit files, and that the timer runs, or does not.

    name
        Name of the timer. Its service has the same name.

    enabled
        Whether the timer runs, now and after a boot. Defaults to ``True``.

    .. code-block:: yaml

        Backups are scheduled:
          immich_backup.scheduled:
            - name: immich-backup.timer
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is as specified"}
    try:
        units = __salt__["systemd_unit.statuses"](name, _service(name))
        ret["changes"] = _timer_changes(units[name], enabled)
        if __opts__["test"]:
            verb = "started" if enabled else "stopped"
            return {**ret, "result": None, "comment": f"{name} would be {verb}"} if ret["changes"] else ret
        if any(unit["outdated"] for unit in units.values()):
            __salt__["systemd_unit.call"]("daemon-reload")
        if not ret["changes"]:
            return ret
        __salt__["systemd_unit.call"]("enable" if enabled else "disable", "--now", name)
        left = _timer_changes(__salt__["systemd_unit.status"](name), enabled)
    except CommandExecutionError as error:
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\nSee `systemctl status {name}`"}
    if left:
        return {
            **ret,
            "result": False,
            "comment": f"There were no errors, but {name} is still not as specified: {left}",
        }
    return {**ret, "comment": f"{name} was {'started' if enabled else 'stopped'}"}


def _service(timer):
    return timer.removesuffix(".timer") + ".service"


def _timer_changes(status, enabled):
    desired = {"timer": "active", "enabled": "enabled"} if enabled else {"timer": "inactive", "enabled": "disabled"}
    there = {"timer": status["active"], "enabled": status["enabled"] or "disabled"}
    return {key: {"old": there[key], "new": value} for key, value in desired.items() if there[key] != value}


def service_dead(name):
    """
    Make sure that a service is not running.

    name
        Name of the service. One that does not exist counts as dead.

    .. code-block:: yaml

        No backup of the library is running:
          immich_backup.service_dead:
            - name: immich-library-backup.service
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is stopped"}
    try:
        active = __salt__["systemd_unit.status"](name)["active"]
        if active in unit_states.DOWN:
            return ret
        ret["changes"] = {"service": {"old": active, "new": "inactive"}}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be stopped"}
        __salt__["systemd_unit.call"]("stop", name)
    except CommandExecutionError as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    return {**ret, "comment": f"{name} was stopped"}


def dead(name):
    """
    Make sure that no backup is running, and none is scheduled.

    name
        Name of the timer. Its service has the same name. A timer that does not exist counts as dead.

    .. code-block:: yaml

        No backup runs or is scheduled:
          immich_backup.dead:
            - name: immich-backup.timer
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is stopped and not scheduled"}
    try:
        units = __salt__["systemd_unit.statuses"](name, _service(name))
        ret["changes"] = _timer_changes(units[name], False)
        service = units[_service(name)]["active"]
        if service not in unit_states.DOWN:
            ret["changes"]["service"] = {"old": service, "new": "inactive"}
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be stopped"}
        __salt__["systemd_unit.call"]("disable", "--now", name)
        __salt__["systemd_unit.call"]("stop", _service(name))
    except CommandExecutionError as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    return {**ret, "comment": f"{name} was stopped"}
