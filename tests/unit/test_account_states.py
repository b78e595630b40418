"""States of accounts and libraries, where Immich refuses what they ask for."""

import pytest

from _states import immich_library
from immich_io import api

BEN = {
    "id": "00000000-0000-4000-8000-000000000001",
    "email": "ben@example.org",
    "name": "Ben",
    "isAdmin": False,
    "storageLabel": None,
    "quotaSizeInBytes": None,
    "deletedAt": None,
}


class Immich:
    """As much of ``api.Client`` as the states call, on a server that has accounts and libraries."""

    def __init__(self):
        self.readable, self.scanned, self._libraries = False, [], []

    def users(self):
        return [BEN]

    def libraries(self):
        return self._libraries

    def create_library(self, fields):
        made = {"id": str(len(self._libraries)), "importPaths": [], "exclusionPatterns": [], **fields}
        self._libraries.append(made)
        return made

    def update_library(self, identifier, fields):
        if not self.readable:
            raise api.ApiError("Invalid import path: Lacking read permission for folder", 400)
        self._libraries[int(identifier)].update(fields)

    def scan_library(self, identifier):
        self.scanned.append(identifier)


@pytest.fixture
def server(monkeypatch):
    server = Immich()
    monkeypatch.setattr(immich_library.api_key, "let_in", lambda *_: server)
    monkeypatch.setattr(immich_library, "__opts__", {"test": False}, raising=False)
    return server


def test_a_folder_that_immich_cannot_read_is_refused_until_it_can_and_is_then_scanned_once(server):
    for _ in range(2):
        refused = immich_library.present("/mnt/photos", BEN["email"])
        assert (refused["result"], refused["changes"]) == (False, {})
        assert "Lacking read permission" in refused["comment"]
    server.readable = True
    assert immich_library.present("/mnt/photos", BEN["email"])["changes"] != {}
    assert immich_library.present("/mnt/photos", BEN["email"])["changes"] == {}
    (library,) = server.libraries()
    assert (library["importPaths"], server.scanned) == (["/mnt/photos"], [library["id"]])
