"""Each state in the reference, docs/modules, is applied as it stands there, and changes nothing when applied again."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.functional.valkey_servers import as_shipped

REPO = Path(__file__).resolve().parents[2]
PILLAR = {"alice": {"password": "alice's password"}, "shop": {"reports": {"password": "the reports' password"}}}
ADDRESSES = ("192.0.2.1", "10.88.0.1")
# Absence last: what one page's examples make, they take away again, in this order.
BORROWED = [
    "pgsql_role.present",
    "pgsql_database.present",
    "pgsql_extension.present",
    "pgsql_config.present",
    "pgsql_hba.present",
    "pgsql_hba.absent",
    "pgsql_config.absent",
    "pgsql_extension.absent",
    "pgsql_database.absent",
    "pgsql_role.absent",
    "valkey_config.managed",
    "valkey_acl.present",
    "valkey_acl.managed",
    "valkey_acl.absent",
    "valkey_config.absent",
    "podman_network.present",
    "podman_network.absent",
    "systemd_unit.running",
    "systemd_unit.enabled",
    "systemd_unit.loaded",
    "systemd_unit.files_absent",
]
# What they ask for is so already.
WITHOUT_CHANGES = (
    "systemd_unit.running",
    "systemd_unit.enabled",
    "systemd_unit.loaded",
    "systemd_unit.files_absent",
)


def examples():
    """The example of each state function in the reference, by its name."""
    text = "\n".join(path.read_text(encoding="utf8") for path in sorted((REPO / "docs/modules").glob("*.md")))
    states = re.findall(r"^```yaml\n(\S[^\n]*:\n  ([\w.]+):\n.*?)^```", text, re.S | re.M)
    return {function: example for example, function in states}


@pytest.fixture(scope="module")
def _surroundings(session_loaders, tmp_path_factory):
    """What the examples take for granted: addresses, the role of the shop, and servers as Debian starts them."""
    for address in ADDRESSES:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    assert session_loaders.states.pgsql_role.present("shop").result
    with as_shipped(tmp_path_factory.mktemp("valkey")):
        yield
    assert session_loaders.states.pgsql_role.absent("shop").result
    for address in ADDRESSES:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


def test_every_state_has_an_example_that_is_run_here():
    assert sorted(examples()) == sorted(BORROWED)


@pytest.mark.usefixtures("_surroundings")
@pytest.mark.parametrize("function", BORROWED)
def test_example(loaders, function):
    loaders.opts["pillar"].update(PILLAR)
    for changes in (function not in WITHOUT_CHANGES, False):
        (state,) = loaders.modules.state.template_str(examples()[function])
        assert state.result is True, state.comment
        assert bool(state.changes) is changes
        loaders.context.clear()
