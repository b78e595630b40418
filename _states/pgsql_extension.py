"""
Manage PostgreSQL extensions.

Obstacles (no package, no superuser, a library that is not preloaded) are reported before anything is tried.

Requires the execution module ``pgsql_extension``. Both states take ``connection``: see the execution
module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError


def __virtual__():
    if "pgsql_extension.list" not in __salt__:
        return False, "pgsql_extension needs the execution module pgsql_extension: is psycopg2 in Salt's Python?"
    return True


def present(
    name,
    database,
    schema=None,
    version=None,
    update=False,
    cascade=False,
    reindex=False,
    connection=None,
):
    """
    Ensure that an extension is present in a database.

    Where others may create objects in the schema, an extension's script could call those instead of PostgreSQL's own:
    a schema is refused if a role without superuser rights has functions or operators with the names of PostgreSQL's
    own in it.

    name
        Name of the extension.
    database
        Name of the database.
    schema
        Schema of its objects. Not changed by default; a new one goes to the extension's own schema, else to ``public``.
    version
        Version that it shall have. Not changed by default; a new one gets the server's default version.
    update
        Whether to bring it to the server's default version. Defaults to ``False``. Not together with ``version``.
    cascade
        Whether to create the extensions that it requires too. Defaults to ``False``.
    reindex
        Whether to rebuild the indexes that use it when its version moves, in the same transaction.
        Defaults to ``False``.

    .. code-block:: yaml

        The shop searches by similarity:
          pgsql_extension.present:
            - name: pg_trgm
            - database: shop
            - schema: public
            - update: true
            - reindex: true
    """
    ret = {
        "name": name,
        "result": True,
        "comment": f"Extension {name} is present in database {database} as specified.",
        "changes": {},
    }
    try:
        if version is not None and update:
            raise SaltInvocationError("Give one of version and update.")
        current, why = _current(name, database, connection)
        changes = _changes(name, current, schema, version, update)
        if not changes:
            return ret
        refused = _refused(name, current, changes, cascade)
        if refused:
            ret["result"] = False
            ret["comment"] = " ".join(refused)
            return ret
        why = why or _obstacles(name, database, current, changes, connection)
        verb = "changed" if current["installed"] else "created"
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = changes
            ret["comment"] = " ".join([f"Extension {name} would be {verb} in database {database}.", *why])
            return ret
        if why:
            raise CommandExecutionError(" ".join(why))
        _act(name, database, current, changes, schema, version, cascade, reindex, connection)
        ret["changes"] = changes
        left = _changes(name, _current(name, database, connection)[0], schema, version, update)
        if left:
            ret["result"] = False
            ret["comment"] = f"There were no errors, but of extension {name} this still differs: {', '.join(left)}."
            return ret
        ret["comment"] = f"Extension {name} was {verb} in database {database}."
    except (CommandExecutionError, SaltInvocationError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def absent(name, database, cascade=False, connection=None):
    """
    Ensure that an extension is absent from a database.

    name
        Name of the extension.
    database
        Name of the database. One that is not there has no extensions.
    cascade
        Whether to drop what depends on it too, columns with their data included.
        Defaults to ``False``: PostgreSQL then refuses and names them.

    .. code-block:: yaml

        The shop no longer searches by similarity:
          pgsql_extension.absent:
            - name: pg_trgm
            - database: shop
    """
    ret = {
        "name": name,
        "result": True,
        "comment": f"Extension {name} is absent from database {database}.",
        "changes": {},
    }
    try:
        try:
            current = __salt__["pgsql_extension.list"](database, [name], connection)[name]
        except CommandExecutionError as err:
            missing = getattr(err, "absent", None)
            if missing == "server" and __opts__["test"]:
                return {**ret, "result": None, "comment": f"The current state is not known yet: {err}"}
            if missing != "database":
                raise
            return ret
        if not current["installed"]:
            return ret
        changes = {"extension": {"old": name, "new": None}}
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = changes
            ret["comment"] = f"Extension {name} would be dropped from database {database}."
            return ret
        __salt__["pgsql_extension.drop"](name, database, cascade, connection)
        ret["changes"] = changes
        if _current(name, database, connection)[0]["installed"]:
            ret["result"] = False
            ret["comment"] = f"There were no errors, but extension {name} is still there."
            return ret
        ret["comment"] = f"Extension {name} was dropped from database {database}."
    except (CommandExecutionError, SaltInvocationError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def _current(name, database, connection):
    """The extension as it is, and what has to happen first; a dry run expects that it will."""
    try:
        current = __salt__["pgsql_extension.list"](database, [name], connection)[name]
    except CommandExecutionError as err:
        if __opts__["test"] and getattr(err, "absent", None):
            nothing = {"installed": None, "available": None, "schema": None, "requires": [], "refused": []}
            return nothing, [f"The current state is not known yet: {err}"]
        raise
    return current, current["not_yet"]


def _changes(name, current, schema, version, update):
    target = str(version) if version is not None else current["available"]
    if not current["installed"]:
        changes = {"extension": {"old": None, "new": name}}
        if target:
            changes["version"] = {"old": None, "new": target}
        if schema:
            changes["schema"] = {"old": None, "new": schema}
        return changes
    changes = {}
    if (update or version is not None) and target and target != current["installed"]:
        changes["version"] = {"old": current["installed"], "new": target}
    if schema and schema != current["schema"]:
        changes["schema"] = {"old": current["schema"], "new": schema}
    return changes


def _refused(name, current, changes, cascade):
    refused = list(current["refused"])
    if "schema" in changes and current["installed"] and not current["relocatable"]:
        refused.append(f"The extension {name} cannot be moved out of the schema {current['schema']}.")
    # Another state of the same run may be about to create them, but for that it would have to come first.
    if current["requires"] and not current["installed"] and not cascade and not __opts__["test"]:
        refused.append(f"The extension {name} requires {', '.join(current['requires'])}: set `cascade: true`.")
    return refused


def _obstacles(name, database, current, changes, connection):
    """Why the server cannot come to the version; another state of the same run may bring the package that can."""
    if "version" not in changes:
        return []
    return __salt__["pgsql_extension.obstacles"](
        name, database, current["installed"], changes["version"]["new"], connection
    )


def _act(name, database, current, changes, schema, version, cascade, reindex, connection):
    if not current["installed"]:
        __salt__["pgsql_extension.create"](name, database, schema, version, cascade, connection)
        return
    moved = "version" in changes
    __salt__["pgsql_extension.update"](
        name,
        database,
        version=changes["version"]["new"] if moved else None,
        schema=schema if "schema" in changes else None,
        reindex=reindex and moved,
        connection=connection,
    )
