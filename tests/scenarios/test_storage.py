"""What is on other disks, and what the containers get of the host by hand: one host, from deployment to removal."""

import json

import pytest

from tests.scenarios.conftest import changed, deployed, get, merged, pillar_with, post

SSD, INSIDE = "/mnt/ssd/thumbs", "/srv/immich/upload/thumbs"
CLEANED = {"clean": {"delete_uploads": "/srv/immich/upload", "delete_storage": [SSD]}}
MOVED = {"storage": {"thumbs": SSD}, "storage_moved_from": {"thumbs": INSIDE}}
ADDED = {
    "server": {
        "volumes": ["/usr/share/doc", {"path": "/srv/inbox", "mount": "/mnt/inbox", "read_only": False}],
        "hosts": {"login.home": "192.0.2.5"},
        "devices": ["/dev/ttyPLAY0"],
    }
}
# What the host has once its own address is known.
DECLARED = {}
# Answers every question with one address, as far as the question is about an address of IPv4.
DNS_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("{address}", 53))
while True:
    asked, client = server.recvfrom(512)
    end = asked.index(0, 12) + 5
    wanted = asked[end - 4 : end - 2] == b"\\0\\x01"
    answer = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x3c\\0\\x04\\xc0\\0\\x02\\x4d" if wanted else b""
    counts = b"\\0\\x01\\0" + bytes([wanted]) + b"\\0\\0\\0\\0"
    server.sendto(asked[:2] + b"\\x81\\x80" + counts + asked[12:end] + answer, client)
"""


@pytest.fixture(scope="module")
def host(first_run):
    with deployed(first_run) as host:
        host.run("mkdir -p /srv/disk /mnt/ssd && echo '/srv/disk /mnt/ssd none bind,nofail 0 0' >>/etc/fstab")
        host.run("systemctl daemon-reload && mount /mnt/ssd")
        post(host, "/standin/assets")
        yield host


def refused(host, *changes):
    """What the one red state of a plan and of an apply says. Neither changes anything, and Immich serves."""
    pillar = {}
    for change in changes:
        pillar = merged(pillar, change)
    host.pillar(pillar_with(**pillar))
    said = []
    for test in (True, False):
        states = host.apply(test=test, check=False)
        assert changed(states) == {}
        failed = next(state for state in states if state["result"] is False)
        said.append(failed["comment"])
    assert said[0] == said[1]
    assert get(host, "/api/server/ping") == {"res": "pong"}
    return said[0]


def rows(host, *parts):
    found = host.salt("immich.doctor", "timeout=60")
    return {row["part"]: (row["result"], row["seen"]) for row in found if row["part"] in parts}


def inside(host, command):
    return host.out(f"podman exec immich-server {command}")


def test_a_folder_is_refused_until_it_was_moved(host):
    words = refused(host, {"storage": {"thumbs": SSD}})
    assert f"the installation's folder thumbs is {INSIDE}, not {SSD}" in words
    assert f"immich:storage_moved_from:thumbs: {INSIDE}" in words
    words = refused(host, MOVED)
    assert f"{SSD} has no marker file .immich" in words
    assert host.run(f"test -e {SSD}", check=False).returncode != 0


def test_what_the_host_lacks_for_a_container_is_refused(host):
    words = refused(host, ADDED)
    assert "immich:server:volumes:1: /srv/inbox is not on this host" in words
    assert "immich:server:devices:0: /dev/ttyPLAY0 is not on this host" in words


def test_folder_volumes_names_and_devices_arrive(host):
    before = get(host, "/standin/state")
    host.run("install -d -o 60883 -g 60883 /srv/inbox && groupadd --system play")
    host.run("mknod -m 660 /dev/ttyPLAY0 c 1 5 && chgrp play /dev/ttyPLAY0")
    host.run(f"systemctl stop immich && cp -a {INSIDE} {SSD} && systemctl start immich", timeout=300)
    host.write("/run/test/dns.py", DNS_SERVER.format(address=host.address))
    host.run("systemd-run --quiet --unit=play-dns python3 /run/test/dns.py")
    DECLARED.update(merged(merged(MOVED, ADDED), {"server": {"dns": [host.address]}, "postgres": {"tuning": "ssd"}}))
    host.pillar(pillar_with(**DECLARED))
    planned, done = changed(host.apply(test=True)), changed(host.apply())
    assert set(planned) == set(done)
    assert done["The installation is recorded"] == {"storage": {"old": None, "new": {"thumbs": SSD}}}
    assert changed(host.apply()) == {}
    # Its files are those on the other disk, where it writes from now on.
    assert get(host, "/standin/state") == before
    assert inside(host, "stat -c %i /data/thumbs") == host.out(f"stat -c %i {SSD}")
    assert inside(host, "sh -c 'cat /data/thumbs/.immich'") == host.read(f"{SSD}/.immich").strip()
    mounts = host.out("systemctl show --property RequiresMountsFor --value immich").split()
    assert {SSD, "/usr/share/doc", "/srv/inbox"} <= set(mounts)
    # What is read-only cannot be written, what is not can, and devices are opened by their group.
    inside(host, "sh -c 'touch /mnt/inbox/a'")
    assert host.out("stat -c %u /srv/inbox/a") == "60883"
    assert "Read-only" in host.run("podman exec immich-server touch /usr/share/doc/a", check=False).stderr
    inside(host, "sh -c ': <>/dev/ttyPLAY0'")
    assert "192.0.2.5" in inside(host, "getent hosts login.home")
    assert "192.0.2.77" in inside(host, "getent ahostsv4 anything.example.org")
    assert "172.20." in inside(host, "getent ahostsv4 immich-machine-learning")
    shown = "runuser -u postgres -- psql -qAtXc 'SHOW {}'"
    assert (host.out(shown.format("random_page_cost")), host.out(shown.format("max_wal_size"))) == ("1.2", "5GB")
    found = rows(host, "uploads", "database")
    assert {result for result, _ in found.values()} == {"ok"}, found


def test_a_backup_of_the_library_has_the_folder(host):
    post(host, "/api/auth/admin-sign-up", {"email": "ana@example.org", "name": "Ana", "password": "a password of Ana"})
    library = {"repository": "/srv/repository", "password": "a password of the repository"}
    host.pillar(pillar_with(**merged(DECLARED, {"backup": {"library": library}})))
    host.apply("immich.backup")
    host.run(f"echo seen >{SSD}/seen.webp && chown 60883:60883 {SSD}/seen.webp")
    made = host.salt("immich.backup")
    host.run(f"rm {SSD}/seen.webp")
    assert host.salt("immich.restore", made["name"], "confirm=host")["library"]["snapshot"]
    assert host.out(f"cat {SSD}/seen.webp; stat -c %u {SSD}/seen.webp").split() == ["seen", "60883"]
    host.pillar(pillar_with(**DECLARED))
    host.apply("immich.backup")


def test_the_doctor_says_where_postgresql_was_tuned_otherwise(host):
    psql = "runuser -u postgres -- psql -qXc"
    host.run(f"""{psql} "ALTER SYSTEM SET random_page_cost = 4" -c 'SELECT pg_reload_conf()'""")
    result, seen = rows(host, "database")["database"]
    assert (result, "does not run with random_page_cost 1.2" in seen) == ("failed", True)
    assert set(changed(host.apply("immich.postgres"))) == {"PostgreSQL is set up for Immich"}


def test_a_disk_that_is_gone_stops_an_apply_and_nothing_is_written_in_its_place(host):
    host.run("systemctl stop immich && umount /mnt/ssd", timeout=300)
    states = host.apply(check=False)
    assert changed(states) == {}
    words = "".join(state["comment"] for state in states if state["result"] is False)
    assert f"{SSD} was this installation's folder thumbs and is gone: is a mount missing?" in words
    assert host.out("ls -A /mnt/ssd") == ""
    found = host.salt("immich.doctor", "timeout=60")
    assert "mount /mnt/ssd" in [row["remedy"] for row in found if row["part"] == "mounts"]
    # At its start the unit mounts what it needs.
    host.run("systemctl start immich", timeout=300)
    assert host.out("findmnt -no TARGET /mnt/ssd") == "/mnt/ssd"
    assert changed(host.apply()) == {}


def test_a_folder_goes_back(host):
    host.run(f"systemctl stop immich && rm -r {INSIDE} && cp -a {SSD} {INSIDE} && systemctl start immich", timeout=300)
    host.pillar(pillar_with())
    words = "".join(state["comment"] for state in host.apply(check=False) if state["result"] is False)
    assert f"immich:storage_moved_from:thumbs: {SSD}" in words
    host.pillar(pillar_with(storage_moved_from={"thumbs": SSD}))
    done = changed(host.apply())
    assert done["The installation is recorded"] == {"storage": {"old": {"thumbs": SSD}, "new": None}}
    assert "random_page_cost" in done["PostgreSQL is set up for Immich"]
    assert changed(host.apply()) == {}
    assert "storage" not in json.loads(host.read("/var/lib/immich-formula/installation.json"))["parts"]


def test_removal_deletes_a_folder_where_it_is_named(host):
    host.run(f"systemctl stop immich && rm -r {SSD} && cp -a {INSIDE} {SSD}", timeout=300)
    host.pillar(pillar_with(**merged(merged(MOVED, CLEANED), {"postgres": {"tuning": "hdd"}})))
    host.apply()
    host.run("test -e /var/lib/immich-formula/postgres-tuning.json")
    host.apply("immich.clean")
    for path in (SSD, "/srv/immich/upload", "/var/lib/immich-formula/postgres-tuning.json"):
        assert host.run(f"test -e {path}", check=False).returncode != 0, path
    assert host.out("runuser -u postgres -- psql -qAtXc 'SHOW max_wal_size'") == "1GB"
    host.run("mountpoint -q /mnt/ssd")
