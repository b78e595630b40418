"""What of a compose project differs, by what Podman prints."""

import json

import pytest

from immich_core import labels
from immich_io import project

COMPOSE = """
x-immich-stack: {}
services:
  immich-server:
    image: registry.test/server:v1
    labels: {io.immich-formula.service-hash: abc}
    secrets: [db_password]
secrets:
  db_password: {file: secrets/db_password}
"""
IMAGES = 'sha256:1 ["registry.test/server:v1"] []'


def container(name="immich-server", **changes):
    known = {labels.SERVICE: "immich-server", labels.DEFINITION: "abc"}
    return {
        "Names": [name], "Id": name, "State": "running", "ImageID": "sha256:1", "Created": 2**33, "Labels": known,
        **changes,
    }  # fmt: skip


def podman(*listed, images=IMAGES):
    """A function that answers as `podman` would."""
    return lambda *arguments, check=True: json.dumps(listed) if arguments[0] == "ps" else images


def plan(tmp_path, *listed, images=IMAGES):
    return project.Project(tmp_path, COMPOSE, podman(*listed, images=images)).plan()


@pytest.mark.parametrize(
    ("changes", "why"),
    (
        ({"State": "exited"}, "it is exited"),
        ({"Labels": {labels.SERVICE: "immich-server", labels.DEFINITION: "other"}}, "its definition changed"),
        ({"ImageID": "sha256:2"}, "its image changed"),
        ({"Created": 1}, "a secret changed"),
    ),
)
def test_a_difference_recreates_a_container(tmp_path, changes, why):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/db_password").write_text("secret")
    assert plan(tmp_path, container()) == {"recreate": {}, "remove": []}
    assert plan(tmp_path, container(**changes)) == {"recreate": {"immich-server": why}, "remove": []}


def test_what_is_missing_is_created_and_what_nobody_declares_removed(tmp_path):
    other = container("former", Labels={labels.SERVICE: "former"})
    assert plan(tmp_path, other) == {"recreate": {"immich-server": "it does not exist"}, "remove": ["former"]}
    assert plan(tmp_path, container(), images="")["recreate"] == {}


def test_all_containers_of_a_project_are_listed(tmp_path):
    """`podman-compose run` makes another one of a service."""
    both = project.containers(tmp_path, podman(container(), container("by-hand")))
    assert [each["Names"] for each in both] == [["immich-server"], ["by-hand"]]


@pytest.mark.parametrize("text", ("", "[", "services: {}", "x-immich-stack: {}"))
def test_another_compose_file_is_refused(tmp_path, text):
    with pytest.raises(project.ProjectError, match="not the one that Salt wrote"):
        project.Project(tmp_path, text, podman())
