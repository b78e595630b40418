"""
A password that is given in clear, as a path in the pillar or as the path of a file
====================================================================================
"""

from pgsql_core.errors import InvalidArgumentError, ServerError


def given(pillar, password=None, password_pillar=None, password_file=None):
    """
    Return a password as text, or nothing if none is given.

    pillar
        The whole pillar.

    password
        The password in clear.

    password_pillar
        Its path in the pillar, with colons, as in ``immich:postgres:password``.

    password_file
        Path of the file that holds it; one final line feed is dropped.

    Raises ``InvalidArgumentError`` if more than one is given or the pillar has no such path, and ``ServerError`` if the
    file cannot be read.
    """
    if sum(source is not None for source in (password, password_pillar, password_file)) > 1:
        raise InvalidArgumentError("Give one of password, password_pillar and password_file.")
    if password_pillar is not None:
        # `pillar.get` returns asterisks to modules since Salt 3008.
        password = _in_pillar(pillar, password_pillar)
        if password is None:
            raise InvalidArgumentError(f"The pillar has no {password_pillar}.")
    if password_file is not None:
        password = _read(password_file).removesuffix("\n")
    return None if password is None else str(password)


def _in_pillar(pillar, path):
    """What Salt's own functions find at a path: a number may be a key, or count the entries of a list."""
    found = pillar
    for word in path.split(":"):
        keys = (word, int(word)) if word.isdecimal() else (word,)
        if isinstance(found, list):
            found = _in_list(found, keys)
        elif hasattr(found, "keys"):
            found = next((found[key] for key in keys if key in found), None)
        else:
            return None
    return found


def _in_list(entries, keys):
    mappings = [entry for entry in entries if isinstance(entry, dict)]
    for key in keys:
        for mapping in mappings:
            if key in mapping:
                return mapping[key]
    number = keys[-1]
    return entries[number] if isinstance(number, int) and number < len(entries) else None


def _read(path):
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as err:
        raise ServerError(f"Cannot read {path}: {err}") from None
