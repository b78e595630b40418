"""
The extensions that Immich needs in its database
================================================

From Immich v3.0.3: server/src/constants.ts (names and versions) and server/src/repositories/database.repository.ts.
Vector extensions go by PostgreSQL's names, ``vchord`` and ``vector``, unless Immich's are meant.
"""

import re

# Immich's name of a vector extension (DB_VECTOR_EXTENSION) and PostgreSQL's.
VECTOR_EXTENSIONS = {"vectorchord": "vchord", "pgvector": "vector"}
# From the first version (included) to the last (excluded).
VECTOR_VERSIONS = {"vchord": ((0, 3), (2,)), "vector": ((0, 5), (1,))}
PRELOAD_LIBRARIES = {"vchord": "vchord.so"}
OTHER_EXTENSIONS = ["cube", "earthdistance", "pg_trgm", "unaccent", "uuid-ossp"]
SCHEMA = "public"


def immich_name(vector):
    """Immich's name of a vector extension."""
    return next(name for name, value in VECTOR_EXTENSIONS.items() if value == vector)


def supported(vector, version):
    """Whether Immich supports a version of a vector extension; a version that is None is none."""
    if not version:
        return False
    first, last = VECTOR_VERSIONS[vector]
    return first <= tuple(map(int, re.findall(r"\d+", version)[:3])) < last


def version_range(vector):
    """The versions of a vector extension that Immich supports, in words."""
    first, last = (".".join(map(str, version)) for version in VECTOR_VERSIONS[vector])
    return f"{vector} ≥ {first} < {last}"


def needed(vector, present=True):
    """
    The extensions that Immich needs, in the order in which they are created and updated.

    present
        Whether the database has the vector extension already. A new ``vchord`` brings ``vector`` by itself: made apart
        and before it, that would be taken for the database's choice by the run after an interrupted one.
    """
    first = ["vector", "vchord"] if vector == "vchord" and present else [vector]
    return [*first, *OTHER_EXTENSIONS]


def known():
    """The extensions that Immich's database may have: what the formula makes of them, a restore makes too."""
    return sorted({"plpgsql", *VECTOR_VERSIONS, *OTHER_EXTENSIONS})


def preload_libraries(vector):
    """The libraries that the server has to preload for a vector extension."""
    return [PRELOAD_LIBRARIES[vector]] if vector in PRELOAD_LIBRARIES else []
