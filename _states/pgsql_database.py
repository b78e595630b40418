"""
Manage PostgreSQL databases.

What a state does not declare stays as it is. What cannot be changed in place (encoding, locale, provider) makes
the state fail and report it; a database is never dropped and recreated.

Requires the execution modules ``pgsql_database``, ``pgsql_config`` and ``pgsql_server``. Both states take
``connection``: see the execution module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from pgsql_core import databases, features, setting_values
from pgsql_core import privileges as on_objects
from pgsql_core.errors import PgsqlError

FIXED = ("encoding", "locale", "lc_collate", "lc_ctype", "provider")


def __virtual__():
    if "pgsql_database.get" not in __salt__:
        return False, "pgsql_database needs the execution module pgsql_database: is psycopg2 in Salt's Python?"
    return True


def present(
    name,
    owner=None,
    encoding=None,
    locale=None,
    lc_collate=None,
    lc_ctype=None,
    provider=None,
    template=None,
    tablespace=None,
    connection_limit=None,
    settings=None,
    reset_other_settings=False,
    privileges=None,
    schema_privileges=None,
    connection=None,
):
    """
    Ensure that a database is present and as declared.

    Changes happen in one transaction, but for what PostgreSQL forbids in one (CREATE DATABASE, SET TABLESPACE)
    and the privileges on the schema ``public``, which need a connection to the database itself.

    name
        Name of the database.
    owner
        Role that owns it. What is inside keeps its owners. Not changed by default.
    encoding, locale, lc_collate, lc_ctype, provider
        Such as ``UTF8``, ``C.UTF-8`` and ``libc``, ``icu`` or ``builtin``. ``locale`` is that of the provider;
        with ``libc`` it stands for both ``lc_collate`` and ``lc_ctype``. They are fixed once the database is there.
        Default to those of the template.
    template
        Database to copy, looked at only when the database is created. Defaults to ``template0`` if encoding or
        locale are given, else to ``template1``.
    tablespace
        Where its files are. Moving them needs a moment without connections. Not changed by default.
    connection_limit
        Number of connections at a time, -1 for no limit. Not changed by default.
    settings
        Settings of its sessions, as a dictionary; nothing as a value resets one. Not changed by default.
    reset_other_settings
        Whether settings that are not declared are reset, or a list of the names that are kept.
        Defaults to ``False``. An owner can set what makes sessions of others fail in his database.
    privileges
        ``{grantee: [privilege, …]}``, the exact list for each grantee named, of ``CONNECT``, ``CREATE``,
        ``TEMPORARY`` and ``ALL``. ``PUBLIC`` is everybody. Grantees who are not named keep theirs.
    schema_privileges
        The same on the schema ``public``, of ``CREATE``, ``USAGE`` and ``ALL``. Not changed by default.

    .. code-block:: yaml

        The shop's database is its own:
          pgsql_database.present:
            - name: shop
            - owner: shop
            - encoding: UTF8
            - locale: C.UTF-8
            - privileges:
                PUBLIC: []
                reports: [CONNECT]
    """
    ret = {"name": name, "result": True, "comment": f"Database {name} is present as specified.", "changes": {}}
    declared = {
        "owner": owner,
        "encoding": encoding,
        "locale": locale,
        "lc_collate": lc_collate,
        "lc_ctype": lc_ctype,
        "provider": provider,
        "tablespace": tablespace,
        "connection_limit": connection_limit,
        "settings": settings,
    }
    declared = {key: value for key, value in declared.items() if value is not None}
    if privileges is not None:
        declared["privileges"] = privileges
    if schema_privileges is not None:
        declared["schema_privileges"] = schema_privileges
    try:
        databases.check(name, **declared)
        current, why = _current(name, declared, connection)
        if current and reset_other_settings:
            others = setting_values.to_reset(current["settings"], reset_other_settings)
            declared["settings"] = {**others, **(settings or {})}
        needed = features.needed(provider=provider)
        if needed and not why:
            features.check(needed, __salt__["pgsql_server.version"](connection))
        changes = _changes(name, current, declared, connection)
        fixed = [key for key in FIXED if current and key in changes]
        if fixed:
            ret["result"] = False
            ret["comment"] = _cannot_change(name, fixed, changes)
            return ret
        if not changes:
            return ret
        verb = "changed" if current else "created"
        ret["changes"] = changes
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"Database {name} would be {verb}.{why}"
            return ret
        ret["changes"] = {}
        if current is None:
            new = {key: declared[key] for key in (*FIXED, "owner", "tablespace", "connection_limit") if key in declared}
            __salt__["pgsql_database.create"](name, template=template, connection=connection, **new)
            current = _current(name, declared, connection)[0]
            left = _changes(name, current, declared, connection)
            # What is there already, should the rest fail.
            ret["changes"] = {key: change for key, change in changes.items() if key not in left}
            _alter(name, left, declared, connection)
        else:
            _alter(name, changes, declared, connection)
        ret["changes"] = changes
        left = _changes(name, _current(name, declared, connection)[0], declared, connection)
        if left:
            ret["result"] = False
            ret["comment"] = f"There were no errors, but of database {name} this still differs: {', '.join(left)}."
            return ret
        ret["comment"] = f"Database {name} was {verb}."
    except (CommandExecutionError, SaltInvocationError, PgsqlError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def absent(name, force=False, connection=None):
    """
    Ensure that a database is absent.

    name
        Name of the database.
    force
        Whether to drop it with everything in it, ending the connections to it first.
        Defaults to ``False``: the state then fails and names what would be lost.

    .. code-block:: yaml

        The shop's database is absent:
          pgsql_database.absent:
            - name: shop
            - force: true
    """
    ret = {"name": name, "result": True, "comment": f"Database {name} is absent.", "changes": {}}
    try:
        current, why = _current(name, {}, connection)
        if current is None:
            return {**ret, "result": None, "comment": why.strip()} if why else ret
        usage = __salt__["pgsql_database.usage"](name, connection)
        lost = f"with {usage['size']} of data and {usage['connections']} connections"
        if not force:
            ret["result"] = False
            ret["comment"] = f"Database {name} is there, {lost}. Set `force: true` to drop it with everything in it."
            return ret
        change = {"database": {"old": name, "new": None}}
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = change
            ret["comment"] = f"Database {name} would be dropped, {lost}."
            return ret
        __salt__["pgsql_database.drop"](name, force=True, connection=connection)
        ret["changes"] = change
        if __salt__["pgsql_database.exists"](name, connection):
            ret["result"] = False
            ret["comment"] = f"There were no errors, but database {name} is still there."
            return ret
        ret["comment"] = f"Database {name} was dropped, {lost}."
    except (CommandExecutionError, SaltInvocationError, PgsqlError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def _current(name, declared, connection):
    """The database as it is, and what a dry run has to add: a server that is not there yet has no databases."""
    try:
        current = __salt__["pgsql_database.get"](name, connection)
    except CommandExecutionError as err:
        if __opts__["test"] and getattr(err, "absent", None) == "server":
            return None, f" The current state is not known yet: {err}"
        raise
    if current and "schema_privileges" in declared:
        current["schema_privileges"] = __salt__["pgsql_database.schema_privileges"](name, connection=connection)
    return current, ""


def _changes(name, current, declared, connection):
    if current is None:
        new = {key: {"old": None, "new": value} for key, value in declared.items()}
        return {"database": {"old": None, "new": name}, **new}
    changes = {}
    for key, desired in declared.items():
        old, new = _comparable(key, current, desired, connection)
        if old != new:
            changes[key] = {"old": old, "new": new}
    return changes


def _comparable(key, current, new, connection):
    """Both values of a property in a form in which they are equal when they mean the same."""
    if key == "settings":
        changes = __salt__["pgsql_config.changes"](current[key], new, connection)
        return tuple({name: change[side] for name, change in changes.items()} for side in ("old", "new"))
    if key in ("privileges", "schema_privileges"):
        known = on_objects.ON_DATABASES if key == "privileges" else on_objects.ON_SCHEMAS
        new = on_objects.normal(new, known)
        return {grantee: current[key].get(grantee, []) for grantee in new}, new
    if key == "locale" and current["provider"] == "libc":
        old = current["lc_collate"] if current["lc_collate"] == current["lc_ctype"] else None
    else:
        old = current[key]
    if key in FIXED and old and _plain(old) == _plain(new):
        return old, old
    return old, new


def _plain(name):
    """utf8 is UTF-8, en_US is en-US."""
    return str(name).lower().replace("-", "").replace("_", "")


def _cannot_change(name, fixed, changes):
    what = ", ".join(f"{key} is {changes[key]['old']}, not {changes[key]['new']}" for key in fixed)
    return (
        f"Of database {name} this cannot be changed in place: {what}. Nothing was changed. "
        f"Dump it, make a new one and restore it there, or declare what it has."
    )


def _alter(name, changes, declared, connection):
    delta = {key: declared[key] for key in changes if key not in ("schema_privileges", "database")}
    if "settings" in delta:
        delta["settings"] = changes["settings"]["new"]
    if delta:
        __salt__["pgsql_database.set"](name, connection=connection, **delta)
    if "schema_privileges" in changes:
        __salt__["pgsql_database.schema_privileges_set"](name, declared["schema_privileges"], connection=connection)
