"""
The parts of the doctor, in the order of causes
===============================================

The checks of a group run one after the other, groups side by side. Behind a gate that fails, the rest of its group is
not checked.
"""

from immich_diagnosis import (
    application,
    backups,
    components,
    folders,
    formula,
    host,
    podman,
    postgres,
    reachability,
    valkey,
)

FORMULA = formula.CHECKS
PARTS = (host, folders, podman, postgres, valkey, application, reachability, components, backups)
GROUPS = tuple(group for part in PARTS for group in part.GROUPS)
# What the registry of components names and has a row of its own.
ASKED = frozenset(function for group in GROUPS for check in group for function in check.asks)
