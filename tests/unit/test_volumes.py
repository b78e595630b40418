"""Volumes of the containers that a host does not have."""

from immich_core.obstacles import volumes


def test_a_volume_that_is_not_there_or_not_mounted_is_named_with_its_place():
    listed = [{"path": path, "mount": path, "read_only": True} for path in ("/srv/a", "/mnt/nas/b", "/srv/c")]
    settings = {
        "server": {"volumes": listed},
        "machine_learning": {"enabled": False, "volumes": [{"path": "/srv/none", "mount": "/x", "read_only": True}]},
    }

    def missing(path):
        return "/mnt/nas" if path.startswith("/mnt/nas") else None

    found = volumes.obstacles(settings, missing, lambda path: path == "/srv/a")
    assert [(each["path"], each["seen"], each["remedy"]) for each in found] == [
        ("immich:server:volumes:1", "/mnt/nas is in /etc/fstab and is not mounted", "mount /mnt/nas"),
        ("immich:server:volumes:2", "/srv/c is not on this host", "create it, or name another"),
    ]
