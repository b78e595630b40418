"""
Keep the ACL users of Valkey and Redis as declared.

What is not declared is ignored: unlisted users, and of a listed user its rules or its passwords if none are given.
Users are compared by what they may do, replaced in one command, so that a user has either its old or its new rights
at every moment, and saved where the server keeps its users.

Only the server evaluates rules with ``allows`` and ``denies`` (``ACL DRYRUN``), and only those of existing users. So
a dry run reports new rules as not checked; the run refuses broken ones before it changes anything.

Connections are described in the execution module :py:mod:`valkey_acl <_modules.valkey_acl>`.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "valkey_acl"


def __virtual__():
    if "valkey_acl.compare" not in __salt__:
        return False, "The execution module valkey_acl is not available: it needs the Python library redis."
    return __virtualname__


def present(
    name,
    enabled=True,
    password=None,
    password_pillar=None,
    password_file=None,
    password_hash=None,
    nopass=None,
    keep_passwords=False,
    rules=None,
    allows=None,
    denies=None,
    connection=None,
):
    """
    Ensure that an ACL user is as declared.

    name
        Name of the user.
    enabled
        Whether one can log in as this user. Defaults to true. None leaves that as it is.
    password, password_pillar, password_file, password_hash
        The password, pillar path of it, path of a file with it, or its SHA-256 in 64 hexadecimal digits;
        each one or a list. Defaults to the passwords that the user has.
    nopass
        True lets anyone in without a password. Defaults to what the user has, and to false with a password.
    keep_passwords
        Whether the passwords that the user has stay valid beside those given, as for the time in which its clients
        change from one to the next. Defaults to false.
    rules
        Rules in the server's ACL grammar, a string or a list, read from left to right. Defaults to the rules
        that the user has.
    allows, denies
        Commands that these rules must allow and must deny, each a string like ``CLIENT KILL`` or a list like
        ``[GET, "a key"]``; without arguments it is about the command whatever its arguments. Judged by
        the server (``ACL DRYRUN``) before the old rules are replaced, and under ``test=True`` only where the rules
        stay as they are. Defaults to none.
    connection
        See the execution module :py:mod:`valkey_acl <_modules.valkey_acl>`.

    SLS Example:

    .. code-block:: yaml

        The ACL user alice may use the keys of the application:
          valkey_acl.present:
            - name: alice
            - password_pillar: alice:password
            - rules: '~app:* +@read +@write -@dangerous'
            - allows: [GET, [SET, 'app:1', value]]
            - denies: [FLUSHALL, CLIENT KILL, [GET, foreign]]
    """
    user = {
        "name": name,
        "enabled": enabled,
        "password": password,
        "password_pillar": password_pillar,
        "password_file": password_file,
        "password_hash": password_hash,
        "nopass": nopass,
        "keep_passwords": keep_passwords,
        "rules": rules,
        "allows": allows,
        "denies": denies,
    }
    return _ensure(name, f"The ACL user {name} is as specified.", connection, users=[user])


def absent(name, connection=None):
    """
    Ensure that there is no such ACL user.

    name
        Name of the user.
    connection
        See the execution module :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Fails for ``default``, which the server keeps, and for the user that the connection is logged in as.

    SLS Example:

    .. code-block:: yaml

        The ACL user alice is absent:
          valkey_acl.absent:
            - name: alice
    """
    return _ensure(name, f"There is no ACL user {name}.", connection, users=[], remove=[name])


def managed(name, users, remove_unlisted=False, connection=None):
    """
    Ensure that ACL users are as declared, all of them in a few round trips and one transaction.

    name
        Anything; a sentence about the list.
    users
        List of dictionaries with ``name`` and the arguments of :py:func:`present`.
    remove_unlisted
        Whether to remove users that are not in the list, apart from ``default`` and the user that the
        connection is logged in as. Defaults to false.
    connection
        See the execution module :py:mod:`valkey_acl <_modules.valkey_acl>`.

    Where it fails, the result also has ``broken``, the users whose rules break their ``allows`` or ``denies``, or
    ``refused``, true if the server accepts none of the connections.

    SLS Example:

    .. code-block:: yaml

        The ACL users are as listed:
          valkey_acl.managed:
            - users:
                - name: alice
                  password_pillar: alice:password
                  rules: '~app:* +@read'
                - name: bob
                  enabled: false
    """
    comment = f"The {len(users)} listed ACL users are as specified."
    return _ensure(name, comment, connection, users=users, remove_unlisted=remove_unlisted)


def _ensure(name, comment, connection, **declared):
    ret = {"name": name, "result": True, "comment": comment, "changes": {}}
    test = __opts__["test"]
    try:
        found = __salt__["valkey_acl.compare"](**declared, scratch=not test, connection=connection)
        ret["changes"] = _changes(found)
        if found["kept"]:
            ret["comment"] += f" Unlisted, but kept: {', '.join(found['kept'])}."
        if found["problems"]:
            broken = {"broken": found["broken"]} if found["broken"] else {}
            return {**ret, **broken, "result": False, "changes": {}, "comment": " ".join(found["problems"])}
        if not ret["changes"]:
            return ret
        if test:
            comment = f"ACL users would be changed: {_names(ret['changes'])}.{_not_checked(found['unchecked'])}"
            return {**ret, "result": None, "comment": comment}
        __salt__["valkey_acl.replace"](**declared, connection=connection)
        left = __salt__["valkey_acl.compare"](**declared, scratch=False, connection=connection)
        if _changes(left):
            ret["result"] = False
            ret["comment"] = f"There were no errors, but the server disagrees about: {_names(_changes(left))}."
            return ret
        ret["comment"] += f" Changed: {_names(ret['changes'])}."
        return ret
    except (CommandExecutionError, SaltInvocationError) as err:
        if test and getattr(err, "unreachable", False):
            # The server may be what this very run would install or start.
            ret.update(result=None, changes=_unseen(declared))
            asserted = [user["name"] for user in declared["users"] if user.get("allows") or user.get("denies")]
            ret["comment"] = f"{err} If this run starts it, its ACL users would be changed.{_not_checked(asserted)}"
            return ret
        refused = {"refused": True} if getattr(err, "refused", False) else {}
        return {**ret, **refused, "result": False, "changes": {}, "comment": str(err)}


def _changes(found):
    changes = dict(found["changes"])
    if found["unsaved"]:
        changes["saved"] = {"old": False, "new": True}
    return changes


def _names(changes):
    names = sorted(changes)
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])} and {len(names) - 10} more"


def _not_checked(names):
    if not names:
        return ""
    return (
        f" Not checked in a dry run: allows and denies of {_names(names)}. The server judges the new rules in the run,"
        " before it changes anything."
    )


def _unseen(declared):
    """Changes on a server that cannot be asked yet."""
    return {user["name"]: {"old": None, "new": "as specified"} for user in declared["users"]}
