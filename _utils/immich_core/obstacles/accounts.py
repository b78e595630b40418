"""
What keeps the formula from logging in
======================================
"""

from immich_core.obstacles import obstacle


def of_login(password_login, has_key):
    """
    Yield that the formula cannot make its API key: for that it logs in by password.

    password_login
        What the pillar declares as ``immich:settings:passwordLogin:enabled``, or ``None``.
    has_key
        Whether this host has the key.

    .. code-block:: python

        list(accounts.of_login(False, True))
    """
    if password_login is False and not has_key:
        seen = "immich:admin needs a login by password once, with which the formula makes its API key"
        remedy = "set it to true, apply, then set it back"
        yield obstacle("password-login-off", "settings:passwordLogin:enabled", seen, remedy)
