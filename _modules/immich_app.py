"""
Immich's containers and the service that runs them, and whether it serves
==========================================================================

Everything here is about the application. It gets what it needs as arguments: ``settings`` is what
``immich_settings.get`` returns. In the examples, ``SETTINGS`` holds the JSON of
``salt-call --local --out=json immich_settings.get``.
"""

import threading
import time

import salt.utils.path
from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import command, podman, unit_file
from immich_core import compose, compose_file, findings, progress, project, run_facts, units, untrusted

__virtualname__ = "immich_app"

SERVER = "immich-server"
MACHINE_LEARNING = "immich-machine-learning"
PROGRAM = "/usr/local/lib/immich-formula/immich-stack"
PING = {"res": "pong"}
# While the downtime is measured: seconds between two questions, and for an answer. Short, as the address of a container
# that has just died may never refuse.
PING_INTERVAL = 0.05
PING_TIMEOUT = 0.3
# Seconds for an answer of a server that nobody has stopped yet: a busy one must not be taken for one that is down.
FIRST_PING_TIMEOUT = 3
# Seconds that a server which has just been said to answer may take for one more answer.
LAST_PING_TIMEOUT = 10
# A machine learning container that has just been made takes its time, in seconds. A dry run has made none.
ML_PATIENCE = 60
EVERY_ADDRESS = ("0.0.0.0", "::")
# Immich's table of users, by server/src/schema/tables/user.table.ts.
ADMINISTRATOR = 'SELECT EXISTS (SELECT FROM public."user" WHERE "isAdmin") AS found'
MAINTENANCE = "Immich is in maintenance mode and serves nobody"
END_MAINTENANCE = (
    "podman exec immich-server immich-admin disable-maintenance-mode, unless somebody restores a backup in Immich now"
)
# Run in a container: each argument is a name and a port, and what it prints is how far one gets to them. A question to
# the DNS that was lost is asked again after one second, not after five: resolv.conf(5).
REACH = """
export RES_OPTIONS="timeout:1 attempts:3"
for target; do
  host=${target%:*} port=${target##*:}
  if ! timeout 4 getent ahosts "$host" >/dev/null; then echo "$target getaddrinfo ENOTFOUND $host"; continue; fi
  said=$(timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "$port" 2>&1)
  case $? in 0) echo "$target" ;; 124) echo "$target connect ETIMEDOUT" ;; *) echo "$target ${said##*: }" ;; esac
done
"""
# What it prints at most, in bytes, and how long it may take for each of them, in seconds.
REACH_ANSWER, REACH_SECONDS = 8192, 5


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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.unit "$SETTINGS"
    """
    parts = ["server", "machine_learning"] if settings["machine_learning"]["enabled"] else ["server"]
    return {
        "directory": unit_file.command_word(settings["project_dir"]),
        "program": PROGRAM,
        "after": units.before_immich(settings),
        "mounts": list(map(unit_file.quoted, _mounts(settings))),
        "images": [settings[part]["image"] for part in parts],
        "owner": {part: __salt__["immich_user.numbers"](settings[part]["user"]) for part in parts},
    }


def _mounts(settings):
    return [settings["upload_location"], *(library["path"] for library in settings["external_libraries"])]


def plan(settings, text):
    """
    Return which containers are not as a compose file wants them: ``{"recreate": {service: why}, "remove": [name]}``.

    settings
        The formula's settings.

    text
        The compose file to compare with.

    Raises CommandExecutionError if Podman does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.plan "$SETTINGS" "$(cat /opt/podman/immich/docker-compose.yml)"
    """
    try:
        declared = project.Project(settings["project_dir"], text, _podman)
    except project.ProjectError as error:
        raise CommandExecutionError(str(error)) from error
    current = declared.containers()
    known = run_facts.of(__context__)
    known.server_pid = current.get(SERVER, {}).get("Pid")
    names, ids = known.take("images") or (None, None)
    if names != declared.image_names():
        ids = declared.image_ids()
    return declared.compared(current, ids)


def _podman(*arguments, check=True):
    """What `podman ARGUMENTS` prints, on failure too if that is not checked."""
    try:
        return podman.run(*arguments, check=check)
    except command.CommandError as error:
        raise CommandExecutionError(str(error)) from error


def last_words(unit=units.IMMICH):
    """
    Return why the unit's program gave up at its last start, or an empty string.

    What earlier starts have said does not count, nor what a container has logged in the same words: the program itself
    writes that line last, as the main process of this start.

    unit
        Name of the unit, ``immich.service`` by default.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.last_words
    """
    invocation = __salt__["systemd_unit.call"]("show", "--property=InvocationID", "--value", unit)
    if not invocation:
        return ""
    fields = [f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat", "--lines=1", "--grep=^immich-stack: "]
    try:
        return untrusted.printable(command.run(["journalctl", *fields]))
    except command.CommandError:  # no such line
        return ""


def reasons_to_stop(settings):
    """
    Return why Immich has to be stopped before this run changes what it uses, as a list of sentences; empty if it may
    go on.

    Podman cannot change a network that containers use, and PostgreSQL's role has one password at a time: an Immich
    that runs on would be refused. A network that others use too is no reason, as it stays.

    settings
        The formula's settings.

    Raises CommandExecutionError if Podman or PostgreSQL does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.reasons_to_stop "$SETTINGS"
    """
    reasons = _network_reasons(settings) + _identity_reasons(settings)
    if __salt__["immich_postgres.password_differs"](settings):
        reasons.append(f"PostgreSQL's password of the role {settings['postgres']['user']} changes")
    return reasons


def _network_reasons(settings):
    said = {key: value for key, value in settings["network"].items() if value is not None}
    name = said["name"]
    if not __salt__["podman_network.exists"](name):
        return []
    differs = __salt__["podman_network.diff"](**said)
    if "interface_name" in differs and not __salt__["podman_network.supports"]("interface_name"):
        del differs["interface_name"]
    if not differs:
        return []
    users = __salt__["podman_network.containers"](name)
    if not users or set(users) - set(containers(__salt__["immich_identity.current"](settings)["project_dir"])):
        return []
    return [f"the network {name} is recreated ({', '.join(differs)})"]


def _identity_reasons(settings):
    sentences = {
        "network": "the network {new} takes the place of {old}",
        "project_dir": "the compose project moves from {old} to {new}",
        "role": "PostgreSQL's role {new} takes over from {old}",
        "valkey_database": "the queues move from Valkey's database {old} to {new}",
        "server_user": "the server's files change their owner from {old} to {new}",
        "machine_learning_user": "the models change their owner from {old} to {new}",
    }
    changes = __salt__["immich_identity.plan"](settings)["changes"]
    return [sentences[part].format(**change) for part, change in changes.items() if part in sentences]


def stop(unit, settings):
    """
    Stop the service and whatever of its containers is left, also those that were started by hand.

    unit
        Name of the systemd unit.

    settings
        The formula's settings.

    Raises CommandExecutionError if it cannot be stopped.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.stop immich.service "$SETTINGS"
    """
    if serves(settings):
        run_facts.of(__context__).served_until = time.monotonic()
    directory = __salt__["immich_identity.current"](settings)["project_dir"]
    __salt__["systemd_unit.call"]("stop", unit)
    if containers(directory):
        remove_containers(directory)


def serves(settings):
    """
    Return whether the server answers, or did until this run stopped it, at the address of the current compose
    file or of the one before it.

    settings
        The formula's settings.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.serves "$SETTINGS"
    """
    stopped = run_facts.of(__context__).served_until is not None
    return stopped or any(_answers(url, FIRST_PING_TIMEOUT) for url in _ping_urls(settings))


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

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.bring_up immich.service "$SETTINGS"
    """
    before = __salt__["systemd_unit.status"](unit)
    if before["outdated"]:
        __salt__["systemd_unit.call"]("daemon-reload")
    if before["enabled"] != "enabled":
        __salt__["systemd_unit.call"]("enable", unit)
    report = progress.now_and_then("immich-apply")
    served = serves(settings)
    known = run_facts.of(__context__)
    pings = _Pings(_ping_urls(settings), known.take("served_until"), served, report)
    try:
        __salt__["systemd_unit.call"](VERBS.get(before["active"], "restart"), unit)
    except CommandExecutionError:
        if pings.stop(0) is not None:
            known.served_until = pings.last_good
        raise
    return pings.stop(LAST_PING_TIMEOUT)


class _Pings(threading.Thread):
    """Asks the server again and again whether it answers, from now until it is stopped."""

    def __init__(self, urls, stopped, served, report):
        """``stopped``: when this run has stopped it, or None. ``served``: whether it answered before."""
        super().__init__(daemon=True)
        self.urls = urls
        self.report = report
        self.served = served
        self.last_good = stopped or (time.monotonic() if served else None)
        self.failed = stopped is not None or not served
        self.downtime = 0.0
        self.done = threading.Event()
        self.start()

    def run(self):
        began = time.monotonic()
        while not self.done.is_set():
            good = any(_answers(url, PING_TIMEOUT) for url in self.urls)
            now = time.monotonic()
            if good and self.failed and self.last_good is not None:
                self.downtime += now - self.last_good
            self.last_good = now if good else self.last_good
            self.failed = not good
            if self.failed:
                self.report(f"Waiting for Immich: {self.urls[0]} does not answer yet, {round(now - began)} s")
            self.done.wait(PING_INTERVAL)

    def stop(self, patience):
        """Seconds without an answer, or None if there was none before. Waits so many seconds for a good one."""
        until = time.monotonic() + patience
        while self.failed and time.monotonic() < until:
            time.sleep(PING_INTERVAL)
        self.done.set()
        self.join()
        return round(self.downtime, 2) if self.served else None


def _ping_urls(settings):
    """Of the current compose file, and of the one that served before it: a change may move the address."""
    directory = __salt__["immich_identity.current"](settings)["project_dir"]
    texts = (compose_file.read(f"{directory}/docker-compose.yml"), __salt__["immich_update.former_compose"](settings))
    found = [compose_file.ping_url(text) for text in texts if text]
    return list(dict.fromkeys(filter(None, found))) or [compose.ping_url(settings)]


def _answers(url, timeout):
    try:
        return untrusted.get_json(url, timeout) == PING
    except (OSError, ValueError):
        return False


def containers(directory):
    """
    Return the names of all containers, running or not, of the compose project in a directory.

    directory
        The project's directory.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.containers /opt/podman/immich
    """
    if not salt.utils.path.which("podman"):
        return []
    return [each["Names"][0] for each in project.containers(directory, _podman)]


def remove_containers(directory):
    """
    Stop and remove all containers of the compose project in a directory.

    directory
        The project's directory.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.remove_containers /opt/podman/immich
    """
    _podman("rm", "--force", "--time", "30", *containers(directory))


# -- does it serve ----------------------------------------


def get_json(url, timeout=10):
    """
    Return what an address of the server answers, parsed.

    url
        An ``http://`` address.

    timeout
        Seconds for the whole answer, 10 by default.

    Raises CommandExecutionError if there is no answer in time, or it is larger than 64 KiB, not JSON, or has another
    status than 200, which the exception then has as ``status``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.get_json http://127.0.0.1:2283/api/server/ping
    """
    try:
        return untrusted.get_json(url, timeout)
    except OSError as error:
        raise CommandExecutionError(f"{url} does not answer: {error}") from error
    except ValueError as error:
        failed = CommandExecutionError(f"{url} does not answer as it should: {error}")
        failed.status = getattr(error, "status", None)
        raise failed from error


def server_state(settings, timeout=10):
    """
    Return what is known of a server that runs: ``{"maintenance": …, "initialized": …, "unknown": reason}``.

    ``maintenance`` is True in Immich's maintenance mode, in which it serves nobody. ``initialized`` is True if
    somebody has signed up as administrator; until then whoever reaches the port can. Each is None where it is not
    known, and ``unknown`` says why.

    A server in maintenance mode does not know whether somebody has signed up (server/src/maintenance of Immich), and
    later releases mean to drop the address that says it, without another that does: then the database is asked.

    settings
        The formula's settings.

    timeout
        Seconds for the server's answer, 10 by default.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.server_state "$SETTINGS"
    """
    state = {"maintenance": None, "initialized": None, "unknown": ""}
    try:
        answer = get_json(f"{compose.server_url(settings)}/api/server/config", timeout)
    except CommandExecutionError as error:
        if getattr(error, "status", None) != 404:
            return {**state, "unknown": str(error)}
        answer = {}
    if not isinstance(answer, dict):
        return {**state, "unknown": "the server's configuration is not a JSON object"}
    for key, name in (("maintenance", "maintenanceMode"), ("initialized", "isInitialized")):
        if isinstance(answer.get(name), bool):
            state[key] = answer[name]
    if state["maintenance"] or state["initialized"] is None:
        state.update(_signed_up(settings["postgres"]))
    return state


def _signed_up(postgres):
    """Whether the database has an administrator, by Immich's table of users."""
    try:
        (row,) = __salt__["pgsql_database.query_as"](
            postgres["user"], postgres["database"], ADMINISTRATOR, postgres["connection"]
        )
    except CommandExecutionError as error:
        return {"initialized": None, "unknown": untrusted.printable(str(error), 300)}
    return {"initialized": row["found"]}


def server_warnings(settings, timeout=10):
    """
    Return what a person has to know about a server that runs, as findings (``immich_core.findings``).

    One is an error if nobody can use Immich because of it, else a warning.

    settings
        The formula's settings.

    timeout
        Seconds for the server's answer, 10 by default.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.server_warnings "$SETTINGS"
    """
    state = server_state(settings, timeout)
    warnings = [_maintenance("exposure")] if state["maintenance"] else []
    if state["initialized"] is None:
        seen = f"Whether somebody has signed up as administrator is not known: {state['unknown']}"
        warnings.append(_warning("administrator-unknown", seen, "see `journalctl -u immich`"))
    elif not state["initialized"]:
        seen = (
            f"Nobody has signed up as administrator yet: whoever opens port {settings['port']} first can, or "
            "can restore a database of their own, as /api/admin/database-backups/start-restore asks for no login"
        )
        remedy = f"sign up now at {__salt__['immich.urls'](settings)[0]}"
        warnings.append(_warning("administrator-missing", seen, remedy))
    return warnings


def _warning(code, seen, remedy):
    return findings.finding(code, "exposure", seen, remedy, severity=findings.WARNING)


def _maintenance(part):
    return findings.finding("maintenance-mode", part, MAINTENANCE, END_MAINTENANCE)


def verify(settings, patience=ML_PATIENCE):
    """
    Return what of the application is not as declared, as findings (``immich_core.findings``).

    settings
        The formula's settings.

    patience
        Seconds that machine learning may take until it answers, 60 by default; none in a dry run.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.verify "$SETTINGS"
    """
    broken = server_silent(compose.ping_url(settings))
    if settings["machine_learning"]["enabled"]:
        broken += machine_learning_silent(0 if __opts__["test"] else patience)
    return broken + listens_wider(settings, __salt__["netns.listening"]())


def warnings(settings, timeout=10):
    """
    Return what a person should know of the application, as findings (``immich_core.findings``): who can reach it and
    what, and what PostgreSQL and Valkey have refused to it, as a new release may need what the formula does not grant.

    settings
        The formula's settings.

    timeout
        Seconds for the server's answer, 10 by default.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.warnings "$SETTINGS"
    """
    found = listens_everywhere(settings, __salt__["netns.listening"]()) + server_warnings(settings, timeout)
    for module in ("immich_valkey", "immich_postgres"):
        try:
            found += __salt__[f"{module}.refusals"](settings)["found"]
        except (CommandExecutionError, SaltInvocationError) as error:
            found.append(findings.not_verified("refusals", f"What was refused to Immich is not known: {error}"))
    return found


def server_silent(ping, timeout=10):
    """
    Return how the server fails to answer, as a list of one finding, which is empty if it answers.

    ping
        Address of the server's ping.

    timeout
        Seconds to wait, 10 by default.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.server_silent http://127.0.0.1:2283/api/server/ping
    """
    try:
        if get_json(ping, timeout) != PING:
            seen = f"{ping} does not answer as Immich: another program has the port?"
            return [findings.finding("server-foreign", "Immich", seen, "see `ss -ltnp`")]
    except CommandExecutionError as error:
        if _in_maintenance(ping, timeout):
            return [_maintenance("Immich")]
        return [findings.finding("server-silent", "Immich", str(error), "systemctl restart immich")]
    return []


def _in_maintenance(ping, timeout):
    """Whether a server that does not answer its ping says that it is in maintenance mode, which has no ping."""
    try:
        answer = get_json(f"{ping.rpartition('/')[0]}/config", timeout)
    except CommandExecutionError:
        return False
    return isinstance(answer, dict) and answer.get("maintenanceMode") is True


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
    url = f"http://{MACHINE_LEARNING}:3003/ping"
    until = time.monotonic() + patience
    known = run_facts.of(__context__).take("server_pid")
    while True:
        try:
            pid = known or _podman("container", "inspect", "--format", "{{.State.Pid}}", SERVER).strip()
            if "pong" in __salt__["netns.http_get"](str(pid), url):
                return []
            words = "the answer is not that of machine learning"
        except CommandExecutionError as error:
            words = str(error)
        if known:  # The container may be another one by now.
            known = None
            continue
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    seen = f"The server does not reach {url}: {words}"
    remedy = f"podman logs --tail 20 {MACHINE_LEARNING}"
    return [findings.finding("machine-learning-silent", "machine learning", seen, remedy)]


def reach(container, targets):
    """
    Return how far a container gets to each of some TCP ports: None, or why not, as ``{target: reason}``.

    container
        Name of a running container. It needs bash and getent, which both images of Immich have.

    targets
        List of ``name:port``.

    Raises CommandExecutionError if there is no such container or it does not run, or what runs in it neither ends nor
    says so: whoever has taken over the container can stop it, and write into its answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.reach immich-server '["host.containers.internal:5432"]'
    """
    words, seconds = ("exec", container, "bash", "-c", REACH, "bash", *targets), REACH_SECONDS * (1 + len(targets))
    try:
        printed = podman.run(*words, seconds=seconds, size=REACH_ANSWER)
    except command.CommandError as error:
        raise CommandExecutionError(untrusted.printable(str(error))) from error
    lines = dict(line.partition(" ")[::2] for line in printed.split("\n"))
    missing = "its answer is not there"
    return {target: untrusted.printable(lines.get(target, missing), 200) or None for target in targets}


def refusals_since():
    """
    Return since when what was refused to Immich counts, in seconds since the epoch: since its server was started, for
    a day at most.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.refusals_since
    """
    a_day_ago = time.time() - 86400
    try:
        printed = _podman("container", "inspect", "--format", "{{.State.StartedAt.Unix}}", SERVER)
        return max(a_day_ago, float(printed))
    except (CommandExecutionError, ValueError):
        return a_day_ago


def listens_wider(settings, sockets):
    """
    Return findings about services of this installation that listen on more addresses than declared.

    settings
        The formula's settings.

    sockets
        What ``netns.listening`` returns.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.listens_wider "$SETTINGS" '[{"address": "0.0.0.0", "port": 2283}]'
    """
    port, addresses = settings["port"], settings["bind_address"]
    if set(addresses) & set(EVERY_ADDRESS) or not _listens_everywhere(port, sockets):
        return []
    seen = f"is {', '.join(addresses)}, and port {port} listens on every address"
    remedy = findings.apply("immich.app")
    return [findings.finding("port-exposed", "exposure", seen, remedy, "immich:bind_address")]


def _listens_everywhere(port, sockets):
    return any(each["port"] == port and each["address"] in EVERY_ADDRESS for each in sockets)


def listens_everywhere(settings, sockets):
    """
    Return findings about managed services that listen on every address, which the formula does not declare.

    settings
        The formula's settings.

    sockets
        What ``netns.listening`` returns.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_app.listens_everywhere "$SETTINGS" '[{"address": "::", "port": 6379}]'
    """
    names = {"postgres": "PostgreSQL", "valkey": "Valkey"}
    needs = f"Immich needs {settings['gateway_address']} alone"
    return [
        findings.finding(
            f"{part}-exposed",
            "exposure",
            f"{title} listens on every address of this host, as its own configuration says: {needs}",
            "see the listen addresses in its configuration",
            severity=findings.WARNING,
        )
        for part, title in names.items()
        if settings[part]["managed"] and _listens_everywhere(settings[part]["port"], sockets)
    ]
