"""Units and functions that components name: all are asked, in order, and none hides another."""

from immich_core import component_checks, findings

BROKEN = findings.finding("broken", "proxy", "The proxy is not reached")
COMPONENTS = {
    "gateway": {"units": ["immich-gateway.service"]},
    "proxy": {"units": ["proxy.service", "proxy.timer"], "checks": ["proxy.verify", "proxy.certificates"]},
    "identity": {},
}


def test_units_that_are_not_active_and_findings_of_functions():
    states = {"immich-gateway.service": "failed", "proxy.service": "active", "proxy.timer": "inactive"}
    answers = {"proxy.verify": [], "proxy.certificates": [BROKEN]}
    found = component_checks.findings_of(COMPONENTS, states.__getitem__, answers.__getitem__)
    assert [findings.seen(each) for each in found] == [
        "immich-gateway.service: is failed",
        "proxy.timer: is inactive",
        "The proxy is not reached",
    ]
    assert found[0]["remedy"] == (
        "systemctl start immich-gateway.service || journalctl -n 20 -u immich-gateway.service"
    )


def test_nothing_is_found_where_all_is_well():
    assert component_checks.findings_of(COMPONENTS, lambda _unit: "active", lambda _function: []) == []
