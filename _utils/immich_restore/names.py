"""
Names that a restore gives and knows
====================================

What the kinds of databases mean is in the documentation of ``_modules/immich.py``.
"""

import re
import time

from immich_core.backups import STAMP

HBA_RECORD = "immich restore"
# The end of the name of the role that restores, after that of Immich's.
ROLE_SUFFIX = "_restore"
INCOMPLETE = ("restore", "drill", "drop")
# What a killed restore leaves, and what becomes of it.
LEFT_BY_KILLED = {"drop": INCOMPLETE, "keep": ("before",)}
# What PostgreSQL cuts names to, in bytes, and without the longest of the endings of databases.
LONGEST_IDENTIFIER = 63
LONGEST_DATABASE = LONGEST_IDENTIFIER - len("_restore_20261124T203000Z")
LONGEST_USER = LONGEST_IDENTIFIER - len(ROLE_SUFFIX)


def beside(database, kind):
    """A new name for a database of a kind beside Immich's."""
    return f"{database}_{kind}_{time.strftime(STAMP, time.gmtime())}"


def stamp(name):
    """When a database was made or renamed, as the end of its name says."""
    return name.rpartition("_")[2]


def as_kind(name, kind):
    """The name that a database of the kind ``before`` has as one of another."""
    return name.replace("_before_", f"_{kind}_")


def of_restores(database, names, kinds):
    """Those of some names that restores have given to databases: ``{name: kind}``."""
    any_kind = "|".join(kinds)
    pattern = re.compile(rf"{re.escape(database)}_({any_kind})_\d{{8}}T\d{{6}}Z")
    found = {name: pattern.fullmatch(name) for name in names}
    return {name: match[1] for name, match in found.items() if match}
