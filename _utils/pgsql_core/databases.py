"""
Databases: what can be declared of one
======================================
"""

from pgsql_core import privileges as on_objects
from pgsql_core import quoting
from pgsql_core.errors import InvalidArgumentError

PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
# PostgreSQL's own, which stay.
TEMPLATES = ("template0", "template1")


def check(name, connection_limit=None, provider=None, privileges=None, schema_privileges=None, **_declared):
    """
    Raise ``InvalidArgumentError``, with the reason, if a database cannot be as described.

    name, connection_limit, provider, privileges
        As for ``pgsql_database.create`` and ``pgsql_database.set``.

    schema_privileges
        As ``privileges`` for ``pgsql_database.schema_privileges_set``.
    """
    quoting.check_name(name)
    quoting.check_limit(connection_limit)
    if provider not in (None, *PROVIDERS.values()):
        raise InvalidArgumentError(f"provider is one of {', '.join(PROVIDERS.values())}, not {provider!r}.")
    on_objects.normal(privileges or {}, on_objects.ON_DATABASES)
    on_objects.normal(schema_privileges or {}, on_objects.ON_SCHEMAS)


def locale_clause(provider):
    """Return the words by which CREATE DATABASE takes the locale of a provider."""
    return {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(provider, "LOCALE")
