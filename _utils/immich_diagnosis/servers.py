"""
What the parts PostgreSQL and Valkey have in common
===================================================

Each function makes a check, of ``postgres`` or ``valkey``.
"""

import socket
import time

from salt.exceptions import CommandExecutionError

from host_core import unit_states
from immich_diagnosis import facts
from immich_diagnosis.check import FAILED, OK, NotCheckedError, call, of_finding
from immich_diagnosis.facts import settings_of
from immich_diagnosis.words import one_line


def service(part, explained=None):
    """Whether its units are active. ``explained`` is asked for a row about one that is not and has a known cause."""

    def check(here):
        if not here[part]["managed"]:
            return [(OK, "is managed elsewhere")]
        _known_units(part, here)
        rows = []
        for unit in here[part]["units"]:
            status = _status(here, f"{unit}.service")
            if status["active"] not in unit_states.RUNNING:
                seen = f"{unit} is {status['active']} {status['text']}".strip()
                start = f"systemctl start {unit} || journalctl -n 20 -u {unit}"
                known = explained and explained(unit, here)
                rows.append(known or (FAILED, seen, start))
        return rows or [(OK, f"{', '.join(here[part]['units'])} is active")]

    return check


def _status(here, unit):
    """What systemd says of a unit; of one that is starting, after up to 3 seconds: PostgreSQL answers before it is."""
    for _ in range(30):
        status = call(here, "systemd_unit.status", unit)
        if status["active"] != "activating":
            break
        time.sleep(0.1)
    return status


def _known_units(part, here):
    if not here[part]["units"]:
        raise NotCheckedError(f"a pillar or {facts.UNIT_FILE}, to know the service")


def ask(where, question, seconds=2):
    """What a server answers to a question that needs no login."""
    family, address = where
    place = address if family == socket.AF_UNIX else ":".join(map(str, address))
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect(address)
            client.sendall(question)
            return client.recv(64)
        except socket.timeout as error:
            raise CommandExecutionError(f"{place} accepts connections and does not answer: it hangs") from error
        except OSError as error:
            raise CommandExecutionError(f"nothing answers at {place}: {error.strerror}") from error


def answering(question, part):
    """A check that comes after systemd said that the service is active."""

    def check(here):
        if here[part]["managed"]:
            _known_units(part, here)
        try:
            return question(here)
        except CommandExecutionError as error:
            if not here[part]["managed"]:
                return [(FAILED, one_line(error), f"see immich:{part}:host and immich:{part}:admin")]
            unit = here[part]["units"][-1]
            advice = f"see `journalctl -n 50 -u {unit}` for what it waits for, then: systemctl restart {unit}"
            return [(FAILED, str(error), advice)]

    return check


def listens(part, sls):
    """Checked without logging in: at the address by which containers know the host."""

    def check(here):
        settings = settings_of(here)
        if not settings[part]["managed"]:
            return [(OK, "is managed elsewhere")]
        if not settings["listen_addresses"]:
            return [(OK, "no container of this host uses it")]
        (address,), port = settings["listen_addresses"], settings[part]["port"]
        sockets = call(here, "netns.listening")
        if any(each["port"] == port and each["address"] in (address, "0.0.0.0", "::") for each in sockets):
            return [(OK, f"listens at {address}:{port}")]
        return [
            (FAILED, f"does not listen at {address}:{port}, where containers connect", f"salt-call state.apply {sls}")
        ]

    return check


def refusals(function, connection):
    """What a server has refused to Immich since it was started: a new release may need what is not granted yet."""

    def check(here):
        found = call(here, function, settings_of(here), connection(here))
        return map(of_finding, found) if found else [(OK, "nothing recently")]

    return check
