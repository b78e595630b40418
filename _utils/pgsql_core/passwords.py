"""
A password that is given in clear, as a path in the pillar or as the path of a file
====================================================================================
"""

from host_core.pillar import value as pillar_value
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
        password = pillar_value(pillar, password_pillar)
        if password is None:
            raise InvalidArgumentError(f"The pillar has no {password_pillar}.")
    if password_file is not None:
        password = _read(password_file).removesuffix("\n")
    return None if password is None else str(password)


def _read(path):
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as err:
        raise ServerError(f"Cannot read {path}: {err}") from None
