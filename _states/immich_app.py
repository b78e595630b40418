"""
Immich's application on this host
=================================

The states of ``immich.app`` and ``immich.verify``. ``settings`` is what ``immich_settings.get`` returns.
"""

import os

from salt.exceptions import CommandExecutionError

__virtualname__ = "immich_app"


def __virtual__():
    if "immich_app.project" not in __salt__:
        return False, "The execution module immich_app is missing: run saltutil.sync_all"
    return __virtualname__


def library_present(name, compose_file, moved_from=None, user=0, group=0):
    """
    Make sure that the folder of the uploads exists and is still the one that the installation used before.

    Nothing is created below a mount point that is not mounted: Immich would start on an empty library.

    name
        Absolute path of the uploads.

    compose_file
        Path of the compose file, which knows the path used before.

    moved_from
        The path used before, to say that its content was moved to the new one. Default: none.

    user, group
        Numeric owner of a folder that has to be made, 0 by default. An existing folder is left as it is.

    .. code-block:: yaml

        Immich's library is present:
          immich_app.library_present:
            - name: /srv/immich/upload
            - compose_file: /opt/podman/immich/docker-compose.yml
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"The library {name} is present"}
    try:
        refusal = _library_refusal(name, compose_file, moved_from)
    except CommandExecutionError as error:
        refusal = str(error)
    if refusal:
        return {**ret, "result": False, "comment": refusal}
    if os.path.isdir(name):
        return ret
    ret["changes"] = {"directory": {"old": None, "new": name}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"The library {name} would be created"}
    made = __states__["file.directory"](name, user=user, group=group, mode="0750", makedirs=True)
    if not made["result"]:
        return {**ret, "result": False, "changes": {}, "comment": made["comment"]}
    return {**ret, "comment": f"The library {name} was created"}


def _library_refusal(path, compose_file, moved_from):
    """Why this library must not be used, or None."""
    mount = __salt__["immich_app.mount_missing"](path)
    if mount:
        return f"{mount} stands in /etc/fstab and is not mounted. Mount it (`mount {mount}`), then apply again"
    before = __salt__["immich_app.upload_location"](compose_file)
    moved_from = moved_from and os.path.normpath(moved_from)
    if before in (None, path):
        if before and not os.path.isdir(path):
            return (
                f"{path} was this installation's library and is gone: a mount missing? If it is really to start empty, "
                f"create the folder by hand"
            )
        return None
    if moved_from == before:
        return None if os.path.isdir(path) else f"{path} is not there, though {before} was said to be moved to it"
    return (
        f"The installation's library is {before}, and immich:upload_location is {path}. Nothing was changed. Move the "
        f"files, then say so in the pillar: immich:upload_location_moved_from: {before}"
    )


def images_present(name, images):
    """
    Make sure that images are on this host, before anything that runs is stopped for them.

    name
        What the state is about, for the output.

    images
        List of full references.

    .. code-block:: yaml

        Immich's images are present:
          immich_app.images_present:
            - images: [ghcr.io/immich-app/immich-server:v3.0.3]
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The images are present"}
    missing = __salt__["immich_app.images_missing"](images)
    if not missing:
        return ret
    ret["changes"] = {image: {"old": None, "new": "pulled"} for image in missing}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"Would be pulled: {', '.join(missing)}"}
    try:
        for image in missing:
            __salt__["immich_app.pull"](image)
    except CommandExecutionError as error:
        advice = "Nothing was stopped. Check immich:version and that this host reaches the registry, then apply again"
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\n{advice}"}
    return {**ret, "comment": f"Pulled: {', '.join(missing)}"}


def compose_file_managed(name, settings):
    """
    Make sure that the compose file says what the settings want.

    name
        Path of ``docker-compose.yml``.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich's compose file is managed:
          immich_app.compose_file_managed:
            - name: /opt/podman/immich/docker-compose.yml
            - settings: {{ settings | json }}
    """
    try:
        contents = _compose(settings)
    except CommandExecutionError as error:
        return {"name": name, "changes": {}, "result": False, "comment": str(error)}
    return __states__["file.managed"](name, contents=contents, user="root", group="root", mode="0644")


def _compose(settings):
    """The compose file's text; the vector extension is the one that the database has."""
    postgres = settings["postgres"]
    try:
        vector = __salt__["immich_postgres.vector_extension_setting"](
            postgres["database"], postgres["vector_extension"], connection=postgres["connection"]
        )
    except CommandExecutionError:
        if not __opts__["test"]:
            raise
        # PostgreSQL is not there yet: the plan shows what it will be if the server offers nothing else.
        vector = "vectorchord" if postgres["vector_extension"] == "vectorchord" else "pgvector"
    return __salt__["immich_app.project_yaml"](settings, vector)


def running(name, settings):
    """
    Make sure that the service is enabled, active, and that each container is the one that the compose file describes.

    Only containers that differ are recreated: by their definition, their image, or a secret written after they were
    made. The network stays.

    name
        Name of the systemd unit.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich is running:
          immich_app.running:
            - name: immich.service
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is running as specified"}
    try:
        before = __salt__["immich_app.service_status"](name)
        ret["changes"] = _service_changes(before, settings)
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": _running_comment(ret["changes"], "would be")}
        _bring_up(name, before)
        left = _service_changes(__salt__["immich_app.service_status"](name), settings)
    except CommandExecutionError as error:
        words = __salt__["immich_app.last_words"](name) or error
        return {**ret, "result": False, "changes": {}, "comment": _failure(name, words)}
    if left:
        return {
            **ret,
            "result": False,
            "comment": f"There were no errors, but this is still not as specified: {left}",
        }
    return {**ret, "comment": _running_comment(ret["changes"], "was")}


def mod_watch(name, settings, sfun=None, **_):
    """
    Recreate the server's container because something it reads once, at its start, changed.

    Reached in a dry run only: in a real run :py:func:`running` has seen the newer file itself.
    """
    ret = running(name, settings)
    if ret["changes"] or not __opts__["test"]:
        return ret
    changes = {"immich-server": {"old": "running", "new": "recreated: a secret changed"}}
    return {**ret, "result": None, "changes": changes, "comment": _running_comment(changes, "would be")}


def _service_changes(status, settings):
    changes = {}
    if status["enabled"] != "enabled":
        changes["enabled"] = {"old": status["enabled"] or None, "new": "enabled"}
    if status["outdated"]:
        changes["unit file"] = {"old": "as systemd read it before", "new": "reloaded"}
    if status["active"] != "active":
        return {**changes, "service": {"old": status["active"], "new": "active"}}
    plan = __salt__["immich_app.plan"](settings, _compose(settings))
    for service, why in plan["recreate"].items():
        changes[service] = {"old": "running", "new": f"recreated: {why}"}
    for container in plan["remove"]:
        changes[container] = {"old": "running", "new": "removed"}
    return changes


# A reload recreates what differs; the rest serves on. A unit between two states is at work with what was before.
VERBS = {"active": "reload", "inactive": "start", "failed": "start"}


def _bring_up(unit, before):
    if before["outdated"]:
        _systemctl("daemon-reload")
    if before["enabled"] != "enabled":
        _systemctl("enable", unit)
    _systemctl(VERBS.get(before["active"], "restart"), unit)


def _systemctl(*arguments):
    done = __salt__["cmd.run_all"](["systemctl", *arguments], python_shell=False, ignore_retcode=True)
    if done["retcode"]:
        raise CommandExecutionError(done["stderr"].strip() or f"systemctl {' '.join(arguments)} failed")


def _running_comment(changes, verb):
    return "; ".join(f"{what} {verb} {change['new']}" for what, change in changes.items())


def _failure(unit, text):
    return f"{unit} does not serve: {text}\nSee `journalctl -u {unit}` and `systemctl status {unit}`, then apply again"


def dead(name, directory):
    """
    Make sure that the service is stopped and not started at boot, and that none of its containers is left, not even
    one that was started by hand. The network stays.

    name
        Name of the systemd unit. A unit that does not exist is dead.

    directory
        Directory of the compose project.

    .. code-block:: yaml

        Immich is dead:
          immich_app.dead:
            - name: immich.service
            - directory: /opt/podman/immich
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is stopped and disabled"}
    try:
        status = __salt__["immich_app.service_status"](name)
        containers = __salt__["immich_app.containers"](directory)
        if status["active"] not in ("inactive", "failed"):
            ret["changes"]["service"] = {"old": status["active"], "new": "inactive"}
        if status["enabled"] == "enabled":
            ret["changes"]["enabled"] = {"old": "enabled", "new": "disabled"}
        if containers:
            ret["changes"]["containers"] = {"old": containers, "new": None}
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be stopped and disabled, its containers removed"}
        if status["active"] != "inactive" or status["enabled"] == "enabled":
            _systemctl("disable", "--now", name)
        if __salt__["immich_app.containers"](directory):
            __salt__["immich_app.remove_containers"](directory)
    except CommandExecutionError as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    return ret


def units_absent(name, files):
    """
    Make sure that unit files are gone, from the disk and from systemd's memory.

    name
        What the state is about, for the output.

    files
        List of paths: unit files, drop-ins, and what belongs to them.

    .. code-block:: yaml

        Immich's unit is absent:
          immich_app.units_absent:
            - files: [/etc/systemd/system/immich.service]
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The files are absent"}
    there = [path for path in files if os.path.lexists(path)]
    if not there:
        return ret
    ret["changes"] = {path: {"old": "present", "new": None} for path in there}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"Would be removed: {', '.join(there)}"}
    try:
        for path in there:
            os.unlink(path)
        _systemctl("daemon-reload")
    except (OSError, CommandExecutionError) as error:
        return {**ret, "result": False, "comment": str(error)}
    return {**ret, "comment": f"Removed: {', '.join(there)}"}


def verified(name, settings):
    """
    Say whether everything is as promised, and what to do where it is not. Changes nothing.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich is as promised:
          immich_app.verified:
            - settings: {{ settings | json }}
    """
    ret = {
        "name": name,
        "changes": {},
        "result": True,
        "comment": "Everything is as promised",
        "warnings": [],
    }
    if __opts__["test"] and __salt__["immich_app.service_status"]()["active"] != "active":
        return {**ret, "result": None, "comment": "Would be verified once it runs"}
    broken = []
    for module in ("immich_app", "immich_postgres", "immich_valkey", "immich_gateway"):
        try:
            broken += __salt__[f"{module}.verify"](settings)
        except CommandExecutionError as error:
            broken.append(str(error))
    if broken:
        return {**ret, "result": None if __opts__["test"] else False, "comment": "\n".join(broken)}
    ret["warnings"] = __salt__["immich_app.listens_everywhere"](settings, __salt__["immich_app.listening"]())
    ret["warnings"] += __salt__["immich.backup_warnings"](settings)
    if not __salt__["immich_app.initialized"](settings):
        ret["warnings"].append(
            f"Nobody has signed up as administrator yet: whoever opens port {settings['port']} first can. Do it now at "
            f"{__salt__['immich_app.server_url'](settings)}"
        )
    return ret
