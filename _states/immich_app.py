"""
Immich's application on this host
=================================

The states of ``immich.app`` and ``immich.verify``. ``settings`` is what ``immich_settings.get`` returns.
"""

from pathlib import Path

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import terminal, unit_states
from host_core.command import CommandError
from immich_core import component_checks, compose, findings, postgres_extensions, run_facts, server_settings
from immich_host import identity, secret_files, service, stop_reasons, update, vector_extension
from immich_host import images as images_of_host
from immich_io import containers, last_words, lock, project

__virtualname__ = "immich_app"

# What a state reports as its comment: of a module, its arguments, a program, a compose file or the file system.
FAILURES = (CommandExecutionError, SaltInvocationError, CommandError, project.ProjectError, OSError)
SERVER = compose.SERVER
# A key of `changes`, and what a dry run knows of a service that earlier states of the run would stop.
DOWNTIME = "downtime"
FORESEEN = "stopped for the changes above"


def __virtual__():
    if "immich_app.unit" not in __salt__:
        return False, "The execution module immich_app is missing: run saltutil.sync_all"
    return __virtualname__


def images_present(name, images):
    """
    Make sure that images are on this host, before anything is stopped for them.

    name
        What the state is about, for the output.

    images
        List of full references.

    .. code-block:: yaml

        Immich's images are present:
          immich_app.images_present:
            - images: [ghcr.io/immich-app/immich-server:v3.3.1]
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The images are present"}
    try:
        missing = images_of_host.missing(images, run_facts.of(__context__))
    except FAILURES as error:
        return {**ret, "result": False, "comment": str(error)}
    if not missing:
        return ret
    ret["changes"] = {image: {"old": None, "new": "pulled"} for image in missing}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"Would be pulled: {', '.join(missing)}"}
    try:
        for image in missing:
            images_of_host.pull(image)
    except FAILURES as error:
        advice = "Nothing was stopped. Check immich:version and that this host reaches the registry, then apply again"
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\n{advice}"}
    return {**ret, "comment": f"Pulled: {', '.join(missing)}"}


def compose_file_managed(name, settings):
    """
    Make sure that the compose file is as the settings require.

    The one with which Immich serves is kept until it serves with the new one, see :py:func:`running`.

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
        if not __opts__["test"]:
            update.keep_former(settings, __context__, compose=contents)
    except FAILURES as error:
        return {"name": name, "changes": {}, "result": False, "comment": str(error)}
    return __states__["file.managed"](name, contents=contents, user="root", group="root", mode="0644")


def server_settings_managed(name, settings, user, group):
    """
    Make sure that the file with Immich's own settings says what the pillar declares as ``immich:settings``, and that
    the container's user alone can read it.

    ``changes`` names the settings, and no value. The file with which Immich serves is kept until it serves with the
    new one, see :py:func:`running`.

    name
        Path of the file.

    settings
        The formula's settings.

    user, group
        Numbers of the container's user and group.

    .. code-block:: yaml

        Immich's own settings are as declared:
          immich_app.server_settings_managed:
            - name: /opt/podman/immich/secrets/server_settings
            - settings: {{ settings | json }}
            - user: 60883
            - group: 60883
    """
    try:
        contents = secret_files.settings_text(settings, __pillar__)
        former = Path(name).read_text(encoding="utf8", errors="replace") if Path(name).exists() else None
        if not __opts__["test"]:
            update.keep_former(settings, __context__, server_settings=contents)
    except FAILURES as error:
        return {"name": name, "changes": {}, "result": False, "comment": f"immich:settings {error}"}
    owner = {"user": user, "group": group, "mode": "0400"}
    ret = __states__["file.managed"](name, contents=contents, contents_newline=False, show_changes=False, **owner)
    # What it says of the content is no more than that it differs; of a new file a dry run knows no owner.
    kept = {what: change for what, change in ret["changes"].items() if what in owner and former is not None}
    return {**ret, "changes": {**kept, **server_settings.changes(former, contents)} if ret["changes"] else {}}


def certificates_managed(name, files, user, group):
    """
    Make sure that a file has the certificates of some other ones, and that the container's user alone can read it.

    name
        Path of the file.

    files
        List of paths of files in PEM format.

    user, group
        Numbers of the container's user and group.

    .. code-block:: yaml

        The certificates that Immich trusts are present:
          immich_app.certificates_managed:
            - name: /opt/podman/immich/secrets/ca_certificates
            - files: [/etc/ssl/certs/home-ca.pem]
            - user: 60883
            - group: 60883
    """
    try:
        contents = secret_files.certificates(files).decode("ascii")
    except (*FAILURES, ValueError) as error:
        return {"name": name, "changes": {}, "result": False, "comment": str(error)}
    owner = {"user": user, "group": group, "mode": "0400"}
    return __states__["file.managed"](name, contents=contents, contents_newline=False, show_changes=False, **owner)


def _compose(settings):
    """The compose file's text; the vector extension is the one that the database has."""
    postgres = settings["postgres"]
    try:
        extension = vector_extension.of(
            postgres["database"], postgres["vector_extension"], postgres["connection"], __salt__
        )
        vector = postgres_extensions.immich_name(extension)
    except CommandExecutionError:
        if not __opts__["test"]:
            raise
        # PostgreSQL is not there yet: the plan shows what it will be if the server offers nothing else.
        vector = "vectorchord" if postgres["vector_extension"] == "vectorchord" else "pgvector"
    return compose.text(settings, vector, __grains__.get("selinux", {}).get("enabled", False))


def stopped_for_changes(name, settings):
    """
    Make sure that Immich is stopped for changes that are impossible while it runs: of its network, or of its role's
    password in PostgreSQL. Without such a change, nothing is stopped.

    :py:func:`running` starts it again.

    name
        Name of the systemd unit.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich is stopped before its network, password or identity changes:
          immich_app.stopped_for_changes:
            - name: immich.service
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"No change requires that {name} is stopped"}
    try:
        changes = identity.plan_of_run(__context__, settings, __salt__)["changes"]
        reasons = stop_reasons.found(settings, changes, __salt__, __pillar__)
        if not reasons:
            return ret
        why = " and ".join(each["seen"] for each in reasons)
        status = __salt__["systemd_unit.status"](name)
        directory = identity.project_dir(settings)
        there = containers.names(directory)
        if status["active"] in unit_states.DOWN and not there:
            return {**ret, "comment": f"{name} does not run, and {why}"}
        ret["changes"] = {name: {"old": status["active"], "new": f"stopped: {why}"}}
        if __opts__["test"]:
            run_facts.of(__context__).removed_containers = tuple(there)
            return {**ret, "result": None, "comment": f"{name} would be stopped until this run has ended: {why}"}
        service.stop(name, settings, __context__, __salt__)
    except FAILURES as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    return {**ret, "comment": f"{name} is stopped until this run has ended: {why}. If the run fails, apply again"}


def still_active(name):
    """
    Report whether Immich is active after a run that failed before it could start it. Changes nothing.

    Used with ``onfail``.

    name
        Name of the systemd unit.

    .. code-block:: yaml

        Immich is still active after a failed run:
          immich_app.still_active:
            - name: immich.service
            - onfail:
              - Immich is running
    """
    ret = {"name": name, "changes": {}, "result": True}
    if __opts__["test"]:  # where Salt takes what would change for failed
        return {**ret, "comment": "A dry run stops nothing"}
    try:
        active = __salt__["systemd_unit.status"](name)["active"] == "active"
    except FAILURES as error:
        return {**ret, "result": False, "comment": str(error)}
    if active:
        return {**ret, "comment": f"{name} is active. What failed above did not stop it"}
    comment = f"{name} is stopped. Fix what failed above, then apply again: that continues from there and starts it"
    return {**ret, "result": False, "comment": comment}


def running(name, settings):
    """
    Make sure that the service is enabled, active, and that each container is the one that the compose file describes.

    Only containers that differ are recreated: by their definition, their image, or a secret written after they were
    made; ``recreated`` of the return names them. The network stays. If the server does not answer meanwhile,
    ``changes`` and comment report how long.

    An update that does not serve is rolled back, and so is a change of settings after which a server that answered
    before does not.

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
        ret["changes"], recreated = _service_changes(_foreseen_status(name), settings)
        if recreated:
            ret["recreated"] = recreated
        if not ret["changes"] or __opts__["test"]:
            return _unchanged(ret, name, settings)
        restore = lock.restore_under_way()
        if restore:  # begun since this run has looked
            return {**ret, "result": False, "changes": {}, "comment": restore}
        downtime = service.bring_up(name, settings, __context__, __salt__)
        ret["changes"].pop(DOWNTIME, None)
        if downtime is not None:
            ret["changes"][DOWNTIME] = {"old": None, "new": f"{downtime} s"}
        left, _ = _service_changes(__salt__["systemd_unit.status"](name), settings)
        left.pop(DOWNTIME, None)
    except FAILURES as error:
        if __opts__["test"]:
            return {**ret, "result": False, "changes": {}, "comment": str(error)}
        words = last_words.of(name) or error
        return {**ret, "result": False, "changes": {}, "comment": _failed(name, words, settings)}
    if left:
        return {
            **ret,
            "result": False,
            "comment": f"There were no errors, but this is still not as specified: {left}",
        }
    return _finished({**ret, "comment": _running_comment(ret["changes"], "was")}, settings)


def _foreseen_status(name):
    """What systemd says of the unit; in a dry run, what it would say after the states before this one."""
    status = __salt__["systemd_unit.status"](name)
    stopped = __opts__["test"] and run_facts.of(__context__).removed_containers is not None
    if stopped and status["active"] == "active":
        return {**status, "active": FORESEEN}
    return status


def _unchanged(ret, name, settings):
    """The return where nothing is started: nothing differs, or it is a dry run."""
    if ret["changes"]:
        return {**ret, "result": None, "comment": _running_comment(ret["changes"], "would be")}
    return ret if __opts__["test"] else _finished(ret, settings)


def _finished(ret, settings):
    """The return where Immich serves. A record that stays would have the next run take this one for a failed one."""
    try:
        update.finish(settings, __context__)
    except FAILURES as error:
        return {**ret, "result": False, "comment": f"{ret['comment']}. The record of the update stays: {error}"}
    return ret


def _failed(name, words, settings):
    """Why Immich does not serve, and what became of the update or the change of settings that was the reason."""
    try:
        return update.roll_back(name, settings, str(words), __context__, __salt__) or _failure(name, words)
    except FAILURES as error:
        return f"{_failure(name, words)}\nIt could not be rolled back: {error}"


def _service_changes(status, settings):
    """What differs, as ``changes`` has it, and the names of the containers that are recreated for that."""
    changes = {}
    if status["enabled"] != "enabled":
        changes["enabled"] = {"old": status["enabled"] or None, "new": "enabled"}
    if status["outdated"]:
        changes["unit file"] = {"old": "as systemd read it before", "new": "reloaded"}
    if status["active"] != "active":
        changes["service"] = {"old": status["active"], "new": "active"}
        known = status["active"] == FORESEEN or run_facts.of(__context__).served_until is not None
        return {**changes, **(_downtime() if known else {})}, []
    plan = containers.compared(settings["project_dir"], _compose(settings), run_facts.of(__context__))
    if SERVER not in plan["recreate"] and _secret_would_change(settings):
        plan["recreate"][SERVER] = "a secret changed"
    for recreated, why in plan["recreate"].items():
        changes[recreated] = {"old": "running", "new": f"recreated: {why}"}
    if SERVER in plan["recreate"]:
        changes.update(_downtime())
    for container in plan["remove"]:
        changes[container] = {"old": "running", "new": "removed"}
    return changes, list(plan["recreate"])


def _secret_would_change(settings):
    """
    In a dry run, whether a file of a secret has not what the pillar says. In a real run it has, and is newer.

    A `watch` would not do: Salt runs `mod_watch` after a state that failed, too, and shows its words instead.
    """
    if not __opts__["test"]:
        return False
    folder = Path(settings["project_dir"], "secrets")
    return any(_differs(folder / name, text) for name, text in secret_files.desired(settings, __pillar__).items())


def _differs(file, desired):
    return desired is not None and not (file.is_file() and file.read_bytes() == desired)


def _downtime():
    return {DOWNTIME: {"old": None, "new": "as long as the server takes to stop and to start"}}


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
        status = __salt__["systemd_unit.status"](name)
        left = containers.names(directory)
        if status["active"] not in unit_states.DOWN:
            ret["changes"]["service"] = {"old": status["active"], "new": "inactive"}
        if status["enabled"] == "enabled":
            ret["changes"]["enabled"] = {"old": "enabled", "new": "disabled"}
        if left:
            ret["changes"]["containers"] = {"old": left, "new": None}
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be stopped and disabled, its containers removed"}
        if status["active"] != "inactive" or status["enabled"] == "enabled":
            __salt__["systemd_unit.call"]("disable", "--now", name)
        containers.remove(directory)
    except FAILURES as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    return ret


def verified(name, settings):
    """
    Report what is not as declared, with the next step: what the registry of components names as units, checks and
    warnings. Changes nothing.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich is as declared:
          immich_app.verified:
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Everything is as declared"}
    try:
        if __opts__["test"] and "app" in settings["components"] and not _active("immich.service"):
            return {**ret, "result": None, "comment": "Would be verified once it runs", "deferred": True}
    except FAILURES as error:
        return {**ret, "result": False, "comment": str(error)}
    broken = component_checks.findings_of(settings["components"], __salt__, settings)
    if broken:
        return {**ret, "result": None if __opts__["test"] else False, "comment": "\n".join(_sentences(broken))}
    # A return with an empty list of them would be shown as a warning.
    found = component_checks.warnings_of(settings["components"], __salt__, settings)
    warnings = [each for each in found if each["severity"] != findings.NOTE]
    return {**ret, "warnings": _sentences(warnings)} if warnings else ret


def _active(unit):
    return __salt__["systemd_unit.status"](unit)["active"] == "active"


def _sentences(found):
    return [terminal.plain(findings.sentence(each)) for each in found]
