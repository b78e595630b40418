"""Which version can follow which."""

import pytest

VERSIONS = {
    "v3.3.1": [3, 3, 1],
    "3.3.1": [3, 3, 1],
    "ghcr.io/immich-app/immich-server:v1.132.3": [1, 132, 3],
    "registry.test:5000/immich-server:v3.3.1-cuda": [3, 3, 1],
    "ghcr.io/immich-app/immich-server:v3.3.1@sha256:" + "0" * 64: [3, 3, 1],
    "registry.test:5000/immich-server": None,
    "ghcr.io/immich-app/immich-server:v3": None,
    "ghcr.io/immich-app/immich-server:release": None,
    "ghcr.io/immich-app/immich-server@sha256:" + "0" * 64: None,
    "": None,
}
# From, to, and a part of the refusal.
WAYS = (
    ("v3.3.1", "v3.3.1", None),
    ("v3.3.1", "v3.3.2", None),
    ("v2.7.0", "v3.4.0", None),
    ("v3.0.9", "v3.0.10", None),
    ("v3.3.2", "v3.3.1", "cannot go back"),
    ("v3.4.0", "v3.3.98", "cannot go back"),
    ("v3.0.10", "v3.0.9", "cannot go back"),
    ("v3.3.1", "v1.132.3", "cannot go back"),
    ("v1.131.3", "v3.3.1", "Set v1.132.3"),
    ("v1.90.0", "v1.133.0", "Set v1.132.3"),
    ("v1.131.3", "v1.132.3", None),
    ("v1.131.3", "v1.132.0", None),
    ("v1.132.3", "v3.3.1", None),
    ("v3", "v3.3.1", None),
    ("v3.3.1", "release", None),
)


@pytest.mark.parametrize("text", VERSIONS)
def test_version_of_a_tag_or_image(modules, text):
    assert modules.immich_update.version(text) == VERSIONS[text]


@pytest.mark.parametrize(("found", "wanted", "refusal"), WAYS)
def test_ways_from_version_to_version(modules, found, wanted, refusal):
    version = modules.immich_update.version
    said = modules.immich_update.why_not(version(found), version(wanted), "immich:server:image")
    if refusal is None:
        assert said is None
    else:
        assert refusal in said
        assert said.startswith("immich:server:image: ")
