"""
Debian's clusters of PostgreSQL on this host
============================================
"""

from pathlib import Path

from host_core import files
from immich_core.obstacles import postgres_cluster

# A cluster is CLUSTERS/VERSION/NAME.
CLUSTERS = Path("/etc/postgresql")
PROGRAM = "/usr/lib/postgresql/{}/bin/postgres"


def ports():
    """Return the clusters and their ports, as ``{(version, name): port}``."""
    found = CLUSTERS.glob("*/*/postgresql.conf")
    return {(path.parts[-3], path.parts[-2]): _port(path) for path in sorted(found)}


def installed(version):
    """
    Return whether the package of a version is installed.

    version
        Such as ``17``.
    """
    return Path(PROGRAM.format(version)).exists()


def _port(path):
    texts = [files.text(path), *map(files.text, sorted(path.parent.glob("conf.d/*.conf")))]
    directory = postgres_cluster.data_directory(texts)
    if directory:
        texts.append(files.text(Path(directory, "postgresql.auto.conf")))
    return postgres_cluster.port_of(texts)
