"""What the service and its states are told, and what is read from the host."""

import json
from pathlib import Path


def test_without_a_user_root_owns_them_by_name(modules, settings):
    """Salt's file states take `user: 0` for nothing said: a file of another owner stayed unreadable."""
    assert modules.immich_app.unit(settings)["owner"]["server"] == {"user": "root", "group": "root"}


def test_mounts_of_the_unit_are_quoted(modules, settings):
    unit = modules.immich_app.unit({**settings, "upload_location": "/srv/my photos 100%"})
    assert unit["mounts"] == ['"/srv/my photos 100%%"']


def test_a_mount_of_fstab_that_is_missing_is_found(modules):
    fstab = Path("/etc/fstab")
    before = fstab.read_text(encoding="utf8") if fstab.exists() else None
    fstab.write_text("# /srv/comment none\ntmpfs /srv/my\\040photos tmpfs noauto 0 0\nproc /proc proc defaults 0 0\n")
    try:
        assert modules.immich_app.mount_missing("/srv/my photos/upload") == "/srv/my photos"
        assert modules.immich_app.mount_missing("/srv/my photos") == "/srv/my photos"
        assert modules.immich_app.mount_missing("/srv/my photos of 2019") is None
        assert modules.immich_app.mount_missing("/proc/sys") is None
    finally:
        fstab.unlink() if before is None else fstab.write_text(before)


def sockets(*pairs):
    return [{"address": address, "port": port} for address, port in pairs]


def test_a_wider_socket_than_asked_for_is_told(modules, settings):
    narrow = {**settings, "bind_address": "127.0.0.1"}
    wider = modules.immich_app.listens_wider
    assert wider(narrow, sockets(("127.0.0.1", 2283), ("0.0.0.0", 22))) == []
    assert "every address" in wider(narrow, sockets(("0.0.0.0", 2283)))[0]
    assert wider(settings, sockets(("0.0.0.0", 2283))) == []


def test_a_managed_service_on_every_address_is_told(modules, settings):
    everywhere = modules.immich_app.listens_everywhere
    assert everywhere(settings, sockets(("127.0.0.1", 6379), ("10.88.0.1", 6379), ("0.0.0.0", 22))) == []
    assert "Valkey" in everywhere(settings, sockets(("::", 6379)))[0]
    elsewhere = {**settings, "valkey": {**settings["valkey"], "managed": False}}
    assert everywhere(elsewhere, sockets(("::", 6379))) == []


def test_settings_given_as_json_on_the_command_line_work(modules, settings):
    assert modules.immich_app.unit(json.loads(json.dumps(settings))) == modules.immich_app.unit(settings)
