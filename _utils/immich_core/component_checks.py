"""
What the registry of components has checked: units that are active, and functions that return findings
======================================================================================================

``components`` is a dictionary of components by name, each with ``units`` and ``checks`` (``module.function``), as
``immich/components.yaml`` has them. Whoever calls hands down what asks the host.
"""

from immich_core import findings


def findings_of(components, active, checked):
    """
    Return the findings of all components, in their order.

    components
        The components.
    active
        A function from a unit to its state, as systemd names it: ``active``, ``inactive``, ``failed``.
    checked
        A function from an execution function's name to the list of findings that it returns.

    .. code-block:: python

        component_checks.findings_of(settings["components"], active, checked)
    """
    found = []
    for component in components.values():
        states = {unit: active(unit) for unit in component.get("units", [])}
        found += [_inactive(unit, state) for unit, state in states.items() if state != "active"]
        for function in component.get("checks", []):
            found += checked(function)
    return found


def _inactive(unit, state):
    remedy = f"systemctl start {unit} || journalctl -n 20 -u {unit}"
    return findings.finding("unit-inactive", "components", f"is {state}", remedy, unit)
