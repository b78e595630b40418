"""An account as Immich answers with it, for the tests."""

BEN = {
    "id": "00000000-0000-4000-8000-000000000001",
    "email": "ben@example.org",
    "name": "Ben",
    "isAdmin": False,
    "storageLabel": None,
    "quotaSizeInBytes": None,
    "deletedAt": None,
}
