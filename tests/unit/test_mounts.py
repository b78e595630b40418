"""Mount points that stand in /etc/fstab and are not mounted."""

import pytest

from host_core import mounts

FSTAB = """
# /srv/comment none
tmpfs /srv/my\\040photos tmpfs noauto 0 0
UUID=2f1c / ext4 defaults 0 1
UUID=2f1d none swap sw 0 0
/dev/sdb /srv/my\\040photos/deeper ext4 defaults 0 2
proc /proc proc defaults 0 0
"""
MOUNTED = "proc /proc proc rw 0 0\n/dev/sdb /srv/my\\040photos/deeper ext4 rw 0 0\n"


@pytest.mark.parametrize(
    ("path", "point"),
    (
        ("/srv/my photos/upload", "/srv/my photos"),
        ("/srv/my photos", "/srv/my photos"),
        ("/srv/my photos of 2019", None),
        ("/srv/comment", None),
        ("/srv", None),
        ("/proc/sys", None),
    ),
)
def test_the_mount_point_above_a_path_is_named(path, point):
    assert mounts.missing_above(path, FSTAB, MOUNTED) == point


def test_the_deepest_mount_point_is_named_first():
    assert mounts.missing_above("/srv/my photos/deeper/upload", FSTAB, "") == "/srv/my photos/deeper"


def test_the_host_is_asked_and_links_are_followed(monkeypatch, tmp_path):
    for name, text in (("FSTAB", f"tmpfs {tmp_path}/disk tmpfs noauto 0 0\n"), ("MOUNTS", "proc /proc proc rw 0 0\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(mounts, name, str(tmp_path / name))
    (tmp_path / "link").symlink_to("disk/upload")
    assert mounts.missing(str(tmp_path / "link")) == f"{tmp_path}/disk"
    (tmp_path / "FSTAB").unlink()
    assert mounts.missing(str(tmp_path / "link")) is None


def test_names_in_another_encoding_hide_no_mount_point(monkeypatch, tmp_path):
    fstab = f"# Donn\u00e9es\ntmpfs {tmp_path}/disk tmpfs noauto 0 0\n"
    for name, text in (("FSTAB", fstab), ("MOUNTS", "x /m\u00e9 x\n")):
        (tmp_path / name).write_text(text, encoding="latin-1")
        monkeypatch.setattr(mounts, name, str(tmp_path / name))
    assert mounts.missing(f"{tmp_path}/disk/upload") == f"{tmp_path}/disk"
