"""Which extensions Immich needs, in which versions and order."""

import pytest

from immich_core import postgres_extensions as extensions


@pytest.mark.parametrize(
    ("extension", "version", "answer"),
    (
        ("vchord", "0.3.0", True),
        ("vchord", "0.2.2", False),
        ("vchord", "1.1.1", True),
        ("vchord", "2.0.0", False),
        ("vector", "0.5", True),
        ("vector", "0.4.4", False),
        ("vector", "0.8.0", True),
        ("vector", "1.0.0", False),
        ("vector", None, False),
    ),
)
def test_supported_versions(extension, version, answer):
    assert extensions.supported(extension, version) is answer


def test_a_vector_extension_has_immichs_name_for_it():
    assert [extensions.immich_name(name) for name in ("vchord", "vector")] == ["vectorchord", "pgvector"]


def test_a_new_vectorchord_brings_pgvector_itself_and_a_present_one_is_updated_after_it():
    assert extensions.needed("vchord", present=False)[0] == "vchord"
    assert "vector" not in extensions.needed("vchord", present=False)
    assert extensions.needed("vchord")[:2] == ["vector", "vchord"]
    assert extensions.needed("vector")[:2] == ["vector", "cube"]


def test_a_restore_makes_what_the_formula_makes():
    for vector in extensions.VECTOR_VERSIONS:
        assert {*extensions.needed(vector), "plpgsql"} <= set(extensions.known())
