"""
What goes wrong between a caller and PostgreSQL
===============================================
"""

import contextlib


class PgsqlError(Exception):
    """The base of all errors of this package."""


class InvalidArgumentError(PgsqlError):
    """An argument that is wrong whatever the server holds."""


class ServerError(PgsqlError):
    """
    The server cannot be reached, or refuses, or something else on this host does.

    ``absent`` is ``server`` when a server on this host does not run, and ``database`` when the database does not exist,
    so that a dry run can distinguish "not there yet" from "broken". ``sqlstate`` is PostgreSQL's code, if it sent one.
    """

    def __init__(self, message, absent=None, sqlstate=None):
        super().__init__(message)
        self.absent = absent
        self.sqlstate = sqlstate


@contextlib.contextmanager
def raised_as(failure, refusal):
    """
    Raise ``ServerError`` and ``InvalidArgumentError`` as exceptions of the caller, also as a decorator.

    failure
        Class of the exception for ``ServerError``, whose ``absent`` and ``sqlstate`` it gets.

    refusal
        Class of the exception for ``InvalidArgumentError``.
    """
    try:
        yield
    except InvalidArgumentError as err:
        raise refusal(str(err)) from None
    except ServerError as err:
        error = failure(str(err))
        error.absent, error.sqlstate = err.absent, err.sqlstate
        raise error from None
