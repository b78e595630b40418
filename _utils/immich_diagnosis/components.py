"""
Part: what the registry of components names, and no other part asks
===================================================================
"""

from immich_core import component_checks
from immich_diagnosis.check import OK, Check, of_finding
from immich_diagnosis.facts import settings_of


def _components(here):
    settings = settings_of(here)
    asked = settings.get("components", {}), here["salt"], settings, here["asked"]
    found = component_checks.findings_of(*asked) + component_checks.warnings_of(*asked)
    return map(of_finding, found) if found else [(OK, "units and checks of the registry are in order")]


GROUPS = ((Check("components", _components, disturbed=True),),)
