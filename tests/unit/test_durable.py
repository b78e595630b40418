"""Files that are replaced in one step."""

import os
import stat

import pytest

from host_core import durable

CONFIGURATION = b"port 6379\n# caf\xe9\n"  # of a person whose editor wrote Latin-1


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "valkey.conf"
    path.write_bytes(CONFIGURATION)
    path.chmod(0o640)
    return path


def modes(folder):
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()}


def test_a_file_has_its_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o777)
    try:
        durable.write(tmp_path / "secret", "x\n", 0o600)
        durable.write(tmp_path / "compose.yml", "y\n", 0o644)
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"secret": 0o600, "compose.yml": 0o644}
    assert (tmp_path / "secret").read_text() == "x\n"


def test_a_file_that_is_there_keeps_its_mode_its_bytes_and_its_link(configuration, tmp_path):
    link = tmp_path / "linked.conf"
    link.symlink_to(configuration.name)
    text = configuration.read_text(encoding="utf8", errors="surrogateescape")
    durable.replace(link, text + "bind 127.0.0.1\n")
    assert configuration.read_bytes() == CONFIGURATION + b"bind 127.0.0.1\n"
    assert link.is_symlink()
    assert modes(tmp_path)["valkey.conf"] == 0o640


def test_what_others_or_a_killed_write_have_left_beside_it_is_not_followed(configuration, tmp_path):
    foreign = tmp_path / "shadow"
    foreign.write_text("root")
    (tmp_path / ".valkey.conf.part").symlink_to(foreign)
    durable.replace(configuration, "port 6380\n")
    assert (foreign.read_text(), configuration.read_text()) == ("root", "port 6380\n")
    assert not (tmp_path / ".valkey.conf.part").exists()


def test_on_a_full_disk_the_file_stays_as_it_was_and_is_named(full_disk, configuration, tmp_path):
    with pytest.raises(OSError, match=f"{configuration} cannot be written: File too large"), full_disk():
        durable.replace(configuration, "x" * 100000)
    assert configuration.read_bytes() == CONFIGURATION
    assert os.listdir(tmp_path) == ["valkey.conf"]
