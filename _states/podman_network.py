"""
Manage the networks of Podman.

What is not declared of a network is left to Podman when it is created, and not changed afterwards.

A network that is not as described is removed and created again, since Podman cannot change it in place. Where
containers use it, the state fails, names them and changes nothing.

Works with Podman 4.3 to 5.x, as root.
"""

import shutil

from salt.exceptions import CommandExecutionError, SaltInvocationError

# Arguments of the state that do not describe the network.
NOT_OF_THE_NETWORK = ("name", "removed_containers", "replaces")


def __virtual__():
    if "podman_network.diff" not in __salt__:
        return False, "The state podman_network needs the execution module podman_network."
    return True


def present(
    name,
    driver=None,
    subnet=None,
    gateway=None,
    ip_range=None,
    ipv6_subnet=None,
    subnets=None,
    ipv6=None,
    interface_name=None,
    internal=None,
    isolate=None,
    dns=None,
    dns_servers=None,
    options=None,
    labels=None,
    routes=None,
    mtu=None,
    removed_containers=(),
    replaces=None,
):
    """
    Make sure that a network is there, as described.

    .. code-block:: yaml

        The network of the shop is present:
          podman_network.present:
            - name: shop
            - subnet: 172.21.0.0/16
            - gateway: 172.21.0.1
            - interface_name: shop0
            - isolate: True

    A subnet that a route of the host or another network already has makes the state fail before anything is
    changed, and the comment names it.

    name
        Name of the network.

    driver
        ``bridge``, ``macvlan`` or ``ipvlan``. Defaults to Podman's default, ``bridge``.

    subnet
        Its subnet, as ``172.20.0.0/16``. Defaults to one that Podman chooses.

    gateway
        Address of the host in that subnet. Defaults to the subnet's first address.

    ip_range
        Part of the subnet from which containers get their addresses, as ``172.20.1.0/24`` or
        ``172.20.1.5-172.20.1.99`` (not in Podman 4.3). Defaults to the whole subnet.

    ipv6_subnet
        A subnet of IPv6 besides ``subnet``, as ``fd00:20::/64``. Its gateway is its first address. Defaults to none.

    subnets
        Several subnets, a list of ``{subnet, gateway, ip_range}``, instead of those four. The whole list: a
        network with one more is not as described.

    ipv6
        Whether it has IPv6. Defaults to whether a subnet of IPv6 is given. If True, Podman adds a subnet of
        each version of IP that is not given.

    interface_name
        Name of the bridge; for ``macvlan`` and ``ipvlan``, of the parent interface. At most 15 characters. A
        Podman that cannot name the bridge (4.3) chooses a name, and the comment reports it. Defaults to a name
        that Podman chooses.

    internal
        Whether the network is cut off from the outside. Defaults to False.

    isolate
        Whether it is cut off from other networks that are isolated too; ``strict``: from all others (Podman 4.6
        and later). Defaults to Podman's default: False, and ``strict`` from Podman 6 on.

    dns
        Whether containers find each other by name. Defaults to Podman's default, True for ``bridge``.

    dns_servers
        List of addresses of the name servers that containers use, the whole list. Defaults to the host's.

    options
        Further options of the driver, a dictionary; others are not changed. Defaults to none.

    labels
        Labels, a dictionary; others are not changed. Defaults to none.

    routes
        List of ``{destination, gateway, metric}``, the metric optional, the whole list. Defaults to none.

    mtu
        Greatest size of a packet in bytes. Defaults to the driver's.

    removed_containers
        Names of containers that earlier states of the same run remove where this network has to be recreated: a
        dry run does not count them. Defaults to none.

    replaces
        Name of a network that an earlier state of the same run removes: a dry run does not count its subnet. Defaults
        to none.
    """
    declared = {key: value for key, value in locals().items() if value is not None and key not in NOT_OF_THE_NETWORK}
    ret = {"name": name, "result": True, "changes": {}, "comment": f"Network {name} is present as specified"}
    try:
        return _present(ret, name, declared, *((removed_containers, replaces) if __opts__["test"] else ((), None)))
    except (CommandExecutionError, SaltInvocationError) as exc:
        return dict(ret, result=False, changes={}, comment=str(exc))


def _present(ret, name, declared, removed_containers, replaces):
    changes, note = _diff(name, declared)
    ret["comment"] += note
    if not changes:
        return ret

    if shutil.which("podman"):
        __salt__["podman_network.check"](name, **declared)
    there = __salt__["podman_network.exists"](name)
    obstacle = _conflict(name, declared, replaces) or (there and _use(name, changes, removed_containers))
    if obstacle:
        return dict(ret, result=False, comment=obstacle)

    ret["changes"] = changes
    verb = "recreated" if there else "created"
    if __opts__["test"]:
        return dict(ret, result=None, comment=f"Network {name} would be {verb}{note}")

    if there:
        _replace(name, declared)
    else:
        __salt__["podman_network.create"](name, **declared)

    left, _ = _diff(name, declared)
    if left:
        comment = f"There were no errors, but network {name} still differs in {', '.join(left)}: {left}"
        return dict(ret, result=False, comment=comment)
    return dict(ret, comment=f"Network {name} has been {verb}{note}")


def absent(name, keep_used=False, removed_containers=()):
    """
    Make sure that a network is not there.

    .. code-block:: yaml

        The network of the shop is absent:
          podman_network.absent:
            - name: shop

    name
        Name of the network.

    keep_used
        Whether a network that containers use stays, and the comment names them, instead of making the
        state fail. Defaults to False.

    removed_containers
        Names of containers that earlier states of the same run remove: a dry run does not count them. Defaults to
        none.
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"Network {name} is absent"}
    try:
        return _absent(ret, name, keep_used, removed_containers if __opts__["test"] else ())
    except (CommandExecutionError, SaltInvocationError) as exc:
        return dict(ret, result=False, changes={}, comment=str(exc))


def _absent(ret, name, keep_used, removed_containers):
    if not __salt__["podman_network.exists"](name):
        return ret

    users = _users(name, removed_containers)
    if users and keep_used:
        return dict(ret, comment=f"Network {name} stays: {', '.join(users)} use it")
    if users:
        return dict(ret, result=False, comment=f"Network {name} is in use. {_remove_first(users)}")

    ret["changes"] = {name: {"old": __salt__["podman_network.inspect"](name), "new": None}}
    if __opts__["test"]:
        return dict(ret, result=None, comment=f"Network {name} would be removed")

    __salt__["podman_network.remove"](name)
    if __salt__["podman_network.exists"](name):
        comment = f"There were no errors, but network {name} is still there"
        return dict(ret, result=False, changes={}, comment=comment)
    return dict(ret, comment=f"Network {name} has been removed")


def _diff(name, declared):
    """What differs, and a note on what this Podman cannot do. Removes that from what is declared."""
    changes = __salt__["podman_network.diff"](name, **declared)
    bridge = declared.get("driver", "bridge") == "bridge"
    if not (changes and bridge and "interface_name" in declared and shutil.which("podman")):
        return changes, ""
    if __salt__["podman_network.supports"]("interface_name"):
        return changes, ""
    del declared["interface_name"]
    return __salt__["podman_network.diff"](name, **declared), "; this Podman cannot name its interface"


def _conflict(name, declared, replaces):
    if declared.get("driver", "bridge") != "bridge":
        return ""  # macvlan and ipvlan share the subnet of their parent.
    subnets = [declared[key] for key in ("subnet", "ipv6_subnet") if key in declared]
    for subnet in subnets or [each["subnet"] for each in declared.get("subnets", [])]:
        taken = __salt__["podman_network.conflicts"](subnet, ignore=[name, *([replaces] if replaces else [])])
        if taken:
            return f"Network {name} cannot have {subnet}: it overlaps {', '.join(taken)}. Choose another."
    return ""


def _users(name, removed_containers):
    return [user for user in __salt__["podman_network.containers"](name) if user not in removed_containers]


def _use(name, changes, removed_containers):
    users = _users(name, removed_containers)
    if not users:
        return ""
    return f"Network {name} is not as specified ({', '.join(changes)}), but in use. {_remove_first(users)}"


def _remove_first(users):
    return f"Remove its containers first: {', '.join(users)}. Nothing was changed."


def _replace(name, declared):
    """Podman checks a description only while it creates: if it refuses, the old network is restored."""
    old = __salt__["podman_network.inspect"](name)
    __salt__["podman_network.remove"](name)
    try:
        __salt__["podman_network.create"](name, **declared)
    except CommandExecutionError as exc:
        try:
            if not __salt__["podman_network.supports"]("interface_name"):
                del old["interface_name"]
            known = {key: value for key, value in old.items() if value not in ("", [], {})}
            __salt__["podman_network.create"](name, **known)
        except CommandExecutionError as second:
            raise CommandExecutionError(
                f"{exc}. Network {name} does not exist any more, as it could not be restored either: {second}. "
                "Apply again."
            ) from second
        raise CommandExecutionError(f"{exc}. Network {name} is as it was.") from exc
