"""
Part: who reaches whom, from inside the containers and from outside
===================================================================
"""

import shutil
from pathlib import Path

from host_core import command
from host_core.command import CommandError
from immich_core.gateway import HOST_NAME
from immich_diagnosis.check import FAILED, OK, Check, NotCheckedError, call, need, of_finding
from immich_diagnosis.facts import MACHINE_LEARNING, SERVER, compose_of, read_text, settings_of
from immich_host import used_settings
from immich_io import containers


def _names(here):
    services = list(compose_of(here)["services"])
    if len(services) < 2:
        return [(OK, "machine learning is off")]
    asker, target, stopped = _asked(
        here, services, lambda asker: _port_of(next(name for name in services if name != asker))
    )
    if not stopped:
        return [(OK, f"{asker} reaches {target}")]
    other, (step, reason) = target.partition(":")[0], stopped
    if step == containers.NAME:
        seen = f"{asker} cannot resolve the name {other}: aardvark-dns does not run, or a firewall drops UDP port 53"
        return [(FAILED, seen, _dns_advice(here))]
    return [(FAILED, f"{asker} does not reach {target}: {reason}", f"podman logs --tail 20 {other}")]


def _port_of(container):
    return f"{container}:{3003 if container == MACHINE_LEARNING else 2283}"


def _asked(here, services, target_of):
    """A container that runs, the server rather than the other, its target, and where it stops on the way and why."""
    for asker in dict.fromkeys((SERVER, *services)):
        target = target_of(asker)
        try:
            return asker, target, containers.reach(asker, [target])[target]
        except CommandError:
            continue
    raise NotCheckedError("a running container")


def _dns_advice(here):
    firewall = _firewall_program(here)
    if firewall or not _runs("aardvark-dns"):
        return firewall or "systemctl restart immich"
    return "allow UDP port 53 from the Immich network: see `nft list ruleset`"


def _runs(program):
    return any(read_text(path / "comm").strip() == program for path in Path("/proc").glob("[0-9]*"))


def _firewall_program(here):
    """The command that lets the Immich network in, if ufw or firewalld is active."""
    if shutil.which("ufw") and "Status: active" in command.run(["ufw", "status"], here["seconds"] / 2, check=False):
        return f"ufw allow in on {_interface(here)}"
    if shutil.which("firewall-cmd") and _runs("firewalld"):
        interface = _interface(here)
        return f"firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload"
    return ""


def _interface(here):
    """The host's interface in the Immich network, which Podman names where the settings do not."""
    network = here["settings"]["network"] if here["settings"] else {}
    name = network.get("name") or here["compose"].get("networks", {}).get("immich", {}).get("name", "immich")
    return network.get("interface_name") or call(here, "podman_network.inspect", name)["interface_name"]


def _way(part, host_name, port_name):
    def check(here):
        services = compose_of(here)["services"]
        environment = services.get(SERVER, {}).get("environment", {})
        target = f"{environment.get(host_name)}:{environment.get(port_name)}"
        asker, _, stopped = _asked(here, services, lambda _: target)
        if not stopped:
            return [(OK, f"{asker} reaches {target}")]
        step, reason = stopped
        if step == containers.NAME and target.startswith(f"{HOST_NAME}:"):
            return [(FAILED, f"{asker}: {reason}", "systemctl restart immich")]
        if step == containers.NAME:
            return [(FAILED, f"{asker}: {reason}", f"immich:{part}:host: a name or address that containers find")]
        advice = _firewall_program(here) or "allow the Immich network: see `nft list ruleset` for what drops it"
        return [(FAILED, f"{asker} does not reach {target}: {reason}", advice)]

    return check


def _answers(here):
    if not here["ping"]:
        raise NotCheckedError(f"{here['directory']}/docker-compose.yml")
    patience = max(2, here["seconds"] / 4)  # a busy host has more of it
    broken = call(here, "immich_app.verify_answer", here["settings"], timeout=patience, ping=here["ping"])
    return map(of_finding, broken) if broken else [(OK, f"{here['ping']} says pong")]


def _learning(here):
    if MACHINE_LEARNING not in compose_of(here)["services"]:
        return [(OK, "is off")]
    need(here, "netns.http_get")
    broken = call(here, "immich_app.verify_machine_learning", here["settings"], patience=0, enabled=True)
    return map(of_finding, broken) if broken else [(OK, "says pong")]


def _settings(here):
    settings = settings_of(here)
    found = call(here, "immich_app.verify_settings", settings, timeout=2)
    if not settings["server"]["settings_managed"]:
        return [(OK, "are those of its page Administration > Settings")]
    return map(of_finding, found) if found else [(OK, "are those of immich:settings, as far as the server says")]


def _exposure(here):
    settings = settings_of(here)
    need(here, "netns.listening")
    yield from map(of_finding, call(here, "immich_app.verify_exposure", settings))
    yield from map(of_finding, call(here, "immich_app.exposed_servers", settings))
    yield from map(of_finding, call(here, "immich_app.server_warnings", settings, timeout=2))


GROUPS = (
    (
        Check("DNS between containers", _names, disturbed=True),
        Check("way to PostgreSQL", _way("postgres", "DB_HOSTNAME", "DB_PORT"), disturbed=True),
        Check("way to Valkey", _way("valkey", "REDIS_HOSTNAME", "REDIS_PORT"), disturbed=True),
    ),
    (
        Check("Immich", _answers, gate=True, disturbed=True, asks=("immich_app.verify_answer",)),
        Check(used_settings.PART, _settings, disturbed=True, asks=("immich_app.verify_settings",)),
        Check("machine learning", _learning, disturbed=True, asks=("immich_app.verify_machine_learning",)),
        Check(
            "exposure",
            _exposure,
            disturbed=True,
            asks=("immich_app.verify_exposure", "immich_app.exposed_servers", "immich_app.server_warnings"),
        ),
    ),
)
