"""
Immich on this host: what its service needs, and whether it serves
===================================================================

``settings`` is what ``immich_settings.get`` returns. Its service is started and stopped in ``immich_host.service``.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import command, unit_file
from immich_core import (
    compose,
    container_users,
    exposure,
    findings,
    run_facts,
    server,
    units,
)
from immich_core import containers as project_containers
from immich_host import machine_learning, postgres_refusals, server_warnings, used_settings, valkey_refusals

__virtualname__ = "immich_app"

PROGRAM = "/usr/local/lib/immich-formula/immich-stack"
# A machine learning container that has just been made takes its time, in seconds. A dry run has made none.
ML_PATIENCE = 60


def __virtual__():
    return __virtualname__


# -- what runs ----------------------------------------


def unit(settings):
    """
    Return what the unit file and the states of the application need, decided once.

    ``{"directory": …, "program": …, "after": [units], "mounts": [paths], "images": [references],
    "owner": {part: {"user": uid, "group": gid}}}``

    settings
        The formula's settings.

    Called by the SLS ``immich.app`` and ``immich.preflight``.
    """
    parts = ["server", "machine_learning"] if settings["machine_learning"]["enabled"] else ["server"]
    return {
        "directory": unit_file.command_word(settings["project_dir"]),
        "program": PROGRAM,
        "after": units.before_immich(settings),
        "mounts": list(map(unit_file.quoted, _mounts(settings))),
        "images": [settings[part]["image"] for part in parts],
        "owner": {part: container_users.numbers(settings[part]["user"]) for part in parts},
    }


def _mounts(settings):
    return [settings["upload_location"], *(library["path"] for library in settings["external_libraries"])]


def containers(directory):
    """
    Return the names of all containers, running or not, of the compose project in a directory.

    directory
        The project's directory.

    Raises CommandExecutionError if Podman is there and does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.containers /opt/podman/immich
    """
    with command.raised_as(CommandExecutionError):
        return project_containers.names(directory)


# -- does it serve ----------------------------------------


def verify(settings, patience=ML_PATIENCE):
    """
    Return what of the application is not as declared, as findings (``immich_core.findings``).

    settings
        The formula's settings.

    patience
        Seconds that machine learning may take until it answers, 60 by default; none in a dry run.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    broken = server.silent(compose.ping_url(settings))
    if not broken:
        broken += used_settings.differing(settings, __pillar__)
    if settings["machine_learning"]["enabled"]:
        broken += machine_learning.silent(
            __salt__, run_facts.of(__context__).take("server_pid"), 0 if __opts__["test"] else patience
        )
    return broken + exposure.wider_than_declared(settings, __salt__["netns.listening"]())


def warnings(settings):
    """
    Return what a person should know of the application, as findings (``immich_core.findings``): who can reach what,
    and what PostgreSQL and Valkey have refused to Immich, as a new release may need what the formula does not grant.

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    found = [*exposure.servers_everywhere(settings, __salt__["netns.listening"]())]
    found += server_warnings.found(settings, __salt__)
    for server_refusals in (valkey_refusals, postgres_refusals):
        try:
            found += server_refusals.found(settings, __salt__)["found"]
        except (CommandExecutionError, SaltInvocationError) as error:
            found.append(findings.not_verified("refusals", f"What was refused to Immich is not known: {error}"))
    return found
