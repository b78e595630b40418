"""
Manage PostgreSQL roles.

What a state does not declare stays as it is. Passwords are compared with the verifier that the server stores, so
that a password which is right is never written, and they never reach the server in clear.

Requires the execution modules ``pgsql_role``, ``pgsql_config`` and ``pgsql_server``. Both states take ``connection``:
see the execution module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import features, memberships, passwords, roles, setting_values
from pgsql_core.errors import PgsqlError

HIDDEN = "(hidden)"


def __virtual__():
    if "pgsql_role.get" not in __salt__:
        return False, "pgsql_role needs the execution module pgsql_role: is psycopg2 in Salt's Python?"
    return True


def present(
    name,
    login=None,
    superuser=None,
    createdb=None,
    createrole=None,
    replication=None,
    bypassrls=None,
    inherit=None,
    connection_limit=None,
    valid_until=None,
    password=None,
    password_pillar=None,
    password_file=None,
    password_encryption=None,
    member_of=None,
    settings=None,
    database_settings=None,
    reset_other_settings=False,
    connection=None,
):
    """
    Ensure that a role is present and as declared, in one transaction.

    name
        Name of the role.
    login, superuser, createdb, createrole, replication, bypassrls, inherit
        The role's attributes, as booleans. Not changed by default; in a new role PostgreSQL's defaults hold.
    connection_limit
        Number of connections at a time, -1 for no limit. Not changed by default.
    valid_until
        A time stamp after which the password is no longer valid, ``infinity`` for no limit. Not changed by default.
    password, password_pillar, password_file
        The password: in clear or as a verifier, as a pillar path, or as the path of a file on the minion whose
        one final line feed is dropped. Not changed by default.
    password_encryption
        ``scram-sha-256`` to have a right password that is stored as md5 written again.
        Defaults to accepting both.
    member_of
        The exact list of roles it is a member of: names, or ``{name: {admin, inherit, set}}`` with booleans
        (``inherit`` and ``set`` need PostgreSQL 16). Not changed by default.
    settings
        Settings of its sessions, as a dictionary; nothing as a value resets one. Not changed by default.
    database_settings
        The same in one database: ``{database: {name: value}}``. Not changed by default.
    reset_other_settings
        Whether settings that are not declared are reset, those in a database too, or a list of the names that are left
        alone. Defaults to ``False``. A role can set for itself what makes its sessions fail.

    .. code-block:: yaml

        The reports read the shop's data:
          pgsql_role.present:
            - name: reports
            - login: true
            - password_pillar: shop:reports:password
            - connection_limit: 10
            - member_of:
                - pg_read_all_data
            - settings:
                statement_timeout: 5min
    """
    ret = {"name": name, "result": True, "comment": f"Role {name} is present as specified.", "changes": {}}
    declared = {
        "login": login,
        "superuser": superuser,
        "createdb": createdb,
        "createrole": createrole,
        "replication": replication,
        "bypassrls": bypassrls,
        "inherit": inherit,
        "connection_limit": connection_limit,
        "valid_until": valid_until,
        "member_of": member_of,
        "settings": settings,
        "database_settings": database_settings,
    }
    declared = {key: value for key, value in declared.items() if value is not None}
    if password_encryption is not None:
        declared["password_encryption"] = password_encryption
    try:
        secret = passwords.given(__pillar__, password, password_pillar, password_file)
        roles.check(name, secret, **declared)
        _check_encryption(password_encryption, secret)
        current, why = _current(name, secret, connection)
        if current and reset_other_settings:
            declared.update(_with_others(current, declared, reset_other_settings))
        needed = features.needed(member_of=member_of)
        if needed and not why:
            features.check(needed, __salt__["pgsql_server.version"](connection))
        changes = _changes(name, current, declared, secret, connection)
        if not changes:
            return ret
        ret["changes"] = changes
        verb = "changed" if current else "created"
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"Role {name} would be {verb}.{why}{_how_compared(changes, current)}"
            return ret
        ret["changes"] = {}
        __salt__["pgsql_role.set"](name, connection=connection, **_delta(changes, declared, secret))
        ret["changes"] = changes
        current = _current(name, secret, connection)[0]
        left = _changes(name, current, declared, secret, connection)
        if left:
            ret["result"] = False
            ret["comment"] = f"There were no errors, but of role {name} this still differs: {', '.join(left)}."
            ret["comment"] += _how_compared(left, current)
            return ret
        ret["comment"] = f"Role {name} was {verb}."
    except (CommandExecutionError, SaltInvocationError, PgsqlError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def absent(name, reassign_to=None, connection=None):
    """
    Ensure that a role is absent.

    A role that owns something or was granted something is not dropped, unless ``reassign_to`` names its new owner.
    That is done in one transaction per database, as PostgreSQL sees the objects of one at a time.

    name
        Name of the role.
    reassign_to
        Role that takes over what it owns; what it was granted is revoked. Defaults to refusing.

    .. code-block:: yaml

        The role of the reports is absent:
          pgsql_role.absent:
            - name: reports
            - reassign_to: shop
    """
    ret = {"name": name, "result": True, "comment": f"Role {name} is absent.", "changes": {}}
    try:
        current, why = _current(name, None, connection)
        if current is None:
            return {**ret, "result": None, "comment": why.strip()} if why else ret
        needed = __salt__["pgsql_role.dependencies"](name, connection)
        if needed and reassign_to is None:
            ret["result"] = False
            ret["comment"] = (
                f"Role {name} is needed: {' '.join(needed)} Set `reassign_to` to the role that takes it over."
            )
            return ret
        ret["changes"] = {"role": {"old": name, "new": None}}
        handed = f" What it still owns by then goes to {reassign_to}." if needed else ""
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"Role {name} would be dropped.{handed}"
            return ret
        ret["changes"] = {}
        __salt__["pgsql_role.drop"](name, reassign_to if needed else None, connection)
        ret["changes"] = {"role": {"old": name, "new": None}}
        if __salt__["pgsql_role.get"](name, connection=connection):
            ret["result"] = False
            ret["comment"] = f"There were no errors, but role {name} is still there."
            return ret
        ret["comment"] = f"Role {name} was dropped.{handed}"
    except (CommandExecutionError, SaltInvocationError, PgsqlError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def _current(name, secret, connection):
    """The role as it is, and what a dry run has to add: a server that is not there yet has no roles."""
    try:
        return __salt__["pgsql_role.get"](name, password=secret, connection=connection), ""
    except CommandExecutionError as err:
        if __opts__["test"] and getattr(err, "absent", None) == "server":
            return None, f" The current state is not known yet: {err}"
        raise


def _with_others(current, declared, reset):
    """The declared settings of the role and of it in each database, with those that are to be reset."""
    others = setting_values.to_reset
    settings = {**others(current["settings"], reset), **declared.get("settings", {})}
    known = declared.get("database_settings", {})
    held = {database: others(values, reset) for database, values in current["database_settings"].items()}
    in_databases = {name: {**held.get(name, {}), **known.get(name, {})} for name in {**held, **known}}
    return {"settings": settings, "database_settings": in_databases}


def _check_encryption(password_encryption, secret):
    if password_encryption not in (None, "scram-sha-256"):
        raise SaltInvocationError(f"password_encryption must be scram-sha-256 or not set, not {password_encryption!r}.")
    if password_encryption and secret is None:
        raise SaltInvocationError("password_encryption needs the password: a verifier of another kind is made of it.")


def _how_compared(changes, current):
    """Why a right password may pass for a wrong one."""
    if "password" not in changes or not current or current["password"] != "unreadable":
        return ""
    return (
        " The connection may not read pg_authid, so the password was tried by logging in; that takes a role with"
        " `login: true` that pg_hba.conf lets in from here with SCRAM."
    )


def _changes(name, current, declared, secret, connection):
    changes = {} if current else {"role": {"old": None, "new": name}}
    current = current or {}
    for key, new in declared.items():
        if key in DIFFERENCES:
            changes.update(DIFFERENCES[key](current, new, connection))
        elif current.get(key) != new:
            changes[key] = {"old": current.get(key), "new": new}
    if secret is not None and "password" not in changes and not current.get("password_matches"):
        changes["password"] = {"old": HIDDEN if current.get("password") else None, "new": HIDDEN}
    return changes


def _valid_until_difference(current, new, connection):
    if not current:
        return {"valid_until": {"old": None, "new": str(new)}}
    if current["valid_until"] == __salt__["pgsql_role.timestamp"](new, connection):
        return {}
    return {"valid_until": {"old": current["valid_until"], "new": str(new)}}


def _encryption_difference(current, new, _connection):
    if current.get("password") in (None, new, "unreadable"):
        return {}
    return {"password": {"old": f"{HIDDEN}, {current['password']}", "new": f"{HIDDEN}, {new}"}}


def _member_difference(current, new, _connection):
    desired = memberships.options(new)
    held = current.get("member_of", {})
    same = set(desired) == set(held) and all(
        held[role].get(option) == value for role, options in desired.items() for option, value in options.items()
    )
    return {} if same else {"member_of": {"old": held, "new": desired}}


def _settings_difference(current, new, connection):
    if not current:
        return {"settings": {"old": {}, "new": new}}
    changes = __salt__["pgsql_config.changes"](current["settings"], new, connection)
    return {"settings": _old_and_new(changes)} if changes else {}


def _database_settings_difference(current, new, connection):
    if not current:
        return {"database_settings": {"old": {}, "new": new}}
    old, desired = {}, {}
    for database, values in new.items():
        held = current["database_settings"].get(database, {})
        changes = __salt__["pgsql_config.changes"](held, values, connection)
        if changes:
            both = _old_and_new(changes)
            old[database], desired[database] = both["old"], both["new"]
    return {"database_settings": {"old": old, "new": desired}} if desired else {}


def _old_and_new(changes):
    return {side: {key: change[side] for key, change in changes.items()} for side in ("old", "new")}


def _delta(changes, declared, secret):
    """What to tell the server: of what is declared, what differs."""
    delta = {key: declared[key] for key in changes if key in declared}
    if "password" in changes:
        delta["password"] = secret
    return delta


DIFFERENCES = {
    "valid_until": _valid_until_difference,
    "password_encryption": _encryption_difference,
    "member_of": _member_difference,
    "settings": _settings_difference,
    "database_settings": _database_settings_difference,
}
