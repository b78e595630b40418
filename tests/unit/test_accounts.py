"""Declared accounts and libraries against those of Immich."""

import pytest

from immich_core import accounts
from tests.accounts import BEN

LIBRARY = {"id": "1", "ownerId": BEN["id"], "name": "a", "importPaths": ["/a", "/b"], "exclusionPatterns": []}


@pytest.mark.parametrize(
    ("declared", "changed"),
    (
        ({"name": "Ben"}, {}),
        ({"name": "Benjamin"}, {"name": {"old": "Ben", "new": "Benjamin"}}),
        ({"name": "Ben", "quota": "unlimited"}, {}),
        ({"name": "Ben", "quota": "2t"}, {"quotaSizeInBytes": {"old": None, "new": 2 * 1024**4}}),
        ({"name": "Ben", "admin": False, "storage_label": "b"}, {"storageLabel": {"old": None, "new": "b"}}),
    ),
)
def test_what_is_declared_and_differs_is_changed(declared, changed):
    assert accounts.user_changes(accounts.user_fields(**declared), BEN) == changed


def test_a_name_that_somebody_has_given_himself_is_shown_as_one_printable_line():
    (change,) = accounts.user_changes({"name": "Ben"}, {**BEN, "name": "B\x1b[2Je\nn" + "x" * 1000}).values()
    assert change["old"].startswith("Be nxxx")
    assert len(change["old"]) <= accounts.LONGEST_NAME


def test_an_account_that_is_about_to_be_deleted_is_restored():
    deleted = {**BEN, "deletedAt": "2026-11-28T00:00:00.000Z"}
    assert accounts.user_changes({"name": "Ben"}, deleted) == {"status": {"old": "deleted", "new": "active"}}


def test_addresses_are_the_same_in_any_case():
    assert accounts.find([BEN], "Ben@Example.org") is BEN
    assert accounts.find([BEN], "en@example.org") is None


def test_a_library_is_found_by_folder_and_the_owners_comes_first():
    other = {**LIBRARY, "ownerId": "other"}
    assert accounts.library_of([other, LIBRARY], BEN["id"], "/b") is LIBRARY
    assert accounts.library_of([other], BEN["id"], "/b") is other
    assert accounts.library_of([LIBRARY], BEN["id"], "/c") is None


def test_what_is_missing_is_named():
    declared = {
        "users": [{"email": "cem@example.org"}, {"email": BEN["email"], "delete": BEN["email"]}],
        "external_libraries": [{"mount": "/c", "owner": BEN["email"]}, {"mount": "/d"}],
    }
    assert accounts.missing(declared, [BEN], [LIBRARY]) == [
        "cem@example.org has no account",
        "ben@example.org has still an account",
        "/c is not a library of ben@example.org",
    ]
    ben = {"email": BEN["email"], "name": "Ben", "quota": "unlimited"}
    there = {"users": [ben], "external_libraries": [{"mount": "/a", "owner": BEN["email"]}]}
    assert accounts.missing(there, [BEN], [LIBRARY]) == []
    other = {**BEN, "name": "Benjamin", "quotaSizeInBytes": 1, "isAdmin": True}
    assert accounts.missing({**there, "users": [{**ben, "admin": False}]}, [other], [LIBRARY]) == [
        "the account ben@example.org is not as declared: name, quota, admin",
    ]
