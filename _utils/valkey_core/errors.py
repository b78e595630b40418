"""
What goes wrong between a caller and Valkey
===========================================
"""

import contextlib


class ValkeyError(Exception):
    """The base of all errors of this package."""


class InvalidArgumentError(ValkeyError):
    """An argument that is wrong whatever the server holds."""


class ServerError(ValkeyError):
    """The server refuses, or something else on this host does."""


class UnreachableError(ServerError):
    """Nothing answers where the server should be. States distinguish it under ``test=True``, by ``unreachable``."""

    def __init__(self, message):
        super().__init__(message)
        self.unreachable = True


class RefusedError(ServerError):
    """The server answers and does not accept the credentials, or there are none to offer: ``refused``."""

    def __init__(self, message):
        super().__init__(message)
        self.refused = True


class BusyError(ServerError):
    """The server runs a script that does not end, and answers nothing else until ``remedy`` is called."""

    def __init__(self, where, reply):
        # The reply names what ends it: "BUSY … You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        self.remedy = "FUNCTION KILL" if "FUNCTION KILL" in reply else "SCRIPT KILL"
        super().__init__(
            f"{where} is busy with a script and answers no other client. End it as its administrator: {self.remedy}."
            " Where that replies UNKILLABLE, the script has written, and only SHUTDOWN NOSAVE or a restart of the"
            " service ends it."
        )


@contextlib.contextmanager
def raised_as(failure, refusal):
    """
    Raise ``ServerError`` and ``InvalidArgumentError`` as exceptions of the caller, also as a decorator.

    failure
        Class of the exception for ``ServerError``, whose ``unreachable``, ``refused`` or ``remedy`` it gets.

    refusal
        Class of the exception for ``InvalidArgumentError``.
    """
    try:
        yield
    except InvalidArgumentError as err:
        raise refusal(str(err)) from err
    except ServerError as err:
        error = failure(str(err))
        vars(error).update(vars(err))
        raise error from err
