"""
The parts of the doctor, in the order of causes
===============================================

The checks of a group run one after the other, groups side by side. Behind a gate that fails, the rest of its group is
not checked.
"""

from immich_diagnosis import (
    accounts,
    application,
    backups,
    components,
    folders,
    formula,
    hardware,
    host,
    metrics,
    podman,
    postgres,
    reachability,
    valkey,
)

FORMULA = formula.CHECKS
# The component that each is about: a host without it has nothing to look at there. None: every host has it.
PARTS = {
    host: "preflight",
    folders: "preflight",
    podman: "podman",
    postgres: "postgres",
    valkey: "valkey",
    application: "app",
    reachability: "app",
    hardware: "app",
    accounts: "accounts",
    components: None,
    backups: "backup",
    metrics: "metrics",
}
GROUPS = tuple(group for part in PARTS for group in part.GROUPS)
# What the registry of components names and has a row of its own.
ASKED = frozenset(function for group in GROUPS for check in group for function in check.asks)


def of_host(settings):
    """The groups of checks for what a host has by its roles; without settings, all."""
    if not settings:
        return GROUPS
    has = {None, *settings["components"]}
    groups = [
        tuple(check for check in group if component in has or check.everywhere)
        for part, component in PARTS.items()
        for group in part.GROUPS
    ]
    return tuple(filter(None, groups))
