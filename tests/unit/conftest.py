"""Salt's loader over the formula's modules without a minion.

Nothing here asks the machine: grains, configuration and files are given, so these tests pass for any user on any system
with Python 3.9 or newer. What needs a service, root or files of other users is in ``tests/functional``.
"""

import contextlib
import copy
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

REPO = Path(__file__).resolve().parents[2]
GRAINS = {"id": "host", "os": "Debian", "os_family": "Debian", "osfinger": "Debian-13"}


@pytest.fixture(scope="session")
def session_loaders(tmp_path_factory):
    """Making a loader takes longer than most tests, so all share it."""
    import salt.config  # most tests do without Salt
    import salt.loader

    cache, context, pillar = tmp_path_factory.mktemp("salt"), {}, {}
    # Salt's file server walks all folders of its roots: not the repository's, with the test hosts in .cache.
    roots = tmp_path_factory.mktemp("roots")
    for folder in (REPO / "immich", *REPO.glob("_*")):
        (roots / folder.name).symlink_to(folder)
    opts = copy.deepcopy(dict(salt.config.DEFAULT_MINION_OPTS)) | {
        "__role": "minion",
        "cachedir": str(cache),
        "extension_modules": str(cache / "extmods"),
        "file_client": "local",
        "file_roots": {"base": [str(roots)]},
        "fileserver_backend": ["roots"],
        "grains": GRAINS,
        "id": GRAINS["id"],
        "module_dirs": [str(REPO)],
        "pillar": pillar,
    }
    utils = salt.loader.utils(opts, context=context)
    modules = salt.loader.minion_mods(opts, context=context, utils=utils)
    for loader in (modules, modules.pack["__salt__"]):
        # Before Salt 3008 each loader has a copy of its options.
        loader.pack["__pillar__"] = pillar
    return SimpleNamespace(opts=opts, modules=modules, context=context)


@pytest.fixture
def full_disk():
    """A function: in its context writing fails in the middle of a file, as on a full disk. So does pytest's own."""

    @contextlib.contextmanager
    def full():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full
