"""What a dry run says of a host on which the formula's modules are not yet: its packages, by its roles."""

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SLS = REPO / "immich/bootstrap/init.sls"


@pytest.fixture
def planned(session_loaders):
    """The first package of each component that a plan names, by the roles of a pillar."""
    import salt.loader
    import salt.template

    grains = {**session_loaders.opts["grains"], "pythonexecutable": "/opt/salt/bin/python3"}
    opts = {**session_loaders.opts, "grains": grains, "test": True}
    renderers = salt.loader.render(opts, session_loaders.modules)

    def planned(roles):
        opts["pillar"]["immich"] = {"roles": roles}
        states = salt.template.compile_template(str(SLS), renderers, "jinja|yaml", [], [], "base", "immich.bootstrap")
        return {state["pkg.installed"][0]["pkgs"][0] for state in states.values() if "pkg.installed" in state}

    yield planned
    opts["pillar"].clear()


@pytest.mark.parametrize(
    ("roles", "expected"),
    (
        (["postgres"], {"postgresql-17"}),
        (["valkey", "proxy"], {"valkey-server"}),
        (["machine_learning"], {"podman"}),
        (["proxy"], set()),
        (5, {"podman", "postgresql-17", "valkey-server"}),
    ),
)
def test_a_first_plan_names_the_packages_of_its_roles(planned, roles, expected):
    assert planned(roles) == expected
