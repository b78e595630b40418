"""
Part: Podman, Immich's network, and the gateway
===============================================
"""

import shutil

from immich_diagnosis.check import FAILED, OK, Check, call, of_finding
from immich_diagnosis.facts import settings_of


def _podman(here):
    if not shutil.which("podman"):
        return [(FAILED, "Podman is not installed", "salt-call state.apply immich.podman")]
    networks = call(here, "podman_network.list")
    return [(OK, f"answers, with {len(networks)} networks")]


def _network(here):
    settings = settings_of(here)
    changes = call(here, "podman_network.diff", **settings["network"])
    if not changes:
        return [(OK, f"{settings['network']['name']}, {settings['network']['subnet']}")]
    name = settings["network"]["name"]
    if name in changes:
        return [(FAILED, f"Podman has no network {name}", "salt-call state.apply immich.podman")]
    seen = "; ".join(f"{what} is {change['old']}, not {change['new']}" for what, change in changes.items())
    advice = "systemctl stop immich && salt-call state.apply immich"
    return [(FAILED, f"the network {name} is not as specified: {seen}", advice)]


def _gateway(here):
    settings = settings_of(here)
    broken = call(here, "immich_gateway.verify", settings)
    return (
        map(of_finding, broken) if broken else [(OK, f"{settings['gateway_address']} is held, its firewall is loaded")]
    )


GROUPS = (
    (
        Check("Podman", _podman, gate=True),
        Check("network", _network, gate=True),
        Check("gateway and firewall", _gateway, asks=("immich_gateway.verify",)),
    ),
)
