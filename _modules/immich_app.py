"""
Immich's service on this host: what it needs, stop and start, and whether it serves
====================================================================================

It gets what it needs as arguments: ``settings`` is what ``immich_settings.get`` returns.

What is asked of the server is in ``immich_core.server``, what of its containers in ``immich_core.containers``.
"""

import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import command, terminal, unit_file
from immich_core import (
    compose,
    compose_file,
    container_users,
    downtime,
    exposure,
    findings,
    overview,
    progress,
    run_facts,
    server,
    units,
    update_record,
)
from immich_core import containers as project_containers
from immich_host import identity, postgres_refusals, valkey_refusals

__virtualname__ = "immich_app"

PROGRAM = "/usr/local/lib/immich-formula/immich-stack"
# Seconds for an answer of a server that nobody has stopped yet: a busy one must not be taken for one that is down.
FIRST_PING_TIMEOUT = 3
# Seconds that a server which has just been said to answer may take for one more answer.
LAST_PING_TIMEOUT = 10
# A machine learning container that has just been made takes its time, in seconds. A dry run has made none.
ML_PATIENCE = 60
# Immich's table of users, by server/src/schema/tables/user.table.ts.
ADMINISTRATOR = 'SELECT EXISTS (SELECT FROM public."user" WHERE "isAdmin") AS found'


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


def stop(unit, settings):
    """
    Stop the service and whatever of its containers is left, also those that were started by hand.

    unit
        Name of the systemd unit.

    settings
        The formula's settings.

    Raises CommandExecutionError if it cannot be stopped.

    Called by the state ``immich_app.stopped_for_changes`` and by ``immich_update.roll_back``.
    """
    if serves(settings):
        run_facts.of(__context__).served_until = time.monotonic()
    directory = identity.project_dir(settings)
    __salt__["systemd_unit.call"]("stop", unit)
    with command.raised_as(CommandExecutionError):
        project_containers.remove(directory)


def serves(settings):
    """
    Return whether the server answers, or did until this run stopped it, at the address of the current compose
    file or of the one before it.

    settings
        The formula's settings.

    Called by ``immich_update.keep_former``.
    """
    stopped = run_facts.of(__context__).served_until is not None
    return stopped or any(server.answers(url, FIRST_PING_TIMEOUT) for url in _ping_urls(settings))


# A reload recreates what differs; the rest serves on. A unit between two states is at work with what was before.
VERBS = {"active": "reload", "inactive": "start", "failed": "start"}


def bring_up(unit, settings):
    """
    Make systemd run the containers of the compose file, enabled at boot, and wait until the server answers.

    Returns for how long the server did not answer, in seconds from the last good ping to the first, or None if it did
    not answer before. Resolution: 0.05 s.

    unit
        Name of the systemd unit.

    settings
        The formula's settings.

    Raises CommandExecutionError if the server does not come up.

    Called by the state ``immich_app.running`` and by ``immich_update.roll_back``.
    """
    before = __salt__["systemd_unit.status"](unit)
    if before["outdated"]:
        __salt__["systemd_unit.call"]("daemon-reload")
    if before["enabled"] != "enabled":
        __salt__["systemd_unit.call"]("enable", unit)
    report = progress.now_and_then("immich-apply")
    served = serves(settings)
    known = run_facts.of(__context__)
    pings = downtime.Pings(_ping_urls(settings), known.take("served_until"), served, report)
    try:
        __salt__["systemd_unit.call"](VERBS.get(before["active"], "restart"), unit)
    except CommandExecutionError:
        if pings.stop(0) is not None:
            known.served_until = pings.last_good
        raise
    return pings.stop(LAST_PING_TIMEOUT)


def _ping_urls(settings):
    """Of the current compose file, and of the one that served before it: a change may move the address."""
    directory = identity.project_dir(settings)
    texts = (compose_file.read(f"{directory}/docker-compose.yml"), _former_compose(directory))
    found = [compose_file.ping_url(text) for text in texts if text]
    return list(dict.fromkeys(filter(None, found))) or [compose.ping_url(settings)]


def _former_compose(directory):
    try:
        return update_record.former_compose(directory)
    except update_record.DamagedError as error:
        raise CommandExecutionError(str(error)) from error


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
    if settings["machine_learning"]["enabled"]:
        broken += machine_learning_silent(0 if __opts__["test"] else patience)
    return broken + exposure.wider_than_declared(settings, __salt__["netns.listening"]())


def warnings(settings):
    """
    Return what a person should know of the application, as findings (``immich_core.findings``): who can reach what,
    and what PostgreSQL and Valkey have refused to Immich, as a new release may need what the formula does not grant.

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    found = exposure.servers_everywhere(settings, __salt__["netns.listening"]()) + server_warnings(settings)
    for server_refusals in (valkey_refusals, postgres_refusals):
        try:
            found += server_refusals.found(settings, __salt__)["found"]
        except (CommandExecutionError, SaltInvocationError) as error:
            found.append(findings.not_verified("refusals", f"What was refused to Immich is not known: {error}"))
    return found


def server_warnings(settings, timeout=10):
    """
    Return what a person should know of a server that runs, as findings (``immich_core.findings``): that it is in
    maintenance mode, or that nobody has signed up as administrator.

    settings
        The formula's settings.

    timeout
        Seconds for the server's answer, 10 by default.

    Called by ``immich.doctor``.
    """
    known = server.state(compose.server_url(settings), lambda: _signed_up(settings["postgres"]), timeout)
    return server.warnings(known, settings["port"], overview.urls(settings, __grains__)[0])


def _signed_up(postgres):
    """Whether the database has an administrator, by Immich's table of users, or why that is not known."""
    try:
        (row,) = __salt__["pgsql_database.query_as"](
            postgres["user"], postgres["database"], ADMINISTRATOR, postgres["connection"]
        )
    except (CommandExecutionError, SaltInvocationError) as error:
        return None, terminal.one_line(str(error), 300)
    return row["found"], ""


def machine_learning_silent(patience=0):
    """
    Return how machine learning fails to answer, as a list of one finding, which is empty if it answers.

    It is asked from inside the server's network, by name, as the server does.

    patience
        Seconds to try again, 0 by default.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.machine_learning_silent
    """
    url = f"http://{compose.MACHINE_LEARNING}:3003/ping"
    until = time.monotonic() + patience
    known = run_facts.of(__context__).take("server_pid")
    while True:
        try:
            pid = known or project_containers.server_pid()
            if "pong" in __salt__["netns.http_get"](str(pid), url):
                return []
            words = "the answer is not that of machine learning"
        except (CommandExecutionError, command.CommandError) as error:
            words = str(error)
        if known:  # The container may be another one by now.
            known = None
            continue
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    seen = f"The server does not reach {url}: {words}"
    remedy = f"podman logs --tail 20 {compose.MACHINE_LEARNING}"
    return [findings.finding("machine-learning-silent", "machine learning", seen, remedy)]
