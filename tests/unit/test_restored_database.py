"""A database beside Immich's, which may be gone when a restore drops it. No server is asked here."""

import pytest
from salt.exceptions import CommandExecutionError

from immich_restore import fill
from immich_restore.target import Target


def dropping(there):
    """An installation whose server refuses to drop a database, which is there or not when it is asked next."""

    def refuse(name, **_):
        raise CommandExecutionError(f"{name} cannot be dropped")

    functions = {"pgsql_database.drop": refuse, "pgsql_database.exists": lambda *_: there}
    return Target({"postgres": {"connection": {}}}, functions, {}, "photos")


def test_a_database_that_is_gone_already_counts_as_dropped():
    """The server may still be dropping it for a restore that was killed, and end between two questions."""
    assert fill.drop(dropping(there=False), "immich_kdrop_1") is None


def test_a_database_that_cannot_be_dropped_is_an_error():
    with pytest.raises(CommandExecutionError, match="immich_kdrop_1 cannot be dropped"):
        fill.drop(dropping(there=True), "immich_kdrop_1")
