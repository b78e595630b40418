"""
Part: PostgreSQL
================
"""

import os
import re
import socket

from immich_diagnosis import leftovers
from immich_diagnosis.check import FAILED, OK, Check, call, of_finding
from immich_diagnosis.facts import postgres_connection, read_text, settings_of
from immich_diagnosis.servers import answering, ask, listens, refusals, service

NETWORK_SHARES = re.compile(r"nfs\d?|cifs|smb\d|smbfs|9p|afs|ceph|glusterfs|lustre|davfs|fuse\..*")


def _postgres_answers(here):
    if not here["postgres"]["managed"]:
        return [(OK, f"PostgreSQL {call(here, 'pgsql_server.version', postgres_connection(here)) // 10000}")]
    port = here["postgres"]["port"]
    # SSLRequest of the protocol, which every server answers with one letter before anybody logs in.
    answer = ask((socket.AF_UNIX, f"{here['socket_dir']}/.s.PGSQL.{port}"), b"\0\0\0\x08\x04\xd2\x16\x2f")
    if answer[:1] not in (b"S", b"N"):
        return [(FAILED, f"what listens at port {port} is not PostgreSQL", f"ss -lptn 'sport = :{port}'")]
    return [(OK, f"answers at port {port}")]


def _database(here):
    settings = settings_of(here)
    broken = call(here, "immich_postgres.verify", settings, postgres_connection(here))
    if broken:
        return map(of_finding, broken)
    return [(OK, f"{settings['postgres']['database']}, its role, extensions and record are as declared")]


def _database_storage(here):
    if not here["postgres"]["managed"]:
        return [(OK, "is managed elsewhere")]
    held = call(here, "pgsql_config.get", ["data_directory"], postgres_connection(here))["data_directory"]["running"]
    return _storage_rows(held, read_text("/proc/self/mountinfo"))


def _storage_rows(directory, mountinfo):
    kind = _file_system(os.path.realpath(directory), mountinfo)
    if NETWORK_SHARES.fullmatch(kind):
        advice = "move PostgreSQL's data directory to a local disk: a network share damages it"
        return [(FAILED, f"{directory} is on a network share ({kind})", advice)]
    return [(OK, f"{directory} is on {kind}")]


def _file_system(path, mountinfo):
    """Type of the file system that holds a path, by the format of proc_pid_mountinfo(5)."""
    best = ("", "unknown")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        # The last of equals is on top.
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, after.split()[0])
    return best[1]


GROUPS = (
    (
        Check("PostgreSQL service", service("postgres"), gate=True),
        Check("PostgreSQL", answering(_postgres_answers, "postgres"), gate=True),
        Check("database", _database, disturbed=True, asks=("immich_postgres.verify",)),
        Check("PostgreSQL's address", listens("postgres", "immich.postgres")),
        Check("database storage", _database_storage),
        Check(
            "refused by PostgreSQL",
            refusals("immich_postgres.refusals", postgres_connection),
            asks=("immich_postgres.refusals",),
        ),
        *leftovers.CHECKS,
    ),
)
