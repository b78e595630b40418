"""
Part: Caddy in front of Immich, where the pillar declares it
============================================================
"""

from immich_core import proxy
from immich_diagnosis.check import OK, Check, call, of_finding
from immich_diagnosis.facts import settings_of


def _proxy(here):
    settings = settings_of(here)
    found = call(here, "immich_proxy.verify", settings) or call(here, "immich_proxy.warnings", settings)
    if found:
        return map(of_finding, found)
    addresses = ", ".join(f"https://{name}" for name in settings["proxy"]["domains"])
    return [(OK, f"{addresses}: served, with a certificate; http leads there")]


ASKS = ("immich_proxy.verify", "immich_proxy.warnings")
GROUPS = ((Check(proxy.PART, _proxy, disturbed=True, asks=ASKS),),)
