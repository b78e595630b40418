"""
Privileges on databases and schemas: declared, held, and the statements between them
====================================================================================
"""

from pgsql_core import quoting
from pgsql_core.errors import InvalidArgumentError

ON_DATABASES = ("CONNECT", "CREATE", "TEMPORARY")
ON_SCHEMAS = ("CREATE", "USAGE")
ALIASES = {"TEMP": "TEMPORARY"}


def normal(privileges, known):
    """
    Return privileges as PostgreSQL calls them, sorted.

    privileges
        ``{grantee: [privilege, …]}``, in any case, with ``TEMP`` and ``ALL``.

    known
        All the privileges there are on such an object: ``ON_DATABASES`` or ``ON_SCHEMAS``.

    Raises ``InvalidArgumentError`` for others.
    """
    found = {}
    for grantee, names in privileges.items():
        words = {ALIASES.get(str(word).upper(), str(word).upper()) for word in names or []}
        if "ALL" in words:
            words = set(known)
        if words - set(known):
            listed = ", ".join(sorted(words - set(known)))
            raise InvalidArgumentError(f"No such privilege: {listed}. There are {', '.join(known)} and ALL.")
        found["PUBLIC" if grantee.upper() == "PUBLIC" else grantee] = sorted(words)
    return found


def by_grantee(rows):
    """Return ``{grantee: [privilege, …]}`` of pairs of both, or of nothing."""
    privileges = {}
    for grantee, privilege in rows or []:
        privileges.setdefault(grantee, set()).add(privilege)
    return {grantee: sorted(names) for grantee, names in privileges.items()}


def statements(target, desired, held):
    """
    Return what grants and revokes until each grantee named has what is desired.

    target
        The object, quoted: ``DATABASE x``, ``SCHEMA y``.

    desired, held
        As ``normal`` and ``by_grantee`` return them.
    """
    found = []
    for grantee, names in desired.items():
        who = quoting.text("PUBLIC") if grantee == "PUBLIC" else quoting.name(grantee)
        has = set(held.get(grantee, []))
        for word in sorted(set(names) - has):
            found.append(quoting.compose("GRANT {} ON {} TO {}", quoting.text(word), target, who))
        for word in sorted(has - set(names)):
            found.append(quoting.compose("REVOKE {} ON {} FROM {}", quoting.text(word), target, who))
    return found
