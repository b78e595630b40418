"""
What stands in Immich's way on this host, found before anything changes
========================================================================

The pillar may be valid and the host not ready for it: a port is taken, an address is not there, PostgreSQL's cluster
is another one, Valkey has a password that the pillar does not know. Each would make some state fail in the middle of a
run. Nothing here changes anything.
"""

import contextlib
import errno
import ipaddress
import os
import re
import socket
from pathlib import Path

import salt.utils.files
from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import components, compose, container_users, findings, valkey_memory

__virtualname__ = "immich_preflight"

OBSTACLES = "immich_preflight.obstacles"
# Debian's: a cluster is /etc/postgresql/VERSION/NAME, and its unit postgresql@VERSION-NAME.
CLUSTERS = Path("/etc/postgresql")
CLUSTER_UNIT = re.compile(r"postgresql@([0-9.]+)-(.+)")
POSTGRES_PORT = 5432
POSTGRES_PROGRAMS = ("postgres", "postmaster")
LAST_PORT = 65535


def __virtual__():
    if "netns.listening" not in __salt__:
        return False, "immich_preflight needs the execution module netns."
    return __virtualname__


def obstacles(settings, sls=""):
    """
    Return what keeps the settings from being applied on this host, as findings (``immich_core.findings``).

    ``path`` is the pillar path that this host cannot fulfil, and ``remedy`` names the pillar lines that it could. Only
    what the components of this host need is looked at.

    settings
        The formula's settings.

    sls
        The SLS that is to be applied, as in ``immich.postgres``. If this host's roles do not bring its component, that
        is the one obstacle. Defaults to none.

    Called by each SLS of the formula, and by ``immich.doctor``.
    """
    foreign = components.other_role(settings, sls)
    if foreign:
        return [foreign]
    # Every SLS of a run asks, before and after the run has started what listens then.
    cached = __context__.get(OBSTACLES)
    if not cached or cached["of"] != settings:
        cached = {"of": settings, "found": _found(settings)}
        __context__[OBSTACLES] = cached
    return cached["found"]


def _found(settings):
    sockets = __salt__["netns.listening"]()
    sockets = _with_holders(sockets, {settings["port"], settings["postgres"]["port"], *_valkey_ports(settings)})
    # By component. A server that former roles have left here counts as managed, for its removal alone.
    looks = {
        "app": lambda: [*_addresses(settings), *_port(settings, sockets)],
        "preflight": lambda: container_users.obstacles(settings),
        "postgres": lambda: _postgres(settings, sockets) if settings["postgres"]["managed"] else [],
        "valkey": lambda: _valkey(settings, sockets) if settings["valkey"]["managed"] else [],
    }
    return [found for name, look in looks.items() if name in settings["components"] for found in look()]


def _obstacle(code, path, seen, remedy):
    return findings.finding(code, "pillar", seen, remedy, f"immich:{path}")


# Where Immich answers


def _addresses(settings):
    # Those of the end of the run, where the port is published on the loopback address alone at first.
    for address in settings["once_signed_up"].get("bind_address", settings["bind_address"]):
        if not _is_here(address):
            every = ipaddress.ip_address(address).is_unspecified
            missing = "this host has no IPv6" if every else f"{address} is on no interface of this host"
            seen = f"{missing}, so Immich cannot be published there"
            yield _obstacle("address-absent", "bind_address", seen, "bring it up, or take it out")


def _is_here(address):
    """Whether a socket can be bound to an address now, as Podman will bind one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as err:
        return err.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _port(settings, sockets):
    for each in _clashing(sockets, settings["port"], settings["bind_address"]):
        if not _is_immich(each["holder"]):
            seen = f"{settings['port']} is taken by {_named(each['holder'])}"
            yield _obstacle("port-taken", "port", seen, "stop that, or set another port")
            return


def _is_immich(holder):
    # Podman's conmon holds the published ports of a container, and before it the podman that starts it; the container's
    # name is among the arguments of both.
    if not holder or os.path.basename(holder["arguments"][0]) not in ("conmon", "podman"):
        return False
    return any(compose.SERVER in argument for argument in holder["arguments"])


# PostgreSQL


def _postgres(settings, sockets):
    port, unit = settings["postgres"]["port"], settings["lookup"]["postgres"]["unit"]
    cluster = CLUSTER_UNIT.fullmatch(unit)
    problem = _cluster_problem(cluster[1], cluster[2], port, sockets) if cluster else None
    if problem:
        yield problem
        return
    for each in _clashing(sockets, port, _service_addresses(settings)):
        if not _is_postgres(each["holder"], unit):
            free = _free_port(port, sockets)
            remedy = (
                f"stop that, or give PostgreSQL another port, as {free}, in its configuration, restart it, and write "
                f"`immich:postgres:port: {free}`"
            )
            seen = f"{port} is taken by {_named(each['holder'])}"
            yield _obstacle("postgres-port-taken", "postgres:port", seen, remedy)
            return


def _is_postgres(holder, unit):
    return _is_of(holder, unit) or (bool(holder) and os.path.basename(holder["arguments"][0]) in POSTGRES_PROGRAMS)


def _cluster_problem(version, name, port, sockets):
    """What is wrong with the cluster that the formula is to use, on a Debian host."""
    clusters = _clusters()
    known = {other: at for (of, other), at in clusters.items() if of == version}
    if name in known:
        if known[name] == port:
            return None
        others = [f"{of}/{other}" for (of, other), at in clusters.items() if at == port]
        whose = f", which is that of the cluster {others[0]}" if others else ""
        seen = f"PostgreSQL's cluster {version}/{name} is at port {known[name]}, not at {port}{whose}"
        return _obstacle("postgres-cluster-port", "postgres:port", seen, f"write `immich:postgres:port: {known[name]}`")
    if known:
        other, at = min(known.items())
        lines = [f"`immich:lookup:postgres:unit: postgresql@{version}-{other}`"]
        lines += [f"`immich:postgres:port: {at}`"] if at != port else []
        seen = f"PostgreSQL has no cluster {version}/{name} on this host, only {version}/{other} at port {at}"
        remedy = (
            f"write {' and '.join(lines)}, or create the other one with `pg_createcluster {version} {name} --start`"
        )
        return _obstacle("postgres-cluster-absent", "lookup:postgres:unit", seen, remedy)
    if Path(f"/usr/lib/postgresql/{version}/bin/postgres").exists():
        seen = f"PostgreSQL {version} is installed, and has no cluster"
        remedy = f"`pg_createcluster {version} {name} --start`"
        return _obstacle("postgres-cluster-absent", "lookup:postgres:unit", seen, remedy)
    return _new_cluster_problem(version, name, port, sockets, clusters)


def _new_cluster_problem(version, name, port, sockets, clusters):
    """The package creates the cluster, at the first free port: next_free_port of postgresql-common's PgCommon.pm."""
    given = _free_port(POSTGRES_PORT - 1, sockets, clusters.values())
    if given == port:
        return None
    others = [f"the cluster {of}/{other}" for (of, other), at in clusters.items() if at == port]
    others += [_named(each["holder"]) for each in sockets if each["port"] == port]
    whose = f"{port} is taken by {others[0]}" if others else f"{port} is not the first free port"
    seen = f"{whose}, so the cluster {version}/{name}, which the package creates, gets {given}"
    return _obstacle("postgres-cluster-port", "postgres:port", seen, f"write `immich:postgres:port: {given}`")


def _clusters():
    """Debian's clusters and their ports, as ``{(version, name): port}``."""
    found = CLUSTERS.glob("*/*/postgresql.conf")
    return {(path.parts[-3], path.parts[-2]): _cluster_port(path) for path in sorted(found)}


def _cluster_port(path):
    texts = [_read(path), *map(_read, sorted(path.parent.glob("conf.d/*.conf")))]
    directory = _last(r"^\s*data_directory\s*=?\s*'([^']*)'", texts)
    texts.append(_read(Path(directory or "/nowhere", "postgresql.auto.conf")))
    return int(_last(r"^\s*port\s*=?\s*'?(\d+)", texts) or POSTGRES_PORT)


# Valkey


def _valkey_ports(settings):
    configured = _configured_valkey_port(settings)
    return {settings["valkey"]["port"], *([] if configured is None else [configured])}


def _configured_valkey_port(settings):
    """The port in Valkey's configuration file, or None where Valkey is not installed."""
    path = Path(settings["lookup"]["valkey"]["config_file"])
    found = _last(r"^port\s+(\d+)", [_read(path)])
    return int(found) if found else None


def _valkey(settings, sockets):
    port, service = settings["valkey"]["port"], settings["lookup"]["valkey"]["service"]
    configured = _configured_valkey_port(settings)
    serving = {each["port"] for each in sockets if _is_of(each["holder"], service)}
    if configured != port and configured in serving:
        remedy = f"write `immich:valkey:port: {configured}`"
        yield _obstacle("valkey-port", "valkey:port", f"this host's Valkey is at port {configured}", remedy)
        return
    for each in _clashing(sockets, port, _service_addresses(settings)):
        if not _is_of(each["holder"], service):
            remedy = f"stop that, or write `immich:valkey:port: {_free_port(port, sockets)}`"
            yield _obstacle("valkey-port-taken", "valkey:port", f"{port} is taken by {_named(each['holder'])}", remedy)
            return
    if port in serving:
        yield from _valkey_refusal(settings)
        yield from _valkey_memory(settings)


def _valkey_refusal(settings):
    if "valkey_acl.server" not in __salt__:
        return
    try:
        __salt__["valkey_acl.server"](connection=__salt__["immich_valkey.logins"](settings))
    except SaltInvocationError as err:
        remedy = "correct the key `valkey` of the pillar or of the minion's configuration"
        yield findings.finding("valkey-not-asked", "pillar", str(err).rstrip("."), remedy, "valkey")
    except CommandExecutionError as err:
        # Whatever else is wrong, the states of Valkey say when they come to it.
        if getattr(err, "refused", False):
            seen = "this host's Valkey has another password for its user default (`requirepass`, or in its ACL file)"
            remedy = "write that one as `immich:valkey:admin_password: …`, and change it once the formula is applied"
            yield _obstacle("valkey-password-unknown", "valkey:admin_password", seen, remedy)


def _valkey_memory(settings):
    maxmemory = settings["valkey"]["maxmemory"]
    if maxmemory in (None, "0") or "immich_valkey.logins" not in __salt__:
        return
    # A server that cannot be asked, or asks for another password: see above.
    with contextlib.suppress(CommandExecutionError, SaltInvocationError):
        logins = __salt__["immich_valkey.logins"](settings)
        refusal = valkey_memory.refusal(maxmemory, valkey_memory.limits(__salt__["valkey_acl.pipeline"], logins))
        if refusal:
            yield refusal


# Who listens


def _service_addresses(settings):
    """Where PostgreSQL and Valkey listen."""
    return ["127.0.0.1", settings["gateway_address"]]


def _clashing(sockets, port, addresses):
    """The sockets that keep others from listening on a port at some addresses."""
    wanted = [ipaddress.ip_address(address) for address in addresses]
    return [
        each
        for each in sockets
        if each["port"] == port and any(_clash(one, ipaddress.ip_address(each["address"])) for one in wanted)
    ]


def _clash(wanted, held):
    if wanted == held:
        return True
    if held.is_unspecified:
        # Another program's :: may be that of both versions.
        return held.version == 6 or wanted.version == 4
    return wanted.is_unspecified and wanted.version == held.version


def _free_port(after, sockets, taken=()):
    taken = {each["port"] for each in sockets} | set(taken)
    return next(port for port in range(after + 1, LAST_PORT) if port not in taken)


def _with_holders(sockets, ports):
    """The sockets, those on some ports with the process that holds them, if that can be seen."""
    holders = _holders({each["inode"] for each in sockets if each["port"] in ports})
    return [{**each, "holder": holders.get(each["inode"])} for each in sockets]


def _holders(inodes):
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        if len(holders) == len(wanted):
            break
        held = _open_files(process) & wanted.keys()
        if held:
            holder = _process(process)
            holders.update((wanted[each], holder) for each in held)
    return holders


def _open_files(process):
    """What the files are that a process has open. Those closed in the meantime, or not ours to see, are none."""
    found = set()
    with contextlib.suppress(OSError):
        for each in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{process}/fd/{each}"))
    return found


def _process(number):
    arguments = _read(Path(f"/proc/{number}/cmdline")).rstrip("\0").split("\0")
    # The last part of a cgroup's path, of either version, is the unit: proc_pid_cgroup(5), systemd.
    units = re.findall(r"[^/\n]+\.(?:service|scope)$", _read(Path(f"/proc/{number}/cgroup")), re.MULTILINE)
    return {"number": int(number), "arguments": arguments, "unit": units[-1] if units else ""}


def _is_of(holder, service):
    return bool(holder) and holder["unit"] == f"{service}.service"


def _named(holder):
    if not holder:
        return "another process"
    name = os.path.basename(holder["arguments"][0].split(" ")[0]) or "a process without a name"
    if name == "conmon" and "-n" in holder["arguments"][:-1]:
        name = f"the container {holder['arguments'][holder['arguments'].index('-n') + 1]}"
    unit = f"{holder['unit']}, " if holder["unit"].endswith(".service") else ""
    return f"{name} ({unit}process {holder['number']})"


def _last(pattern, texts):
    found = [match for text in texts for match in re.findall(pattern, text, re.MULTILINE)]
    return found[-1] if found else None


def _read(path):
    try:
        with salt.utils.files.fopen(str(path), encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""
