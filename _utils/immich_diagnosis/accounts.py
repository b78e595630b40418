"""
Part: accounts in Immich, where the pillar declares some
=========================================================
"""

from immich_diagnosis.check import OK, Check, call, of_finding
from immich_diagnosis.facts import settings_of


def _accounts(here):
    settings = settings_of(here)
    found = call(here, "immich_account.verify", settings)
    if found:
        return map(of_finding, found)
    declared = len(settings["users"])
    return [(OK, f"sign-up is closed, the formula's API key works, {declared} declared account(s) are as declared")]


GROUPS = ((Check("accounts", _accounts, disturbed=True, asks=("immich_account.verify",)),),)
