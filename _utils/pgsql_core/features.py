"""
What only newer servers can do
==============================
"""

from pgsql_core import memberships
from pgsql_core.errors import InvalidArgumentError

# The major version that each provider of a locale came with.
NEW_PROVIDERS = {"icu": 15, "builtin": 17}


def needed(member_of=None, provider=None):
    """
    Return what a role or a database needs of its server, as ``{what: major version that it came with}``.

    member_of
        Memberships of a role, as ``memberships.options`` takes them. Defaults to none.

    provider
        Provider of a database's locale. Defaults to none.
    """
    options = {option for given in memberships.options(member_of or []).values() for option in given}
    found = {f"The option {option} of a membership": 16 for option in sorted(options - {"admin"})}
    if provider in NEW_PROVIDERS:
        found[f"The locale provider {provider}"] = NEW_PROVIDERS[provider]
    return found


def check(features, version):
    """
    Raise ``InvalidArgumentError`` if a server is too old for what is asked of it.

    features
        As ``needed`` returns them.

    version
        That of the server, as a number such as 170006.
    """
    for what, least in features.items():
        if version // 10000 < least:
            raise InvalidArgumentError(f"{what} needs PostgreSQL {least}, and the server has {version // 10000}.")
