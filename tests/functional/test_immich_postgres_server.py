"""What the pillar may change of the host's PostgreSQL: the settings of a profile, and a package of VectorChord.

The package is made here, as Debian has none: it has VectorChord's name, its versions, what it requires and a library to
preload (another extension's, renamed), but no index to search with.
"""

import contextlib
import functools
import hashlib
import http.server
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from host_core.listeners import Listeners
from immich_core import postgres_tuning
from immich_host import postgres_tuning as on_host
from immich_host import vectorchord_package
from tests.functional import test_immich_postgres as beside
from tests.functional.pgsql_server import LIBRARIES, UNIT, restarts
from tests.functional.release import POSTGRES

pg, database, host = beside.pg, beside.database, beside.host
NAME = f"postgresql-{POSTGRES}-vchord"
CONTROL = """Package: {name}
Version: {version}-1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Depends: postgresql-{major}-pgvector
Description: play extension
"""


@pytest.fixture
def record():
    yield on_host.RECORD
    on_host.RECORD.unlink(missing_ok=True)


def tuned(pg, profile, **arguments):
    return beside.server_configured(pg, listen_addresses=[], tuning=profile, **arguments)


def shown(pg, *names):
    return [pg.value(f"SHOW {name}") for name in names]


def test_a_profile_is_set_with_one_restart_and_goes_as_it_came(pg, host, record):
    memory = pg.loaders.opts["grains"]["mem_total"]
    names = sorted(postgres_tuning.values("ssd", memory))
    pg.sql("ALTER SYSTEM SET work_mem = '5MB'")
    pg.reload()
    former, before = shown(pg, *names), restarts()
    dry = tuned(pg, "ssd", test=True)
    assert (dry["result"], set(dry["changes"])) == (None, set(names))
    assert not record.exists()
    real = tuned(pg, "ssd")
    assert (real["result"], real["changes"]) == (True, dry["changes"])
    once = restarts()
    assert once != before
    assert on_host.differing("ssd", memory, None, pg.modules) == {}
    assert shown(pg, "random_page_cost", "max_wal_size") == ["1.2", "5GB"]
    assert tuned(pg, "ssd")["changes"] == {}
    assert restarts() == once
    # A disk with heads: what is only an SSD's has its former value.
    assert set(tuned(pg, "hdd")["changes"]) == {"random_page_cost", "effective_io_concurrency"}
    assert on_host.differing("ssd", memory, None, pg.modules).keys() == {"random_page_cost", "effective_io_concurrency"}
    # What an administrator has set since stays.
    pg.sql("ALTER SYSTEM SET max_wal_size = '3GB'")
    assert tuned(pg, "none")["result"] is True
    assert shown(pg, "max_wal_size", "work_mem") == ["3GB", "5MB"]
    pg.sql("ALTER SYSTEM RESET max_wal_size")
    pg.reload()
    assert shown(pg, *names) == former
    assert not record.exists()


def test_a_run_that_was_killed_before_it_recorded_the_end_keeps_the_former_values(pg, host, record):
    _, noted = on_host.plan("hdd", pg.loaders.opts["grains"]["mem_total"], None, pg.modules)
    assert tuned(pg, "hdd")["result"] is True
    on_host.note(noted)
    assert tuned(pg, "hdd")["changes"] == {}
    assert tuned(pg, "none")["result"] is True
    assert shown(pg, "max_wal_size") == ["1GB"]


def test_a_profile_with_which_the_server_does_not_start_is_taken_back(pg, host, record, monkeypatch):
    names = sorted(postgres_tuning.values("ssd", 4096))
    former = shown(pg, *names)
    monkeypatch.setattr(postgres_tuning, "_SHARED_BUFFERS", (1, 4 * 1024**2, 4 * 1024**2))
    ret = tuned(pg, "ssd")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"{UNIT} does not start with shared_buffers 4194304MB" in ret["comment"]
    assert "could not map anonymous shared memory" in ret["comment"]
    pg.new_run()
    assert shown(pg, *names) == former
    # The same pillar on a host with the memory: what was before is still on record as that.
    monkeypatch.undo()
    assert tuned(pg, "ssd")["result"] is True
    assert tuned(pg, "none")["result"] is True
    assert shown(pg, *names) == former


@pytest.fixture
def package(tmp_path):
    """A function that makes a package of a version, for a PostgreSQL; returns its path and hash."""
    # apt reads it as a user of its own.
    tmp_path.chmod(0o755)

    def make(version="0.4.3", major=POSTGRES):
        root = tmp_path / version
        extension, libraries = (root / f"usr/{each}/postgresql/{major}" for each in ("share", "lib"))
        for folder in (root / "DEBIAN", extension / "extension", libraries / "lib"):
            folder.mkdir(parents=True)
        (root / "DEBIAN/control").write_text(CONTROL.format(name=NAME, version=version, major=POSTGRES))
        control = f"default_version = '{version}'\nrequires = 'vector'\nrelocatable = true\nsuperuser = true\n"
        (extension / "extension/vchord.control").write_text(control)
        body = "CREATE FUNCTION vchord_version() RETURNS int LANGUAGE sql AS 'SELECT 1';\n"
        (extension / f"extension/vchord--{version}.sql").write_text(body)
        (extension / f"extension/vchord--0.4.3--{version}.sql").write_text("SELECT 1;\n")
        shutil.copy(LIBRARIES / "auto_explain.so", libraries / "lib/vchord.so")
        file = tmp_path / f"{NAME}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, file], check=True, capture_output=True)
        return str(file), hashlib.sha256(file.read_bytes()).hexdigest()

    yield make
    subprocess.run(["dpkg", "--purge", NAME], check=True, capture_output=True)
    vectorchord_package.RECORD.unlink(missing_ok=True)


def installed(pg, file, digest, **arguments):
    return pg.state("immich_postgres.vectorchord_installed", "t", package=file, hash=digest, service=UNIT, **arguments)


@contextlib.contextmanager
def served(file):
    """The URL of a file while a server of this host has it."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=Path(file).parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{Path(file).name}"
        server.shutdown()


def test_a_package_is_checked_installed_and_updated(pg, host, database, package):
    file, digest = package()
    wrong = installed(pg, file, "0" * 64)
    assert (wrong["result"], wrong["changes"]) == (False, {})
    assert f"has the hash {digest}, not 000" in wrong["comment"]
    other = installed(pg, *package("0.5.0", major=int(POSTGRES) - 1))
    assert (other["result"], other["changes"]) == (False, {})
    assert f"is for PostgreSQL {int(POSTGRES) - 1}, and this host's is {POSTGRES}" in other["comment"]
    assert installed(pg, file, digest, test=True)["result"] is None
    assert vectorchord_package.version(NAME) is None
    done = installed(pg, file, digest)
    assert (done["result"], done["changes"]) == (True, {NAME: {"old": None, "new": "0.4.3-1"}}), done["comment"]
    assert installed(pg, file, digest)["changes"] == {}
    assert beside.vector(pg) == "vchord"
    beside.server_configured(pg)
    beside.extensions_present(pg)
    assert beside.installed(pg)["vchord"] == "public"
    # A server that has loaded the former library is restarted, and the extension follows.
    before = restarts()
    file, digest = package("0.4.9")
    with served(file) as url:
        wrong = installed(pg, url, "0" * 64)
        assert f"has the hash {digest}, not 000" in wrong["comment"]
        newer = installed(pg, url, digest)
    assert newer["changes"] == {NAME: {"old": "0.4.3-1", "new": "0.4.9-1"}}, newer["comment"]
    assert restarts() != before
    assert beside.extensions_present(pg)["changes"]["vchord"] == {"old": "0.4.3", "new": "0.4.9"}


def test_a_package_that_is_not_there_is_an_obstacle(pg, package):
    file, digest = package()

    def obstacles(path, expected):
        declared = {"here": True, "port": 5432, "vectorchord": {"package": path, "hash": expected}}
        settings = {"postgres": declared, "lookup": {"postgres": {"unit": UNIT}}, "listen_addresses": []}
        found = pg.modules.immich_postgres.obstacles(settings, Listeners(pg.modules.netns.listening()))
        return [each["seen"] for each in found if each["path"] == "immich:postgres:vectorchord:package"]

    assert obstacles(file, digest) == obstacles("https://example.org/a.deb", digest) == []
    assert "There is no file at /root/none.deb" in obstacles("/root/none.deb", digest)[0]
    assert f"has the hash {digest}, not 000" in obstacles(file, "0" * 64)[0]
