"""
Accounts and external libraries: what of them is declared, and how it differs from what Immich has
====================================================================================================

An account is known by its e-mail address, which Immich keeps in lower case, and a library by its owner and a folder in
it. What is not declared is left alone. Asks nothing: current accounts and libraries are those of ``api``.
"""

from host_core import terminal

# What the formula's own API key may do: server/src/enum.ts of Immich, since v1.137. With the first three it makes
# another one and deletes itself; with the last it compares Immich's settings; the rest are the states.
PERMISSIONS = [
    "apiKey.create",
    "apiKey.read",
    "apiKey.delete",
    "adminUser.create",
    "adminUser.read",
    "adminUser.update",
    "adminUser.delete",
    "library.create",
    "library.read",
    "library.update",
    "systemConfig.read",
]
KEY_NAME = "immich-formula"
LONGEST_NAME = 200
UNLIMITED = "unlimited"
_UNITS = {"m": 1024**2, "g": 1024**3, "t": 1024**4}
# What the pillar calls it -> what Immich's API does.
_FIELDS = {"name": "name", "quota": "quotaSizeInBytes", "storage_label": "storageLabel", "admin": "isAdmin"}


def number_of_bytes(quota):
    """
    Return a quota as Immich has it: a number of bytes, or ``None`` for no limit.

    quota
        As in the pillar: ``500m``, ``50g``, ``2t`` or ``unlimited``.

    .. code-block:: python

        accounts.number_of_bytes("50g")
    """
    return None if quota == UNLIMITED else int(quota[:-1]) * _UNITS[quota[-1]]


def find(users, email):
    """
    Return the account of an e-mail address, or ``None``.

    users
        Current accounts.
    email
        The address, in any case.

    .. code-block:: python

        accounts.find(users, "ana@example.org")
    """
    return next((user for user in users if user["email"].lower() == email.lower()), None)


def is_deleted(user):
    """
    Return whether an account is about to be deleted: Immich keeps it for some days.

    user
        The account.

    .. code-block:: python

        accounts.is_deleted(user)
    """
    return user["deletedAt"] is not None


def user_fields(name, quota=None, storage_label=None, admin=None):
    """
    Return the declared fields of an account as Immich's API names them; what is not declared is left out.

    name, quota, storage_label, admin
        As in the pillar.

    .. code-block:: python

        accounts.user_fields("Ana", quota="50g")
    """
    declared = {"name": name, "quota": quota, "storage_label": storage_label, "admin": admin}
    found = {_FIELDS[key]: value for key, value in declared.items() if value is not None}
    if quota is not None:
        found["quotaSizeInBytes"] = number_of_bytes(quota)
    return found


def user_changes(fields, user):
    """
    Return what of an account is to change, as Salt shows it: ``{field: {"old": …, "new": …}}``.

    fields
        The declared ones, as of :py:func:`user_fields`.
    user
        The current account.

    .. code-block:: python

        accounts.user_changes({"name": "Ana"}, user)
    """
    changes = {key: {"old": shown(user[key]), "new": value} for key, value in fields.items() if user[key] != value}
    if is_deleted(user):
        changes["status"] = {"old": "deleted", "new": "active"}
    return changes


def shown(value):
    """
    Return a value of an account or a library as a person may see it: a name is what its owner wants it to be, with
    escape sequences if they like.

    value
        The value, of any type.

    .. code-block:: python

        accounts.shown(user["name"])
    """
    return terminal.one_line(value, LONGEST_NAME) if isinstance(value, str) else value


def library_of(libraries, owner, path):
    """
    Return the external library that has a folder, the owner's before others', or ``None``.

    libraries
        Current libraries.
    owner
        Id of the declared owner.
    path
        The folder, as the container sees it.

    .. code-block:: python

        accounts.library_of(libraries, user["id"], "/mnt/photos")
    """
    holding = [library for library in libraries if path in library["importPaths"]]
    return next((library for library in holding if library["ownerId"] == owner), holding[0] if holding else None)


def begun_library(libraries, owner, name):
    """
    Return a library that was created and got no folder, as Immich has refused it since, or ``None``.

    libraries, owner
        As for :py:func:`library_of`.
    name
        Its name.

    .. code-block:: python

        accounts.begun_library(libraries, user["id"], "/mnt/photos")
    """
    empty = [library for library in libraries if library["ownerId"] == owner and not library["importPaths"]]
    return next((library for library in empty if library["name"] == name), None)


def missing(declared, users, libraries):
    """
    Return what is declared and not there or another, or there and declared deleted, as a list of sentences.

    declared
        ``users`` and ``external_libraries`` of the settings.
    users, libraries
        Current ones.

    .. code-block:: python

        accounts.missing(settings, client.users(), client.libraries())
    """
    found = []
    for user in declared["users"]:
        there = find(users, user["email"])
        active = there is not None and not is_deleted(there)
        if active is bool(user.get("delete")):
            found.append(f"{user['email']} has {'still an' if active else 'no'} account")
        elif active and _differing(user, there):
            found.append(f"the account {user['email']} is not as declared: {', '.join(_differing(user, there))}")
    for library in declared["external_libraries"]:
        owner = find(users, library["owner"]) if library.get("owner") else None
        if library.get("owner") and (owner is None or not _owns(libraries, owner["id"], library["mount"])):
            found.append(f"{library['mount']} is not a library of {library['owner']}")
    return found


def _differing(declared, user):
    fields = user_fields(*map(declared.get, _FIELDS))
    return [name for name, field in _FIELDS.items() if field in fields and fields[field] != user[field]]


def _owns(libraries, owner, path):
    library = library_of(libraries, owner, path)
    return library is not None and library["ownerId"] == owner
