"""
Manage single records of a PostgreSQL server's pg_hba.conf, on the server's own host.

Requires the execution modules ``pgsql_hba`` and ``pgsql_server``. Both states take ``connection``:
see the execution module ``pgsql_server``, which documents it.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError


def __virtual__():
    if "pgsql_hba.get" not in __salt__:
        return False, "pgsql_hba needs the execution module pgsql_hba: is psycopg2 in Salt's Python?"
    return True


def present(name, type, database, user, method, address=None, options=None, connection=None):
    """
    Ensure that pg_hba.conf has a record, ahead of every wider one, and that the server has read it.

    The record is tagged with ``name`` in a comment, so that one with another address takes the place of the old
    one. A record that is narrower, such as a reject for a single address, stays ahead. If the server does not
    understand the new file, the old one is put back.

    name
        The tag.
    type
        ``local``, ``host``, ``hostssl``, ``hostnossl``, ``hostgssenc`` or ``hostnogssenc``.
    database, user
        A name or a list of names, special words and signs of pg_hba.conf included.
    method
        Such as ``scram-sha-256``.
    address
        A network such as ``172.20.0.0/16``, a host name or a special word. Not for ``local``.
    options
        Dictionary of options of the method. Defaults to none.

    .. code-block:: yaml

        The shop may log in from its containers:
          pgsql_hba.present:
            - name: shop
            - type: host
            - database: shop
            - user: shop
            - address: 172.21.0.0/16
            - method: scram-sha-256
    """
    ret = {"name": name, "result": True, "comment": f"pg_hba.conf has the record {name} as specified.", "changes": {}}
    record = {
        "type": type,
        "database": database,
        "user": user,
        "address": address,
        "method": method,
        "options": options,
    }
    return _managed(ret, name, record, connection)


def absent(name, connection=None):
    """
    Ensure that pg_hba.conf has no record with a tag, and that the server has read it.

    name
        The tag.

    .. code-block:: yaml

        The shop may not log in from its containers:
          pgsql_hba.absent:
            - name: shop
    """
    ret = {"name": name, "result": True, "comment": f"pg_hba.conf has no record {name}.", "changes": {}}
    return _managed(ret, name, None, connection)


def _managed(ret, name, record, connection):
    try:
        try:
            current = __salt__["pgsql_hba.get"](name, record, connection)
        except CommandExecutionError as err:
            if not __opts__["test"] or getattr(err, "absent", None) != "server":
                raise
            if record is not None:
                ret["result"] = None
                ret["changes"] = {"record": {"old": None, "new": record}}
                ret["comment"] = f"pg_hba.conf would get the record {name}. More is not known yet: {err}"
            return ret
        changes = _changes(current)
        if not changes:
            return ret
        verb = "would be" if __opts__["test"] else "was"
        ret["comment"] = (
            f"pg_hba.conf {verb} changed." if "loaded" not in changes else f"pg_hba.conf {verb} read again."
        )
        if current["ahead"]:
            ret["comment"] += f" The record {verb} put ahead of {'; '.join(current['ahead'])}."
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = changes
            return ret
        if "record" in changes:
            __salt__["pgsql_hba.set"](name, record, connection)
        else:
            __salt__["pgsql_server.reload"](connection)
        ret["changes"] = changes
        if _changes(__salt__["pgsql_hba.get"](name, record, connection)):
            ret["result"] = False
            ret["comment"] = f"There were no errors, but the record {name} of pg_hba.conf is not as specified."
    except (CommandExecutionError, SaltInvocationError) as err:
        ret["result"] = False
        ret["comment"] = str(err)
    return ret


def _changes(current):
    desired = [current["desired"]] if current["desired"] else []
    if current["lines"] != desired or current["ahead"]:
        return {"record": {"old": ", ".join(current["lines"]) or None, "new": current["desired"]}}
    if not current["loaded"]:
        return {"loaded": {"old": False, "new": True}}
    return {}
