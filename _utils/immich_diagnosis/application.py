"""
Part: what is deployed, and whether it runs
===========================================
"""

from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import podman, unit_states
from immich_core import compose, run_facts, server_settings, stack_status, update_plan, versions
from immich_diagnosis.check import FAILED, OK, WARNING, Check, NotCheckedError, call, need, of_finding
from immich_diagnosis.facts import SERVER, compose_of, postgres_connection, settings_of
from immich_diagnosis.permissions import may, user_ids
from immich_diagnosis.words import one_line, remedy_for
from immich_host import images, secret_files, update
from immich_io import compose_file, containers, last_words, project, untrusted

# What the pillar says of each file below `secrets/`.
SECRETS_DECLARED = {
    **compose.SECRETS,
    compose.SERVER_SETTINGS: f"immich:{server_settings.KEY}",
    compose.CA_CERTIFICATES: "immich:server:ca_certificates",
}


def _compose_file(here):
    settings, path = settings_of(here), f"{here['directory']}/docker-compose.yml"
    if not here["compose_text"]:
        return [(FAILED, f"{path} is not there: nothing is deployed", "salt-call state.apply immich")]
    try:
        selinux = call(here, "grains.get", "selinux:enabled", False)
        found = compose_file.deviations(settings, here["compose_text"], selinux)
    except compose_file.ComposeFileError as error:
        # An apply refuses it as it is: it would have to guess which library the installation had.
        return [(FAILED, f"{path}: {error}", f"mv {path} {path}.broken && salt-call state.apply immich")]
    seen = "; ".join(found["differences"][:3])
    if found["by_hand"]:
        # Its containers carry the label that the file will have again: only a restart recreates them.
        advice = "salt-call state.apply immich.app && systemctl restart immich"
        return [(FAILED, f"{path} was changed by hand: {seen or ', '.join(found['by_hand'])}", advice)]
    if seen:
        return [(WARNING, f"the pillar was not applied yet: {seen}", "salt-call state.apply immich")]
    return [(OK, f"{path} is as the pillar says")]


def _version(here):
    image = compose_of(here)["services"].get(SERVER, {}).get("image", "")
    settings = settings_of(here)
    try:
        refused = update.plan(_asking(here), here["salt"]).get("refusal")
    except CommandExecutionError:  # PostgreSQL is away, which stands above: the compose file knows less, but something
        refused = update_plan.obstacle(*map(versions.parse, (image, settings["server"]["image"])))
    refused = refused or _start_refused(here)
    if refused:
        return [of_finding(refused)]
    return [(OK, image.partition("@")[0].rpartition(":")[2])]


def _asking(here):
    """The settings, for those who ask PostgreSQL themselves: with its deadline."""
    settings = settings_of(here)
    need(here, "pgsql_database.query_as")
    return {**settings, "postgres": {**settings["postgres"], "connection": postgres_connection(here)}}


def _secrets(here):
    try:
        files = secret_files.desired(settings_of(here), here["pillar"])
    except CommandExecutionError as error:  # gone since the pillar was checked
        yield FAILED, str(error), "salt-call immich_settings.errors"
        return
    for name, desired in files.items():
        file, path = Path(here["directory"], "secrets", name), SECRETS_DECLARED[name]
        if not file.is_file() or not file.read_bytes():
            yield FAILED, f"{file} is missing or empty", "salt-call state.apply immich.app"
        elif desired is not None and file.read_bytes() != desired:
            yield FAILED, f"{file} does not hold {path}", "salt-call state.apply immich"
        elif not may(file.stat(), *user_ids(here["users"][SERVER]), 4):
            yield FAILED, f"{file} cannot be read by the container's user", "salt-call state.apply immich.app"
        else:
            yield OK, str(file)


def _images(here):
    desired = [service["image"] for service in compose_of(here)["services"].values()]
    missing = images.missing(desired)
    if missing:
        return [(FAILED, f"not on this host: {', '.join(missing)}", "salt-call state.apply immich.app")]
    return [(OK, ", ".join(image.rpartition("/")[2] for image in desired))]


def _unit(here):
    status = call(here, "systemd_unit.status", "immich.service")
    text = status["text"]
    if status["active"] in unit_states.RUNNING:
        if status["outdated"]:
            yield WARNING, "systemd has loaded an older version of the unit file", "systemctl daemon-reload"
        if status["enabled"] != "enabled":
            yield WARNING, "is not started at boot", "systemctl enable immich"
        reported = stack_status.read(text)
        if reported.exited:
            yield _exited(here, text, reported.exited)
        elif not reported.serving:
            yield WARNING, one_line(text), "systemctl restart immich"
        else:
            yield OK, text
        return
    reason, refused = _why_down(status), _start_refused(here)
    if refused:
        seen, remedy = refused["seen"], refused["remedy"]
    else:
        seen, remedy = _refused_by_program(here) or (_explained(here, reason) if reason else ("", None))
    yield FAILED, ": ".join(filter(None, (f"is {status['active']}", seen))), remedy or "systemctl start immich"


def _why_down(status):
    """Why the unit does not run. What systemd keeps of one that was stopped is what it reported before that."""
    reported = "" if status["active"] == "inactive" else status["text"]
    return one_line(reported or last_words.of())


def _refused_by_program(here):
    """What immich-stack refuses to start, and the remedy: it decides by the same code."""
    if not here["compose_text"]:
        return None
    try:
        project.Project(here["directory"], here["compose_text"], podman.run)
    except project.ProjectError as error:
        return one_line(error), "salt-call state.apply immich.app"
    for name, path in project.missing_volumes(here["compose"]["services"]):
        return one_line(f"{path}, a volume of {name}, is not there"), "mount it, then: systemctl restart immich"
    return None


def _start_refused(here):
    """Why Immich must not be started as it is: an update has changed its database, and the version before is back."""
    try:
        return update.start_refusal(_asking(here), here["salt"])
    except (CommandExecutionError, NotCheckedError):  # which stands above
        return None


def _exited(here, text, exited):
    """The unit remembers for a minute that a container exited. It is failed as long as the container does not run."""
    if not exited & _compared(here)["recreate"].keys():
        return WARNING, f"runs again: {one_line(text)}", "salt-call immich.doctor, in a minute"
    seen, remedy = _explained(here, text)
    return FAILED, seen, remedy or "journalctl -u immich -n 100"


def _compared(here):
    """Which containers are not as the compose file wants them."""
    try:
        return containers.compared(here["directory"], here["compose_text"], run_facts.Facts())
    except project.ProjectError as error:
        raise NotCheckedError("compose file") from error


def _explained(here, reason):
    """A reason and its remedy. Last words are often the end of a stack trace: then the log says more above it."""
    if remedy_for(reason):
        return one_line(reason), remedy_for(reason)
    log = untrusted.output(["journalctl", "-u", "immich", "-n", "60", "-o", "cat"], seconds=here["seconds"] / 2)
    told = next((line for line in reversed(log.splitlines()) if remedy_for(line)), "")
    return one_line(f"{reason} {told}"), remedy_for(told)


def _containers(here):
    compose = compose_of(here)
    there = _compared(here)
    for name, why in there["recreate"].items():
        yield FAILED, f"{name}: {why}", "systemctl restart immich"
    for name in there["remove"]:
        yield WARNING, f"{name} is not part of the project any more", "systemctl reload immich"
    if not there["recreate"]:
        yield OK, f"{' and '.join(compose['services'])} run"


GROUPS = (
    (
        Check("compose file", _compose_file, disturbed=True),
        Check("version", _version, disturbed=True),
        Check("secrets", _secrets, disturbed=True),
        Check("images", _images, disturbed=True),
    ),
    (
        Check("immich.service", _unit, gate=True, disturbed=True),
        Check("containers", _containers, disturbed=True),
    ),
)
