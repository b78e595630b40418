"""
Messages of Immich, servers and containers in the doctor's rows, and the remedies of known ones
===============================================================================================
"""

import re

from host_core import terminal
from immich_core import findings

# What the modules for PostgreSQL say of their errors: a code of its, and what is not there yet.
INSUFFICIENT_PRIVILEGE, MADE_BY_APPLY = "42501", ("database", "extension")

# What Immich, a server or Podman says, and the remedy. The first that is found counts.
MESSAGES = (
    (r"NOPERM", "salt-call state.apply immich.valkey"),
    (r"NOAUTH", "salt-call state.apply immich.app"),
    (r"WRONGPASS|password authentication failed", "salt-call state.apply immich"),
    (r"no pg_hba\.conf entry", "salt-call state.apply immich.postgres"),
    (r"must be owner of|permission denied to create extension", "salt-call state.apply immich.postgres"),
    (r"vchord must be loaded|shared_preload_libraries", "salt-call state.apply immich.postgres"),
    (
        r"Failed to (read|write|create) .*\.immich",
        "mount what is missing below immich:upload_location; create no marker by hand",
    ),
    (r"manifest unknown|initializing source|pinging container registry", "set immich:version to one that exists"),
    (r"Illegal instruction|x86-64-v2", "immich:machine_learning:enabled: false"),
    (r"Address family not supported|[Cc]annot assign requested address", "salt-call state.apply immich.app"),
    (
        r"[Pp]ermission denied.*/cache|/cache.*[Pp]ermission denied",
        "make the container's user the owner of immich:machine_learning:cache_location",
    ),
    (
        r"EN(OTFOUND|ETUNREACH)|EAI_AGAIN|ECONNREFUSED|EHOSTUNREACH|ETIMEDOUT|host\.containers\.internal",
        "salt-call state.apply immich.gateway",
    ),
)


def remedy_for(text):
    """The remedy for a message of Immich, a server or a container, if it is a known one."""
    return next((remedy for pattern, remedy in MESSAGES if re.search(pattern, text)), "")


def remedy_of(error):
    """The remedy for an error of a check: by what the formula's modules say of it, else by the words that it quotes."""
    if getattr(error, "refused", False):
        return "immich:valkey:admin_password: the password of Valkey's user default"
    if getattr(error, "sqlstate", None) == INSUFFICIENT_PRIVILEGE or getattr(error, "absent", None) in MADE_BY_APPLY:
        return findings.apply("immich.postgres")
    return remedy_for(str(error))


def one_line(text):
    """The end of a text, on one line of at most 600 characters, without what a terminal would act on."""
    return terminal.one_line(str(text)[-6000:], 6000)[-600:]
