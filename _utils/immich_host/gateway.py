"""
The host's address for containers and the firewall table as they are on this host
==================================================================================
"""

import json
import shutil
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import command
from immich_core import gateway

RULES = "/etc/immich-gateway.nft"
# What the unit writes after loading: the rules it loaded, and the table as nft printed it then.
LOADED_RULES = Path("/run/immich-gateway/rules.nft")
LOADED_TABLE = Path("/run/immich-gateway/table")
# In Salt's ``__context__``.
ADDRESSES = "immich_host.gateway.addresses"
# What `ip` and `nft` may take, in seconds, and print, in bytes: networks and rules of others are among it.
SECONDS, LARGEST_ANSWER = 30, 4 * 1024**2


def status(plan, run):
    """
    Return what is there: ``address`` (bool), ``stale`` addresses of earlier settings, and ``firewall``.

    ``firewall`` is ``loaded``, ``absent``, ``changed`` (by somebody else), or ``outdated`` (the rules on the
    disk are others than the loaded ones).

    plan
        What ``immich_gateway.plan`` returns.
    run
        The ``__context__`` of the run.

    Raises ``CommandExecutionError`` if ``ip`` or ``nft`` fails.
    """
    on_lo = [held for name, held in _addresses(run) if name == "lo"]
    address = plan["address"] if plan["add"] else None
    return {
        "address": address is None or any(held["local"] == address for held in on_lo),
        "stale": [held["local"] for held in on_lo if held.get("label") == gateway.LABEL and held["local"] != address],
        "firewall": _firewall(),
    }


def release(address):
    """
    Take an address that the unit had put there off ``lo``.

    address
        The address.

    Raises ``CommandExecutionError`` if ``ip`` fails.
    """
    _run("ip", "address", "delete", f"{address}/32", "dev", "lo")


def known_addresses(run):
    """
    Return pairs of an interface's name and one address of it, as `ip` describes it, by the first look of a run: what a
    run changes itself is on lo or a bridge.

    run
        The ``__context__`` of the run.

    Raises ``CommandExecutionError`` if ``ip`` fails.
    """
    return run.get(ADDRESSES) or _addresses(run)


def _firewall():
    if not shutil.which("nft"):
        return "absent"
    try:
        table = _run("nft", "-s", "list", "table", "inet", "immich")
    except CommandExecutionError as error:
        if "No such file or directory" in str(error):
            return "absent"
        raise
    if _read(LOADED_RULES) != _read(Path(RULES)):
        return "outdated"
    return "loaded" if table.strip() == _read(LOADED_TABLE).strip() else "changed"


def _addresses(run):
    if not shutil.which("ip"):
        return []
    interfaces = json.loads(_run("ip", "-json", "address", "show"))
    run[ADDRESSES] = [(each["ifname"], held) for each in interfaces if "ifname" in each for held in each["addr_info"]]
    return run[ADDRESSES]


def _read(path):
    try:
        return path.read_text(encoding="utf8")
    except FileNotFoundError:
        return ""


def _run(*words):
    with command.raised_as(CommandExecutionError):
        return command.run(words, SECONDS, LARGEST_ANSWER)
