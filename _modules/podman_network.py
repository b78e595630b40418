"""
Read, create and remove the networks of Podman.

One ``podman network ls`` reads every network of a run. It is kept in ``__context__`` until this module
changes something.

What is not declared of a network is left to Podman, and not changed afterwards. Addresses are compared as
addresses: ``fd00:0::/64`` is ``fd00::/64``.

Works with Podman 4.3 to 5.x, as root. What a Podman does not have (``interface_name``, ``routes``, ``dns_servers`` and
``isolate: strict`` are missing in 4.3) is refused by name.

:depends: - ``_utils/host_core``
          - ``_utils/podman_core``
"""

import contextlib
import ipaddress
import json
import re
import shutil

import salt.utils.args
import salt.utils.platform
from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import command, podman, routes
from podman_core import addresses, create_options, description, isolation
from podman_core.errors import DescriptionError

__func_alias__ = {"list_": "list"}

NETWORKS = "podman_network.networks"
OPTIONS = "podman_network.create_options"
VERSION = "podman_network.version"


def __virtual__():
    if not salt.utils.platform.is_linux():
        return False, "podman_network needs Linux: Podman's networks and the routes in /proc are only there."
    return True


def list_():
    """
    Return every network of Podman, as Podman describes it, by name.

    A host without Podman has none.

    Raises ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.list
    """
    if not shutil.which("podman"):
        return {}
    if NETWORKS not in __context__:
        # `null` is what Podman prints where there is no network at all.
        networks = json.loads(_podman("network", "ls", "--format", "json")) or []
        __context__[NETWORKS] = {network["name"]: network for network in networks}
    return __context__[NETWORKS]


def exists(name):
    """
    Return whether Podman has a network.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.exists immich
    """
    return name in list_()


def inspect(name):
    """
    Return one network as it is, with the arguments of ``create`` as keys.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if there is no such network, or Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.inspect immich
    """
    network = _network(name)
    with _refused():
        return description.actual(network)


def gateway(name="podman", version=4):
    """
    Return the address of the host in a network: its gateway.

    name
        Name of the network. Defaults to Podman's default network, ``podman``.

    version
        4 or 6: the version of IP asked for. Defaults to 4.

    Raises ``CommandExecutionError`` if there is no such network, or it has no such gateway.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.gateway
        salt '*' podman_network.gateway immich
    """
    for subnet in inspect(name)["subnets"]:
        if "gateway" in subnet and ipaddress.ip_address(subnet["gateway"]).version == version:
            return subnet["gateway"]
    raise CommandExecutionError(f"Podman's network {name} has no gateway for IPv{version}")


def containers(name):
    """
    Return the names of the containers that use a network, running or not.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.containers immich
    """
    listed = json.loads(_podman("ps", "--all", "--filter", f"network={name}", "--format", "json")) or []
    return sorted(container["Names"][0] for container in listed)


def supports(option):
    """
    Return whether ``podman network create`` of this host has an option.

    option
        An argument of ``create`` of this module: ``interface_name``, ``routes``, ``dns_servers``, …

    Raises ``CommandExecutionError`` if Podman fails or is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.supports interface_name
    """
    flag = {"routes": "route", "dns_servers": "dns"}.get(option, option.replace("_", "-"))
    if OPTIONS not in __context__:
        text = _podman("network", "create", "--help")
        __context__[OPTIONS] = re.findall(r"^\s+(?:-\w, )?--([\w-]+)", text, re.MULTILINE)
    return flag in __context__[OPTIONS]


def default_isolation():
    """
    Return what ``isolate`` is of a bridge network that was created without it: ``false``, or ``strict``.

    Raises ``CommandExecutionError`` if Podman fails or is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.default_isolation
    """
    return isolation.default(_version())


def conflicts(subnet, ignore=None):
    """
    Return, as sentences, the routes of this host and the networks of Podman that a subnet overlaps.

    Works without Podman. Default routes, and routes that only refuse, are no conflict.

    subnet
        The subnet, as ``172.20.0.0/16``.

    ignore
        Name of a network that may have this subnet, or a list of names. Defaults to none.

    Raises ``SaltInvocationError`` if the subnet is none, ``CommandExecutionError`` if Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.conflicts 172.20.0.0/16 ignore=immich
    """
    with _refused():
        desired = addresses.subnet(subnet)
    ignored = [ignore] if isinstance(ignore, str) else list(ignore or [])
    found = []
    bridges = set()
    for name, network in list_().items():
        if network["driver"] == "bridge":
            bridges.add(network.get("network_interface"))
        if name in ignored:
            continue
        found += [
            f"Podman's network {name} ({taken})"
            for taken in (ipaddress.ip_network(each["subnet"]) for each in network.get("subnets") or [])
            if taken.version == desired.version and taken.overlaps(desired)
        ]
    # A bridge of Podman is named by its network, above.
    found += [
        f"the host's route to {route} through {interface}"
        for route, interface in routes.subnets()
        if interface not in bridges and route.version == desired.version and route.overlaps(desired)
    ]
    return found


def diff(
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
):
    """
    Return how a network differs from a description, as ``{what: {old, new}}``; empty if it does not.

    Only what is declared is compared. ``options`` and ``labels`` compare the keys that are declared; ``subnets``,
    ``routes`` and ``dns_servers`` are whole lists. Takes the arguments of :py:func:`create`.

    Raises ``SaltInvocationError`` if the description makes no sense, ``CommandExecutionError`` if Podman
    fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.diff immich subnet=172.20.0.0/16 isolate=True
    """
    declared = _described(**_arguments(locals()))
    if not exists(name):
        return {name: {"old": None, "new": declared or "present"}}
    return description.differences(declared, inspect(name), default_isolation)


def create(
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
):
    """
    Create a network, and return it as ``inspect`` does.

    name
        Name of the network: letters, digits, ``_``, ``.`` and ``-``, the first one a letter or a digit.

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
        Several subnets, a list of ``{subnet, gateway, ip_range}``, instead of those four.

    ipv6
        Whether it has IPv6. Defaults to whether a subnet of IPv6 is given. If True, Podman adds a subnet of
        each version of IP that is not given.

    interface_name
        Name of the bridge; for ``macvlan`` and ``ipvlan``, of the parent interface. At most 15 characters.
        Defaults to a name that Podman chooses.

    internal
        Whether the network is cut off from the outside. Defaults to False.

    isolate
        Whether it is cut off from other networks that are isolated too; ``strict``: from all others (Podman 4.6
        and later). Defaults to Podman's default: False, and ``strict`` from Podman 6 on.

    dns
        Whether containers find each other by name. Defaults to Podman's default, True for ``bridge``.

    dns_servers
        List of addresses of the name servers that containers use. Defaults to the host's.

    options
        Further options of the driver, a dictionary. Defaults to none.

    labels
        Labels, a dictionary. Defaults to none.

    routes
        List of ``{destination, gateway, metric}``, the metric optional. Defaults to none.

    mtu
        Greatest size of a packet in bytes. Defaults to the driver's.

    Raises ``SaltInvocationError`` if the description makes no sense, ``CommandExecutionError`` if Podman is
    not installed, has not got an option, or refuses.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.create immich subnet=172.20.0.0/16 gateway=172.20.0.1 isolate=True
    """
    declared = _described(**_arguments(locals()))
    arguments = _create_arguments(declared)
    __context__.pop(NETWORKS, None)
    _podman("network", "create", *arguments, name)
    return inspect(name)


def check(name, **arguments):
    """
    Raise what ``create`` would raise before it asks Podman for the network, and return True otherwise.

    name
        Name of the network.

    arguments
        The others of :py:func:`create`.

    Raises ``SaltInvocationError`` if the description makes no sense, ``CommandExecutionError`` if Podman is
    not installed or has not got an option.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.check immich subnet=172.20.0.0/16 isolate=strict
    """
    _create_arguments(_described(name, **_arguments(salt.utils.args.clean_kwargs(**arguments))))
    return True


def remove(name):
    """
    Remove a network that no container uses, and return True.

    name
        Name of the network.

    Raises ``CommandExecutionError`` if there is no such network, a container uses it, or Podman fails.

    CLI Example:

    .. code-block:: bash

        salt '*' podman_network.remove immich
    """
    __context__.pop(NETWORKS, None)
    _podman("network", "rm", name)
    return True


# --- Podman ---------------------------------------------------------------------------------------------


def _podman(*arguments):
    if not shutil.which("podman"):
        raise CommandExecutionError("Podman is not installed on this host")
    try:
        return podman.run(*arguments)
    except command.CommandError as error:
        raise CommandExecutionError(str(error)) from error


def _network(name):
    try:
        return list_()[name]
    except KeyError:
        raise CommandExecutionError(f"Podman has no network {name}") from None


def _create_arguments(declared):
    for option in create_options.newer(declared):
        _require(option)
    if declared.get("options", {}).get("isolate") == "strict":
        _require_strict_isolation()
    return create_options.arguments(declared)


def _require(option):
    if not supports(option):
        raise CommandExecutionError(f"Podman {_version()} cannot create a network with {option}")


def _require_strict_isolation():
    if not isolation.has_strict(_version()):
        raise CommandExecutionError(
            f"Podman {_version()} cannot create a network with isolate: strict, which needs 4.6. There is "
            f"isolate: true, which cuts it off only from networks that are isolated too"
        )


def _version():
    if VERSION not in __context__:
        __context__[VERSION] = _podman("--version").split()[-1]
    return __context__[VERSION]


# --- Descriptions ---------------------------------------------------------------------------------------


def _arguments(scope):
    return {key: value for key, value in scope.items() if value is not None}


@contextlib.contextmanager
def _refused():
    """Raise what makes no sense as Salt's exception."""
    try:
        yield
    except DescriptionError as error:
        raise SaltInvocationError(str(error)) from error


def _described(name, **arguments):
    with _refused():
        return description.described(name, **arguments)
