"""Units and functions that components name: all are asked, in order, and none hides another."""

import pytest

from immich_core import component_checks, findings

BROKEN = findings.finding("broken", "proxy", "The proxy is not reached")
COMPONENTS = {
    "gateway": {"units": ["immich-gateway.service"]},
    "proxy": {
        "units": ["proxy.service", "proxy.timer"],
        "checks": ["proxy.verify", "proxy.certificates"],
        "warnings": ["proxy.expiry"],
    },
    "identity": {},
}


@pytest.fixture
def functions():
    """Execution functions on a host where all is well."""
    names = ("proxy.verify", "proxy.certificates", "proxy.expiry")
    return {**{name: lambda _settings: [] for name in names}, "systemd_unit.status": lambda _unit: {"active": "active"}}


def seen(found):
    return [findings.seen(each) for each in found]


def test_units_that_do_not_run_and_findings_of_functions(functions):
    states = {"immich-gateway.service": "failed", "proxy.service": "active", "proxy.timer": "inactive"}
    functions["systemd_unit.status"] = lambda unit: {"active": states[unit]}
    functions["proxy.certificates"] = lambda settings: [{**BROKEN, "path": settings["path"]}]
    found = component_checks.findings_of(COMPONENTS, functions, {"path": "x"})
    assert seen(found) == [
        "immich-gateway.service: is failed",
        "proxy.timer: is inactive",
        "x: The proxy is not reached",
    ]
    assert found[0]["remedy"] == (
        "systemctl start immich-gateway.service || journalctl -n 20 -u immich-gateway.service"
    )


@pytest.mark.parametrize("state", ("active", "reloading", "activating"))
def test_a_unit_at_work_is_no_finding(functions, state):
    functions["systemd_unit.status"] = lambda _unit: {"active": state}
    assert component_checks.findings_of(COMPONENTS, functions, {}) == []
    assert component_checks.warnings_of(COMPONENTS, functions, {}) == []


def test_warnings_are_apart_and_what_others_ask_is_left_out(functions):
    functions["proxy.verify"] = functions["proxy.expiry"] = lambda _settings: [BROKEN]
    assert component_checks.findings_of(COMPONENTS, functions, {}) == [BROKEN]
    assert component_checks.warnings_of(COMPONENTS, functions, {}) == [BROKEN]
    assert component_checks.findings_of(COMPONENTS, functions, {}, {"proxy.verify"}) == []
    assert component_checks.warnings_of(COMPONENTS, functions, {}, {"proxy.expiry"}) == []


def test_what_cannot_be_asked_is_a_finding(functions):
    def broken(_):
        raise TypeError

    functions["systemd_unit.status"] = functions["proxy.verify"] = broken
    del functions["proxy.certificates"]
    assert seen(component_checks.findings_of({"proxy": COMPONENTS["proxy"]}, functions, {})) == [
        "proxy.service: is not known: ",
        "proxy.timer: is not known: ",
        "proxy.verify: TypeError",
        "proxy.certificates is not loaded",
    ]


def test_a_check_that_returns_no_list_hides_no_other(functions):
    def generated(settings):
        yield BROKEN
        raise KeyError(settings["path"])

    functions["proxy.verify"] = lambda _settings: None
    functions["proxy.certificates"] = generated
    functions["proxy.expiry"] = lambda _settings: iter([BROKEN])
    found = component_checks.findings_of(COMPONENTS, functions, {"path": "x"})
    assert seen(found) == ["proxy.certificates: 'x'"]
    assert component_checks.warnings_of(COMPONENTS, functions, {}) == [BROKEN]


def test_the_memory_that_a_check_may_take_is_its_callers_limit(functions):
    def broken(_settings):
        raise MemoryError

    functions["proxy.verify"] = broken
    with pytest.raises(MemoryError):
        component_checks.findings_of(COMPONENTS, functions, {})


def test_obstacles_get_the_sockets_too(functions):
    functions["proxy.obstacles"] = lambda settings, listeners: [{**BROKEN, "path": f"{settings} {listeners}"}]
    components = {"proxy": {"obstacles": ["proxy.obstacles", "proxy.gone"]}, "identity": {}}
    found = component_checks.obstacles_of(components, functions, "settings", "sockets")
    assert seen(found) == ["settings sockets: The proxy is not reached", "proxy.gone is not loaded"]
