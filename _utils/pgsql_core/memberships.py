"""
Memberships of roles in others: declared, held, and the statements between them
===============================================================================
"""

from pgsql_core import quoting
from pgsql_core.errors import InvalidArgumentError


def options(member_of):
    """
    Return memberships as ``{role: {option: bool}}``, whichever way they were written.

    member_of
        A list of names and ``{name: {option: bool}}``, or one dictionary of the latter form.

    Raises ``InvalidArgumentError`` for options that do not exist.
    """
    if isinstance(member_of, str):
        raise InvalidArgumentError(f"member_of is a list of roles, not the text {member_of!r}.")
    memberships = {}
    for entry in [member_of] if isinstance(member_of, dict) else member_of:
        pairs = entry.items() if isinstance(entry, dict) else [(entry, None)]
        memberships.update({role: dict(given or {}) for role, given in pairs})
    unknown = {option for given in memberships.values() for option in given} - {"admin", "inherit", "set"}
    if unknown:
        raise InvalidArgumentError(f"A membership has no option {', '.join(sorted(unknown))}.")
    return memberships


def held(rows):
    """
    Return the memberships that a role has, in the form of ``options``.

    rows
        ``[role, admin, inherit, set]`` of each grant. Several grantors may have granted the same role: an option given
        by one of them counts. One that the server does not know is ``None``.
    """
    memberships = {}
    for role, *values in rows:
        given = {option: value for option, value in zip(("admin", "inherit", "set"), values) if value is not None}
        known = memberships.setdefault(role, given)
        known.update({option: known[option] or value for option, value in given.items()})
    return memberships


def statements(name, desired, grants, has_options):
    """
    Return what grants and revokes until a role is a member of what is desired, and of nothing else.

    name
        Name of the role.

    desired
        As ``options`` returns it.

    grants
        Those there are, each with ``role``, ``grantor`` and ``admin``.

    has_options
        Whether a grant has options and belongs to its grantor, as since PostgreSQL 16.
    """
    member = quoting.name(name)
    found = []
    for grant in grants:
        # Only since 16 does a grant belong to its grantor; before, the column may even name a dropped role.
        by = quoting.compose(" GRANTED BY {}", quoting.name(grant["grantor"])) if has_options else quoting.text("")
        role = quoting.name(grant["role"])
        if grant["role"] not in desired:
            found.append(quoting.compose("REVOKE {} FROM {}{}", role, member, by))
        elif has_options and desired[grant["role"]]:
            found.append(_grant(grant["role"], member, desired[grant["role"]], by))
        elif grant["admin"] and desired[grant["role"]].get("admin") is False:
            found.append(quoting.compose("REVOKE ADMIN OPTION FOR {} FROM {}", role, member))
    admin = {grant["role"]: grant["admin"] for grant in grants}
    for role, given in desired.items():
        if role not in admin or (not has_options and given.get("admin") and not admin[role]):
            found.append(_grant(role, member, given if has_options else _only_admin(given), quoting.text("")))
    return found


def _only_admin(given):
    return {"admin": True} if given.get("admin") else {}


def _grant(role, member, given, by):
    # Up to 15 there is only WITH ADMIN OPTION, which later versions take for WITH ADMIN TRUE.
    if given == {"admin": True}:
        return quoting.compose("GRANT {} TO {} WITH ADMIN OPTION{}", quoting.name(role), member, by)
    words = [f"{option.upper()} {'TRUE' if value else 'FALSE'}" for option, value in given.items()]
    clause = quoting.text(f" WITH {', '.join(words)}" if words else "")
    return quoting.compose("GRANT {} TO {}{}{}", quoting.name(role), member, clause, by)
