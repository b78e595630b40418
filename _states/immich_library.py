"""
External libraries in Immich
=============================

A library that no state declares stays as it is. Requires the formula's API key (``immich_account.key_present``).
"""

from salt.exceptions import CommandExecutionError

from immich_core import accounts
from immich_host import api_key
from immich_io import api

__virtualname__ = "immich_library"

FAILURES = (api.ApiError, CommandExecutionError)
KEY_FILE = str(api_key.FILE)


def __virtual__():
    if "immich_account.plan" not in __salt__:
        return False, "The execution module immich_account is missing: run saltutil.sync_all"
    return __virtualname__


def present(name, owner, url="http://127.0.0.1:2283", key_file=KEY_FILE):
    """
    Make sure that a folder is an external library of an account. Immich reads a new one at once.

    A library that has the folder is left as it is otherwise: its name, more folders and its exclusion patterns.

    name
        The folder, as the container sees it. A new library has this name too.

    owner
        E-mail address of the account. Immich cannot give a library to another one.

    url
        The server's address, without a path. Defaults to ``http://127.0.0.1:2283``.

    key_file
        File of the API key. Defaults to the formula's.

    .. code-block:: yaml

        Ana's photos on the NAS are a library:
          immich_library.present:
            - name: /mnt/photos
            - owner: ana@example.org
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is a library of {owner}"}
    changes = {name: {"old": None, "new": f"library of {owner}"}}
    try:
        client = api_key.required_client(url, key_file, api.patience(__opts__["test"]))
        user = accounts.find(client.users(), owner)
        if user is None or accounts.is_deleted(user):
            if __opts__["test"]:  # an earlier state may create it
                comment = f"{name} would become a library of {owner} if that has an account by then. Now it has none"
                return {**ret, "result": None, "changes": changes, "comment": comment}
            raise CommandExecutionError(f"{owner}, the owner of {name}, has no account: declare it in immich:users")
        libraries = client.libraries()
        found = accounts.library_of(libraries, user["id"], name)
        if found and found["ownerId"] == user["id"]:
            return ret
        if found:
            raise CommandExecutionError(
                f"{name} is in a library of another account, {accounts.shown(found['name'])}, and Immich cannot give a "
                f"library to another one: delete it in Immich (Administration > External Libraries), then apply again"
            )
        if __opts__["test"]:
            comment = f"{name} would become a library of {owner}"
            return {**ret, "result": None, "changes": changes, "comment": comment}
        made = accounts.begun_library(libraries, user["id"], name)
        made = made or client.create_library({"ownerId": user["id"], "name": name})
        # Not before: Immich checks a folder at a change, and not at the creation.
        client.update_library(made["id"], {"importPaths": [name]})
        client.scan_library(made["id"])
    except FAILURES as error:
        # It may be asked once the states before this one have run.
        if __opts__["test"] and isinstance(error, api.ApiError):
            comment = f"Whether {name} is a library of {owner} is not known now: {error}"
            return {**ret, "result": None, "changes": changes, "comment": comment}
        return {**ret, "result": False, "comment": str(error)}
    return {**ret, "changes": changes, "comment": f"{name} has become a library of {owner}, and is being scanned"}
