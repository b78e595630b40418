"""
A cluster of PostgreSQL that is another one than the formula is to use, and a port of its that others have
==========================================================================================================

``clusters`` are Debian's, and their ports: ``{(version, name): port}``.
"""

import re

from immich_core.obstacles import obstacle, ports

# Debian's: a cluster is /etc/postgresql/VERSION/NAME, and its unit postgresql@VERSION-NAME.
UNIT = re.compile(r"postgresql@([0-9.]+)-(.+)")
DEFAULT_PORT = 5432
PROGRAMS = ("postgres", "postmaster")


def found(port, unit, addresses, sockets, clusters, installed):
    """
    Yield what is in the way of the server, at most one thing.

    port, unit, addresses
        Where it is to serve, and its unit in systemd.
    sockets, clusters
        As above.
    installed
        Function that says whether a version's package is installed.
    """
    cluster = UNIT.fullmatch(unit)
    problem = of_cluster(cluster[1], cluster[2], port, sockets, clusters, installed) if cluster else None
    if problem:
        yield problem
        return
    for each in ports.clashing(sockets, port, addresses):
        if not _is_postgres(each["holder"], unit):
            free = ports.free(port, sockets)
            remedy = (
                f"stop that, or give PostgreSQL another port, as {free}, in its configuration, restart it, and write "
                f"`immich:postgres:port: {free}`"
            )
            seen = f"{port} is taken by {ports.named(each['holder'])}"
            yield obstacle("postgres-port-taken", "postgres:port", seen, remedy)
            return


def _is_postgres(holder, unit):
    return ports.is_of(holder, unit) or ports.program(holder) in PROGRAMS


def of_cluster(version, name, port, sockets, clusters, installed):
    """What is wrong with the cluster that the formula is to use, on a Debian host, or None."""
    known = {other: at for (of, other), at in clusters.items() if of == version}
    if name in known:
        if known[name] == port:
            return None
        others = [f"{of}/{other}" for (of, other), at in clusters.items() if at == port]
        whose = f", which is that of the cluster {others[0]}" if others else ""
        seen = f"PostgreSQL's cluster {version}/{name} is at port {known[name]}, not at {port}{whose}"
        return obstacle("postgres-cluster-port", "postgres:port", seen, f"write `immich:postgres:port: {known[name]}`")
    if known:
        other, at = min(known.items())
        lines = [f"`immich:lookup:postgres:unit: postgresql@{version}-{other}`"]
        lines += [f"`immich:postgres:port: {at}`"] if at != port else []
        seen = f"PostgreSQL has no cluster {version}/{name} on this host, only {version}/{other} at port {at}"
        remedy = (
            f"write {' and '.join(lines)}, or create the other one with `pg_createcluster {version} {name} --start`"
        )
        return obstacle("postgres-cluster-absent", "lookup:postgres:unit", seen, remedy)
    if installed(version):
        seen = f"PostgreSQL {version} is installed, and has no cluster"
        remedy = f"`pg_createcluster {version} {name} --start`"
        return obstacle("postgres-cluster-absent", "lookup:postgres:unit", seen, remedy)
    return _of_new_cluster(version, name, port, sockets, clusters)


def _of_new_cluster(version, name, port, sockets, clusters):
    """The package creates the cluster, at the first free port: next_free_port of postgresql-common's PgCommon.pm."""
    given = ports.free(DEFAULT_PORT - 1, sockets, clusters.values())
    if given == port:
        return None
    others = [f"the cluster {of}/{other}" for (of, other), at in clusters.items() if at == port]
    others += [ports.named(each["holder"]) for each in sockets if each["port"] == port]
    whose = f"{port} is taken by {others[0]}" if others else f"{port} is not the first free port"
    seen = f"{whose}, so the cluster {version}/{name}, which the package creates, gets {given}"
    return obstacle("postgres-cluster-port", "postgres:port", seen, f"write `immich:postgres:port: {given}`")


def port_of(texts):
    """The port of a cluster, by the texts of its configuration files, of which the last has its way."""
    return int(_last(r"^\s*port\s*=?\s*'?(\d+)", texts) or DEFAULT_PORT)


def data_directory(texts):
    """The directory of a cluster's data, by the same texts, or None."""
    return _last(r"^\s*data_directory\s*=?\s*'([^']*)'", texts)


def _last(pattern, texts):
    matches = [match for text in texts for match in re.findall(pattern, text, re.MULTILINE)]
    return matches[-1] if matches else None
