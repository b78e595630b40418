"""
Immich's API: accounts, libraries, settings and API keys
==========================================================

Routes and answers are those of server/src/controllers and server/src/dtos of Immich: ``auth``, ``user-admin``,
``library``, ``system-config`` and ``api-key``, read between v2.7.2 (commit 52605e8) and October 2026. An answer may be
anybody's: each is read with a limit and a deadline (``untrusted``), and has the types that are expected, or is an
error. No message holds a password or a key.
"""

import errno
import re
import time

from host_core import terminal
from immich_io import untrusted

# Some ten thousand accounts.
LARGEST_LIST = 8 * 1024**2
# Seconds for an answer: a password is hashed on purpose slowly, also on a busy host.
SECONDS = 30
LONGEST_MESSAGE = 300
# Seconds that a restart of the server may take, and pauses between two looks meanwhile.
RESTART = 30
PAUSE = 0.5
# Nobody has received anything then: the container is being made anew.
NOT_CONNECTED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
IDENTIFIER = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# What goes into a header.
TOKEN = re.compile("[!-~]{16,512}")
USER = {
    "id": IDENTIFIER,
    "email": str,
    "name": str,
    "isAdmin": bool,
    "storageLabel": (str, type(None)),
    "quotaSizeInBytes": (int, type(None)),
    "deletedAt": (str, type(None)),
}
LIBRARY = {"id": IDENTIFIER, "ownerId": IDENTIFIER, "name": str, "importPaths": list, "exclusionPatterns": list}
KEY = {"id": IDENTIFIER, "name": str}


def patience(test):
    """
    Return the seconds for which a state waits for a server that restarts: none in a dry run, which may come before its
    first start.

    test
        Whether it is a dry run.

    .. code-block:: python

        api.patience(__opts__["test"])
    """
    return 0 if test else RESTART


class ApiError(Exception):
    """
    The server refuses, or its answer is not what it should be.

    ``status`` is that of HTTP, or ``None`` without an answer. ``refused``: it rejected the credentials.
    """

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status
        self.refused = status == 401


class Client:
    """
    A client of one server.

    url
        The server's address, without a path.
    key
        An API key. Defaults to none: then only what needs no login can be asked, and :py:meth:`login`.
    timeout
        Seconds for an answer. Defaults to 30.
    wait
        Seconds to try again for while nobody can be connected to, as during a restart. Defaults to 0.

    .. code-block:: python

        api.Client("http://127.0.0.1:2283", key).users()
    """

    def __init__(self, url, key=None, timeout=SECONDS, wait=0):
        self._url = url
        self._timeout = timeout
        self._wait = wait
        self._headers = {}
        self._secrets = []
        if key is not None:
            self._headers = {"x-api-key": self._token(key)}

    def with_key(self, key):
        """Return a client of the same server that authenticates with an API key."""
        return Client(self._url, key, self._timeout, self._wait)

    # -- without a login ----------------------------------------

    def signed_up(self):
        """Return whether somebody has signed up as administrator."""
        answer = self._ask("GET", "server/config")
        if not isinstance(answer, dict) or not isinstance(answer.get("isInitialized"), bool):
            raise ApiError(f"{self._url} does not say whether somebody has signed up")
        if answer.get("maintenanceMode") is True:
            raise ApiError("Immich is in maintenance mode and serves nobody")
        return answer["isInitialized"]

    def has_password_login(self):
        """Return whether accounts can log in by password, as far as the server says: it may have OAuth alone."""
        try:
            answer = self._ask("GET", "server/features")
        except ApiError:
            return True
        return not isinstance(answer, dict) or answer.get("passwordLogin") is not False

    def sign_up(self, email, name, password):
        """Sign up the administrator, and return the account."""
        self._secrets.append(password)
        return _typed(
            self._ask("POST", "auth/admin-sign-up", {"email": email, "name": name, "password": password}),
            {key: USER[key] for key in ("id", "email", "isAdmin")},
        )

    def login(self, email, password):
        """Log in; :py:meth:`logout` ends the session."""
        self._secrets.append(password)
        answer = _typed(
            self._ask("POST", "auth/login", {"email": email, "password": password}),
            {"accessToken": str, "userEmail": str, "isAdmin": bool},
        )
        self._headers = {"Authorization": f"Bearer {self._token(answer['accessToken'])}"}
        return answer

    def logout(self):
        """End the session of :py:meth:`login`."""
        self._ask("POST", "auth/logout")
        self._headers = {}

    # -- accounts ----------------------------------------

    def users(self):
        """Return all accounts, those that are about to be deleted too."""
        answer = self._ask("GET", "admin/users?withDeleted=true", size=LARGEST_LIST)
        return _typed_list(answer, USER)

    def create_user(self, fields):
        """Create an account, and return it."""
        self._secrets.append(fields["password"])
        return _typed(self._ask("POST", "admin/users", fields), USER)

    def update_user(self, identifier, fields):
        """Change an account."""
        self._ask("PUT", f"admin/users/{identifier}", fields)

    def delete_user(self, identifier):
        """Delete an account, as Immich does it: after some days, until when it can be restored."""
        self._ask("DELETE", f"admin/users/{identifier}", {})

    def restore_user(self, identifier):
        """Restore an account that is about to be deleted."""
        self._ask("POST", f"admin/users/{identifier}/restore")

    # -- libraries ----------------------------------------

    def libraries(self):
        """Return all external libraries."""
        return _typed_list(self._ask("GET", "libraries", size=LARGEST_LIST), LIBRARY)

    def create_library(self, fields):
        """Create an external library, and return it."""
        return _typed(self._ask("POST", "libraries", fields), LIBRARY)

    def update_library(self, identifier, fields):
        """Change an external library."""
        self._ask("PUT", f"libraries/{identifier}", fields)

    def scan_library(self, identifier):
        """Have the server look for the files of a library."""
        self._ask("POST", f"libraries/{identifier}/scan")

    # -- settings ----------------------------------------

    def system_config(self):
        """Return Immich's own settings, as it uses them; its secrets are among them."""
        answer = self._ask("GET", "system-config", size=LARGEST_LIST)
        if not isinstance(answer, dict):
            raise ApiError("Immich's answer does not have the expected form")
        return answer

    # -- API keys ----------------------------------------

    def api_keys(self):
        """Return the API keys of whoever asks, without their secrets."""
        return _typed_list(self._ask("GET", "api-keys", size=LARGEST_LIST), KEY)

    def create_key(self, name, permissions):
        """Create an API key, and return its id and its secret, which the server tells once."""
        answer = self._ask("POST", "api-keys", {"name": name, "permissions": permissions})
        answer = _typed(answer, {"secret": str, "apiKey": dict})
        return {"id": _typed(answer["apiKey"], KEY)["id"], "secret": self._token(answer["secret"])}

    def delete_key(self, identifier):
        """Delete an API key of whoever asks."""
        self._ask("DELETE", f"api-keys/{identifier}")

    # -- what these share ----------------------------------------

    def _token(self, text):
        if not isinstance(text, str) or not TOKEN.fullmatch(text):
            raise ApiError("this is not a valid key or token of Immich")
        self._secrets.append(text)
        return text

    def _ask(self, method, path, body=None, size=untrusted.LARGEST_ANSWER):
        url = f"{self._url}/api/{path}"
        try:
            status, answer = self._answer(method, url, body, size)
        except (OSError, ValueError) as error:
            raise ApiError(f"{method} {url.partition('?')[0]}: {error}") from error
        if not 200 <= status < 300:
            message = f"Immich answers {status} to {method} /api/{path.partition('?')[0]}: {said(answer)}"
            raise ApiError(self._without_secrets(message), status)
        return answer

    def _answer(self, method, url, body, size):
        deadline = time.monotonic() + self._wait
        while True:
            try:
                return untrusted.request_json(method, url, body, self._headers, self._timeout, size)
            except OSError as error:
                if error.errno not in NOT_CONNECTED or time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)

    def _without_secrets(self, text):
        """A server that was taken over may quote what it was sent."""
        for secret in self._secrets:
            text = text.replace(terminal.one_line(secret), "(hidden)")
        return text[:LONGEST_MESSAGE]


def said(answer):
    """
    Return what an answer says of an error, as one printable line: ``message``, and of a validation what is wrong where.

    In the forms of server/src/middleware/global-exception.filter.ts: a text, a list of texts (class-validator, before
    v3), or a text with a list of issues (zod).

    answer
        The answer, parsed.

    .. code-block:: python

        api.said({"message": "Validation failed", "errors": [{"path": ["email"], "message": "Invalid input"}]})
    """
    if not isinstance(answer, dict):
        return "no reason"
    message, issues = answer.get("message"), answer.get("errors")
    words = message[:5] if isinstance(message, list) else [message]
    for issue in issues[:5] if isinstance(issues, list) else []:
        if isinstance(issue, dict) and isinstance(issue.get("path"), list):
            words.append(f"{'.'.join(map(str, issue['path'][:5]))}: {issue.get('message')}")
    return terminal.one_line("; ".join(word for word in words if isinstance(word, str)) or "no reason")


def _typed(answer, types):
    """An answer with the expected types, and nothing else of it."""
    if not isinstance(answer, dict):
        raise ApiError("Immich's answer does not have the expected form")
    return {name: _value(answer.get(name), kind, name) for name, kind in types.items()}


def _value(value, kind, name):
    if isinstance(kind, re.Pattern):
        right = isinstance(value, str) and kind.fullmatch(value)
    else:
        # A truth value is a number for Python.
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not right:
        raise ApiError(f"Immich's answer has no valid {name}")
    if kind is list and not all(isinstance(each, str) for each in value):
        raise ApiError(f"Immich's answer has no valid {name}")
    return value


def _typed_list(answer, types):
    if not isinstance(answer, list):
        raise ApiError("Immich's answer does not have the expected form")
    return [_typed(each, types) for each in answer]
