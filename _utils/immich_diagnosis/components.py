"""
Part: what the registry of components names
===========================================
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import component_checks, findings
from immich_diagnosis.check import OK, Check, NotCheckedError, call, of_finding
from immich_diagnosis.facts import settings_of


def _components(here):
    settings = settings_of(here)
    components = settings.get("components", {})

    def active(unit):
        return call(here, "systemd_unit.status", unit)["active"]

    def checked(function):
        try:
            return call(here, function, settings)
        except NotCheckedError as error:
            return [findings.not_verified("components", f"{function}: needs {error}")]
        except (CommandExecutionError, SaltInvocationError) as error:
            return [findings.not_verified("components", f"{function}: {error}")]

    found = component_checks.findings_of(components, active, checked)
    return map(of_finding, found) if found else [(OK, "units and checks of the registry are in order")]


GROUPS = ((Check("components", _components, disturbed=True),),)
