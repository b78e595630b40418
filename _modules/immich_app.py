"""
Immich on this host: what its service needs, and whether it serves
==================================================================

``settings`` is what ``immich_settings.get`` returns. Its service is started and stopped in ``immich_host.service``.
"""

import os

from salt.exceptions import CommandExecutionError

from host_core import addresses, command, mounts, unit_file
from immich_core import compose, container_users, exposure, hardware, run_facts, storage, units
from immich_core.obstacles import hardware as lacking_hardware
from immich_core.obstacles import ports, volumes
from immich_host import machine_learning, used_settings
from immich_host import server_warnings as warnings_of_server
from immich_io import containers as project_containers
from immich_io import devices, server

__virtualname__ = "immich_app"

PROGRAM = "/usr/local/lib/immich-formula/immich-stack"
# A machine learning container that has just been made takes its time, in seconds. A dry run has made none.
ML_PATIENCE = 60
# By their part of the settings.
CONTAINERS = {"server": compose.SERVER, "machine_learning": compose.MACHINE_LEARNING}


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
    libraries = [library["path"] for library in settings["external_libraries"]]
    volumes_of_both = [volume["path"] for part in CONTAINERS for volume in settings[part]["volumes"]]
    return [settings["upload_location"], *storage.elsewhere(settings).values(), *libraries, *volumes_of_both]


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


def obstacles(settings, listeners):
    """
    Return what keeps Immich from being published on this host, as findings: an address that is not there, a port that
    is taken.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host (``host_core.listeners``).

    Called by ``immich_preflight.obstacles``.
    """
    port, published = settings["port"], settings["bind_address"]
    # Those of the end of the run, where the port is published on the loopback address alone at first.
    declared = settings["once_signed_up"].get("bind_address", published)
    taken = ports.of_immich(port, published, listeners.with_holders({port}))
    return [*ports.of_addresses(declared, addresses.is_here), *taken]


def hardware_obstacles(settings, listeners):
    """
    Return what this host lacks of the hardware that the containers are to get, as findings.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host: nothing to hardware.

    Called by ``immich_preflight.obstacles``.
    """
    asked, found = hardware.asked(settings["hardware"]), []
    if asked["devices"]:
        found += lacking_hardware.obstacles(settings, devices.seen(asked))
    for part in CONTAINERS:
        listed = settings[part]["devices"]
        if listed:
            found += lacking_hardware.of_listed(settings, part, devices.seen(hardware.nothing_but(listed)))
    return found


def volume_obstacles(settings, listeners):
    """
    Return which volumes of the containers this host does not have, as findings.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host: nothing to volumes.

    Called by ``immich_preflight.obstacles``.
    """
    return volumes.obstacles(settings, mounts.missing, os.path.exists)


# -- does it serve ----------------------------------------


def verify(settings, patience=ML_PATIENCE):
    """
    Return what of the application is not as declared, as findings (``immich_core.findings``): all of the five below.

    settings
        The formula's settings.

    patience
        As for ``immich_app.verify_machine_learning``.

    Called by ``immich.restore``, before and after.
    """
    return [
        *verify_answer(settings),
        *verify_settings(settings),
        *verify_hardware(settings),
        *verify_machine_learning(settings, patience),
        *verify_exposure(settings),
    ]


def verify_answer(settings, timeout=10, ping=None):
    """
    Return how the server fails to answer, as findings.

    settings
        The formula's settings.

    timeout
        Seconds for the whole answer, 10 by default.

    ping
        Address of the server's ping. Defaults to that of the settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return server.silent(ping or compose.ping_url(settings), timeout)


def verify_settings(settings, timeout=10):
    """
    Return which of the declared ``immich:settings`` the server says that it does not use, as findings; of a server that
    does not answer, none.

    settings
        The formula's settings.

    timeout
        Seconds for each of the server's answers, 10 by default.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    if not server.answers(compose.ping_url(settings), timeout):
        return []  # which immich_app.verify_answer says
    return used_settings.differing(settings, __pillar__, timeout)


def verify_hardware(settings, parts=("server", "machine_learning")):
    """
    Return what the containers lack of the hardware that they were to get, as findings; none in a dry run.

    settings
        The formula's settings.

    parts
        Parts of the settings whose containers are inspected. Defaults to both.

    Raises ``CommandExecutionError`` if a container is absent.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    found = []
    for part, name in CONTAINERS.items():
        given = settings[part]["hardware"]
        if part in parts and given and not __opts__["test"]:
            with command.raised_as(CommandExecutionError):
                found += hardware.withheld(name, given, project_containers.hardware(name))
    return found


def verify_machine_learning(settings, patience=ML_PATIENCE, enabled=None):
    """
    Return how machine learning fails to answer the server, as findings; where it is off, none.

    settings
        The formula's settings.

    patience
        Seconds that it may take until it answers, 60 by default; none in a dry run.

    enabled
        Whether it should answer. Defaults to what the settings say.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    if not (settings["machine_learning"]["enabled"] if enabled is None else enabled):
        return []
    pid = run_facts.of(__context__).take("server_pid")
    return machine_learning.silent(__salt__, pid, 0 if __opts__["test"] else patience)


def verify_exposure(settings):
    """
    Return as findings that Immich is published at more addresses than declared.

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return exposure.wider_than_declared(settings, __salt__["netns.listening"]())


def exposed_servers(settings):
    """
    Return as findings which of PostgreSQL and Valkey listen on every address of this host.

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return exposure.servers_everywhere(settings, __salt__["netns.listening"]())


def server_warnings(settings, timeout=10):
    """
    Return what a person should know of a server that runs, as findings: that it is in maintenance mode, or that nobody
    has signed up as administrator.

    settings
        The formula's settings.

    timeout
        Seconds for the server's answer, 10 by default.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return warnings_of_server.found(settings, __salt__, timeout)
