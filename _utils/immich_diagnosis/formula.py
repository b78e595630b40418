"""
Part: the formula itself
========================

The first that is checked: what it returns as settings, the others go by.
"""

import importlib.util

from immich_core import own_files
from immich_diagnosis.check import FAILED, OK, Check, call, of_finding
from immich_diagnosis.words import one_line

LIBRARIES = ("redis", "psycopg2", "jsonschema")


def _libraries(here):
    missing = [name for name in LIBRARIES if not importlib.util.find_spec(name)]
    if missing:
        yield FAILED, f"Salt's Python lacks {', '.join(missing)}", "salt-call state.apply immich.bootstrap"
        return
    yield OK, f"{', '.join(LIBRARIES)} are there"


def _modules(here):
    missing = [function.partition(".")[0] for function in own_files.FUNCTIONS if function not in here["salt"]]
    if missing:
        yield FAILED, f"not loaded: {', '.join(dict.fromkeys(missing))}", "salt-call saltutil.sync_all"
        return
    yield OK, "all are loaded"


def _pillar(here):
    for error in here["pillar"].get("_errors", []):
        yield FAILED, f"Salt cannot render the pillar: {one_line(error)}", "fix the file that it names"
    if not here["pillar"].get("immich"):
        yield (
            FAILED,
            "this minion's pillar has no key `immich`",
            "assign it in the pillar's top file, see pillar.example",
        )
        return
    yield from map(of_finding, call(here, "immich_settings.errors"))
    yield from map(of_finding, call(here, "immich_settings.warnings"))
    settings = here["told"]["settings"] = call(here, "immich_settings.get")
    for obstacle in call(here, "immich_preflight.obstacles", settings) if settings else []:
        yield of_finding(obstacle)
    if settings:
        yield OK, "it is valid"


CHECKS = (
    Check("Python libraries", _libraries),
    Check("modules of the formula", _modules),
    Check("pillar", _pillar),
)
