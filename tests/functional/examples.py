"""The examples of states in the reference, docs/modules, and the host that they take for granted."""

import contextlib
import re
import subprocess
from pathlib import Path

from tests.functional.valkey_servers import as_shipped

REPO = Path(__file__).resolve().parents[2]
PILLAR = {"alice": {"password": "alice's password"}, "shop": {"reports": {"password": "the reports' password"}}}
ADDRESSES = ("192.0.2.1", "10.88.0.1")
# Absence last: what one page's examples make, they take away again, in this order.
STATES = [
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
    "valkey_config.in_file",
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


def examples():
    """The example of each state function in the reference that knows nothing of Immich, by its name."""
    text = "\n".join(path.read_text(encoding="utf8") for path in sorted((REPO / "docs/modules").glob("*.md")))
    states = re.findall(r"^```yaml\n(\S[^\n]*:\n  ([\w.]+):\n.*?)^```", text, re.S | re.M)
    return {function: example for example, function in states if not function.startswith("immich")}


@contextlib.contextmanager
def surroundings(states, folder):
    """A host with the addresses, the role of the shop, and the servers as Debian starts them."""
    for address in ADDRESSES:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    assert states.pgsql_role.present("shop").result
    with as_shipped(folder):
        yield
    assert states.pgsql_role.absent("shop").result
    for address in ADDRESSES:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)
