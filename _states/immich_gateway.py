"""
Keep the host's address for Immich's containers, and the firewall table that protects it, active.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import units
from immich_host import gateway


def __virtual__():
    if "immich_gateway.plan" not in __salt__:
        return False, "The state immich_gateway needs the execution module immich_gateway."
    return True


def active(name, address, network, ports, host_ports=()):
    """
    Make sure that the address is there, and the table as ``immich-gateway.service`` loaded it.

    .. code-block:: yaml

        Address and firewall of the gateway are active:
          immich_gateway.active:
            - address: 10.88.0.1
            - network: {name: immich, subnet: 172.20.0.0/16, interface_name: immich0}
            - ports: [5432, 6379]
            - watch:
              - file: /etc/immich-gateway.nft

    name
        Any text.

    address
        The host's address for containers.

    network
        The Immich network: ``name``, ``subnet``, and ``gateway`` and ``interface_name`` where it has them.

    ports
        List of the TCP ports that are open to the Immich network only.

    host_ports
        List of the TCP ports of this host that are open to the Immich network at any address. Defaults to none.
    """
    ret = {
        "name": name,
        "result": True,
        "changes": {},
        "comment": f"{address} is present, its firewall is loaded",
    }
    try:
        return _active(ret, __salt__["immich_gateway.plan"](address, network, ports, host_ports))
    except (CommandExecutionError, SaltInvocationError) as exc:
        return dict(ret, result=False, changes={}, comment=str(exc))


def _active(ret, plan):
    address = plan["address"]
    before = gateway.status(plan, __context__)
    ret["changes"] = _changes(plan, before)
    if not ret["changes"]:
        return ret
    if __opts__["test"]:
        return dict(ret, result=None, comment=f"{address} and its firewall would be put in place")

    _load()
    for stale in before["stale"]:
        gateway.release(stale)

    left = _changes(plan, gateway.status(plan, __context__))
    if left:
        comment = f"There were no errors, but {', '.join(left)} is not right: see systemctl status immich-gateway"
        return dict(ret, result=False, comment=comment)
    return dict(ret, comment=f"{address} and its firewall have been put in place")


def mod_watch(name, address, network, ports, **_):
    """
    Reload the unit and its rules after a watched file has changed, or would in a dry run.

    .. note::
        Not to be called directly: Salt does, where ``active`` itself found nothing to do.
    """
    changes = {"firewall": {"old": "outdated", "new": "loaded"}}
    ret = {"name": name, "result": True, "changes": changes, "comment": "Unit and rules were reloaded"}
    if __opts__["test"]:
        return dict(ret, result=None, comment="Unit and rules would be reloaded")
    try:
        _load()
    except CommandExecutionError as exc:
        return dict(ret, result=False, changes={}, comment=str(exc))
    return ret


def _load():
    """Put address and table in place, as the unit and its rules are on the disk."""
    __salt__["systemd_unit.call"]("daemon-reload")
    __salt__["systemd_unit.call"]("reload-or-restart", units.GATEWAY)


def _changes(plan, status):
    changes = {}
    if not status["address"]:
        changes[plan["address"]] = {"old": None, "new": "on lo"}
    for stale in status["stale"]:
        changes[stale] = {"old": "on lo", "new": None}
    if status["firewall"] != "loaded":
        changes["firewall"] = {"old": status["firewall"], "new": "loaded"}
    return changes
