"""
Accounts in Immich
===================

What a state does not declare stays as it is, and so do accounts that none declares. Requires the formula's API key
(``immich_account.key_present``).
"""

from salt.exceptions import CommandExecutionError

from host_core import pillar
from immich_core import accounts
from immich_host import api_key
from immich_io import api

__virtualname__ = "immich_user"

FAILURES = (api.ApiError, CommandExecutionError)
KEY_FILE = str(api_key.FILE)


def __virtual__():
    if "immich_account.plan" not in __salt__:
        return False, "The execution module immich_account is missing: run saltutil.sync_all"
    return __virtualname__


def present(
    name,
    full_name,
    password_pillar,
    quota=None,
    storage_label=None,
    admin=None,
    url="http://127.0.0.1:2283",
    key_file=KEY_FILE,
):
    """
    Make sure that an account is present and as declared.

    The password is that of a new account, whose owner has to change it at the first login; an account that is there
    keeps its own. One that is about to be deleted is restored.

    name
        E-mail address of the account.

    full_name
        Its owner's name.

    password_pillar
        Pillar path of the initial password.

    quota
        How much it may hold: ``500m``, ``50g``, ``2t`` or ``unlimited``. Not changed by default.

    storage_label
        Name of its folder in the storage template. Not changed by default.

    admin
        Whether it is an administrator's. Not changed by default.

    url
        The server's address, without a path. Defaults to ``http://127.0.0.1:2283``.

    key_file
        File of the API key. Defaults to the formula's.

    .. code-block:: yaml

        Ben has an account:
          immich_user.present:
            - name: ben@example.org
            - full_name: Ben
            - password_pillar: immich:users:0:password
            - quota: 50g
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"The account {name} is as declared"}
    fields = accounts.user_fields(full_name, quota, storage_label, admin)
    try:
        client = api_key.required_client(url, key_file, api.patience(__opts__["test"]))
        user = accounts.find(client.users(), name)
        if user is None:
            return _created(ret, client, fields, password_pillar)
        changes = accounts.user_changes(fields, user)
        if not changes:
            return ret
        if __opts__["test"]:
            comment = f"The account {name} would be changed: {', '.join(changes)}"
            return {**ret, "result": None, "changes": changes, "comment": comment}
        if accounts.is_deleted(user):
            client.restore_user(user["id"])
        altered = {key: fields[key] for key in changes if key in fields}
        if altered:
            client.update_user(user["id"], altered)
        left = _left(client, name, fields)
    except FAILURES as error:
        return _failed(ret, error, {name: {"old": None, "new": "present"}})
    if left:
        return {**ret, "result": False, "comment": f"There were no errors, but of {name} this still differs: {left}"}
    return {**ret, "changes": changes, "comment": f"The account {name} was changed"}


def _created(ret, client, fields, password_pillar):
    name = ret["name"]
    changes = {name: {"old": None, "new": "present"}}
    if __opts__["test"]:
        return {**ret, "result": None, "changes": changes, "comment": f"The account {name} would be created"}
    password = pillar.value(__pillar__, password_pillar)
    if not isinstance(password, str):
        return {**ret, "result": False, "comment": f"The pillar has no password at {password_pillar}"}
    client.create_user({**fields, "email": name, "password": password, "shouldChangePassword": True})
    left = _left(client, name, fields)
    if left:
        return {**ret, "result": False, "comment": f"There were no errors, but of {name} this still differs: {left}"}
    comment = f"The account {name} was created. Its owner has to change the password at the first login"
    return {**ret, "changes": changes, "comment": comment}


def _left(client, name, fields):
    """What of an account differs still, in words."""
    user = accounts.find(client.users(), name)
    return "it is not there" if user is None else ", ".join(accounts.user_changes(fields, user))


def absent(name, confirm=None, url="http://127.0.0.1:2283", key_file=KEY_FILE):
    """
    Make sure that an account is deleted, with its photos and videos: Immich keeps them for some days (seven, unless its
    settings say otherwise), until when the account can be restored.

    name
        E-mail address of the account.

    confirm
        The e-mail address once more, to say that it is meant. Without it, an account that is there is an error.

    url
        The server's address, without a path. Defaults to ``http://127.0.0.1:2283``.

    key_file
        File of the API key. Defaults to the formula's.

    .. code-block:: yaml

        Ben has no account any more:
          immich_user.absent:
            - name: ben@example.org
            - confirm: ben@example.org
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"There is no account {name}"}
    try:
        client = api_key.required_client(url, key_file, api.patience(__opts__["test"]))
        user = accounts.find(client.users(), name)
        if user is None or accounts.is_deleted(user):
            return ret
        if confirm != name:
            comment = f"This deletes the account {name} with all its photos. If that is meant, set confirm to {name}"
            return {**ret, "result": False, "comment": comment}
        changes = {name: {"old": "present", "new": None}}
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": f"The account {name} would be deleted"}
        client.delete_user(user["id"])
        user = accounts.find(client.users(), name)
    except FAILURES as error:
        return _failed(ret, error, {})
    if user is not None and not accounts.is_deleted(user):
        return {**ret, "result": False, "comment": f"There were no errors, but the account {name} is still there"}
    comment = f"The account {name} was deleted. Immich keeps its photos for some days"
    return {**ret, "changes": changes, "comment": comment}


def _failed(ret, error, changes):
    """The return where Immich cannot be asked: in a dry run it may be once the states before this one have run."""
    if __opts__["test"] and isinstance(error, api.ApiError):
        comment = f"The account {ret['name']} cannot be compared now: {error}"
        return {**ret, "result": None, "changes": changes, "comment": comment}
    return {**ret, "result": False, "comment": str(error)}
