"""The house burns down: photos and database come back from another house, to the last byte and row."""

import hashlib
import json

import pytest

from tests.host import images
from tests.host.machine import Host, HostError
from tests.host.registry import use_registry
from tests.scenarios.conftest import PRINTABLE, deployed, get, merged, pillar_with, post

pytestmark = pytest.mark.long

UPLOADS = "/srv/immich/upload"
PICTURES = "/srv/pictures"
PSQL = "runuser -u postgres -- psql -qAtX immich"
ADMIN = {"email": "ana@example.org", "name": "Ana", "password": "a password of Ana"}
PASSWORD = PRINTABLE[7:].strip() + PRINTABLE[1:7]
UNIT = "immich-library-backup"
# What an original, a row of Immich's and the owner of a file are, in one text.
FILES = (
    f"cd {UPLOADS} && find . {PICTURES} -type f ! -name .immich -printf '%p %s %U:%G %m\\n' -exec sha1sum {{}} + | sort"
)
ROWS = f"""{PSQL} -c 'select "originalPath", checksum, id from asset order by 1; select email, password from "user"' """
# Connections to the neighbour, with what is on its way to each.
SSH = "ss -Htn state established '( dport = 22 )'"
# restic reads a file of this size for as long as the bandwidth says.
SLOW = {"bandwidth": 100}
BIG = 1_500_000


class Nas:
    """A neighbour who keeps the repository, and lets the formula in by its key."""

    def __init__(self, host):
        self.host = host
        host.run("apt-get -qq install --no-install-recommends openssh-server >/dev/null", timeout=300)
        # A disk that can be filled.
        host.run("mkdir /srv/repo && mount -t tmpfs -o size=48m tmpfs /srv/repo")
        host.run("useradd --create-home backup2 && install -d -o backup2 -m 700 /srv/repo ~backup2/.ssh")
        host.run("ssh-keygen -q -t ed25519 -N '' -f /root/key && cp /root/key.pub ~backup2/.ssh/authorized_keys")
        host.run("mkdir -p /run/sshd && systemctl restart ssh")
        self.key = host.read("/root/key")
        kind, key = host.read("/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
        self.known_hosts = f"{host.address} {kind} {key}\n"

    def s3(self):
        keys = {"AWS_ACCESS_KEY_ID": "photos", "AWS_SECRET_ACCESS_KEY": {"file": "/root/s3-key"}}
        repository = f"s3:http://{self.host.address}:9000/photos"
        return {"repository": repository, "password": PASSWORD, "environment": keys}

    def library(self, **more):
        return {
            "repository": f"sftp:backup2@{self.host.address}:/srv/repo/immich",
            "password": PASSWORD,
            "ssh_key": self.key,
            "ssh_known_hosts": self.known_hosts,
            **more,
        }


@pytest.fixture(scope="module")
def host(first_run):
    with deployed(first_run) as host:
        yield host


@pytest.fixture(scope="module")
def nas(host):
    with Host("nas", lan=host.lan, layers=images.with_s3()) as nas:
        yield Nas(nas)


def declare(host, library, **more):
    hook = 'echo "$IMMICH_BACKUP_ERROR" >>/root/failures'
    host.pillar(merged(pillar_with(backup={"on_failure": hook, "library": library}), more))


def refusal(host, *words):
    with pytest.raises(HostError) as raised:
        host.salt(*words)
    return str(raised.value)


def ended(host):
    host.wait_for(f"! systemctl is-active {UNIT} | grep -q activating", 300)


def failures(host, text):
    host.wait_for(f"grep -q -- '{text}' /root/failures", 300)
    host.run("rm /root/failures")


def in_the_middle(host):
    """A run that uploads a large file slowly, and what is missing of the one before."""
    host.run(f"cd {UPLOADS}/upload && {{ test ! -e big.bin || mv big.bin before.bin; }}")
    host.run(f"file={UPLOADS}/upload/big.bin; head -c {BIG} /dev/urandom >$file; chown immich-server: $file")
    host.run(f"systemctl start --no-block {UNIT}")
    host.wait_for(f"grep -q '\"backing up\"' /run/{UNIT}/status.json")
    host.wait_for("pgrep -x restic")


def lines(host, script):
    return set(host.out(script).splitlines())


def drill(host, *words):
    return host.salt("immich.restore_drill", *words)


def test_nothing_is_backed_up_before_anybody_has_signed_up(host, nas):
    declare(host, nas.library())
    host.apply("immich.backup")
    made = host.salt("immich.backup")
    assert "no users" in made["library"]["skipped"]
    assert host.salt("immich.backups")[0]["library"] is None


def test_a_snapshot_has_both_halves_and_nobody_sees_a_secret(host, nas):
    post(host, "/api/auth/admin-sign-up", ADMIN)
    for _ in range(5):
        post(host, "/standin/assets")
    made = host.salt("immich.backup")
    assert made["library"]["dump"] == made["name"]
    newest = host.salt("immich.backups")[0]
    assert newest["name"] == made["name"]
    assert newest["library"]["snapshot"] == made["library"]["snapshot"]
    assert newest["library"]["files"] >= 7
    exposure = json.loads(host.out(f"systemd-analyze security --json=short {UNIT}.service"))
    assert sum(float(each["exposure"] or 0) for each in exposure) < 3
    assert host.out("stat -c '%a %U' /etc/immich-formula/library-backup.password").split() == ["600", "root"]
    seen = host.out(f"journalctl -u {UNIT} -o cat; systemctl show {UNIT}; ls -la /run/{UNIT}; cat /run/{UNIT}/*")
    assert PASSWORD[:20] not in seen
    assert not [state for state in host.apply("immich.backup", test=True) if state["changes"]]


def test_a_rehearsal_finds_a_photo_that_is_not_what_was_uploaded_or_is_gone(host):
    answer = drill(host)
    assert answer["library"]["compared"] == answer["library"]["files"] == 5
    assert answer["library"]["missing"] == answer["library"]["changed"] == []
    first, second = host.out(f"ls {UPLOADS}/upload/*.jpg | head -n 2").split()
    host.run(f"cp -a {first} {second} /root/; printf x | dd of={first} bs=1 seek=7 conv=notrunc; rm {second}")
    host.run(f"echo {{}} >{UPLOADS}/upload/unknown.jpg")
    host.salt("immich.backup")
    for words in ((), ("full=True",)):
        said = refusal(host, "immich.restore_drill", *words)
        assert f"1 originals are not what was uploaded, by their SHA-1: upload/{first.rpartition('/')[2]}" in said
        assert f"lacks 1 originals that Immich has: upload/{second.rpartition('/')[2]}" in said
    # Deleted by Immich between the dump and the snapshot: that is no loss.
    host.run(f"cp -a /root/*.jpg {UPLOADS}/upload/; rm {UPLOADS}/upload/unknown.jpg")
    host.run(
        f'rm {second}; {PSQL} -c "delete from asset where \\"originalPath\\" like \'%{second.rpartition("/")[2]}\'"'
    )
    made = host.salt("immich.backup")
    assert drill(host, "full=True")["library"]["missing"] == []
    assert made["library"]["snapshot"]


def test_a_run_that_is_killed_or_cut_is_completed_by_the_next(host, nas):
    declare(host, nas.library(**SLOW))
    host.apply("immich.backup")
    in_the_middle(host)
    host.run(f"systemctl kill --kill-whom=all --signal=KILL {UNIT}")
    ended(host)
    failures(host, "was killed")
    assert [row["result"] for row in host.salt("immich.doctor", check=False) if row["part"] == "library backup"] != [
        "ok"
    ]
    in_the_middle(host)
    host.run(f"systemctl stop {UNIT}")
    failures(host, "it was stopped")
    in_the_middle(host)
    host.crash()
    host.boot()
    host.wait_for("systemctl is-active immich", 300)
    # A network that comes back: restic goes on where it was.
    in_the_middle(host)
    nas.host.run("ip link set host0 down")
    host.wait_for(f"{SSH} | awk '$2 > 0 {{ lost = 1 }} END {{ exit !lost }}'")
    nas.host.run("ip link set host0 up")
    ended(host)
    assert host.out(f"systemctl show -P Result {UNIT}") == "success"
    # A server that ends.
    in_the_middle(host)
    nas.host.run("pkill -KILL -u backup2")
    failures(host, "restic backup")
    # A disk without room.
    in_the_middle(host)
    nas.host.run("head -c 100M /dev/zero >/srv/repo/full", check=False)
    failures(host, "no space left")
    nas.host.run("rm /srv/repo/full")
    declare(host, nas.library())
    host.apply("immich.backup")
    made = host.salt("immich.backup")
    assert made["library"]["files"] == int(host.out(f"find {UPLOADS} -type f | wc -l")) + 2
    assert drill(host)["library"]["missing"] == []


def test_another_host_or_repository_is_not_taken_for_the_own(host, nas):
    nas.host.run("mv /srv/repo/immich /srv/repo/elsewhere")
    assert "is gone" in refusal(host, "immich.backup")
    nas.host.run("mv /srv/repo/elsewhere /srv/repo/immich")
    other = nas.known_hosts.replace("AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAJ")
    declare(host, nas.library(ssh_known_hosts=other))
    host.apply("immich.backup")
    assert "restic" in refusal(host, "immich.backup")
    declare(host, nas.library())
    host.apply("immich.backup")
    host.run("rm -f /root/failures")


def test_the_house_burns_down(host, nas):
    external = {"external_libraries": [PICTURES]}
    host.run(f"install -d -o nobody {PICTURES} && date >{PICTURES}/a.jpg && chown nobody {PICTURES}/a.jpg")
    # Immich stores the SHA-1 of an external file's path: services/library.service.ts, v2.7.2.
    checksum = hashlib.sha1(f"path:{PICTURES}/a.jpg".encode()).hexdigest()
    row = f"'{PICTURES}/a.jpg', 'a.jpg', '\\x{checksum}'"
    host.run(PSQL, stdin=f'INSERT INTO asset ("originalPath", "originalFileName", checksum) VALUES ({row})')
    declare(host, nas.library(external_libraries=True), **external)
    host.apply("immich.backup")
    made = host.salt("immich.backup")
    files, rows = lines(host, FILES), lines(host, ROWS)
    host.crash()
    with Host("new", lan=host.lan) as new:
        use_registry(new)
        declare(new, nas.library(external_libraries=True), **external)
        new.run(f"mkdir {PICTURES}")
        new.apply()
        # It fails loudly until somebody has restored: an empty Immich is not the newest snapshot.
        assert "the database has no users" in refusal(new, "immich.backup")
        listed = next(each for each in new.salt("immich.backups") if each["name"] == made["name"])
        assert listed["path"] is None
        assert listed["library"]["snapshot"] == made["library"]["snapshot"]
        would = new.salt("immich.restore", made["name"], "test=True")["would"]
        assert would[0].startswith("restore the library of snapshot")
        assert new.out("ls /var/backups/immich/*v3.3.1_immich.dump", check=False) == ""
        # While files are restored and Immich serves: the power is cut, all is killed, the network is lost.
        restore = f"salt-call --local immich.restore {made['name']} confirm=host"
        new.run(f"setsid {restore} >/root/first 2>&1 &")
        new.wait_for(f"ls {UPLOADS}/upload/*.jpg")
        new.crash()
        new.boot()
        new.wait_for("systemctl is-active immich", 120)
        new.run(f"{restore} >/root/first 2>&1 &")
        new.wait_for("systemctl is-active immich-library-read")
        new.run("pkill -9 salt-call; systemctl kill --signal=KILL immich-library-read", check=False)
        new.run(f"{{ {restore}; echo $? >/root/code; }} >/root/second 2>&1 &")
        new.run("""until pkill -KILL -P "$(pgrep -of '[r]estic .* (restore|ls) ')" ssh; do :; done""")
        new.wait_for("test -s /root/code", 300)
        assert (new.read("/root/code"), "restic" in new.read("/root/second")) == ("1\n", True)
        assert get(new, "/api/server/ping") == {"res": "pong"}
        answer = new.salt("immich.restore", made["name"], "confirm=host")
        assert answer["library"]["snapshot"] == made["library"]["snapshot"]
        assert lines(new, FILES) ^ files == set()
        assert lines(new, ROWS) ^ rows == set()
        state = get(new, "/standin/state")
        assert state["storage"]["intact_assets"] == state["database"]["counts"]["assets"] - 1  # the external one
        assert not [each for each in new.apply() if each["result"] is False]
        found = drill(new)["library"]
        assert (found["changed"], found["external"]) == ([], {"files": 1, "missing": []})
        again = new.salt("immich.backup")
        assert again["library"]["files"] == made["library"]["files"]
        the_same_from_s3(new, nas)
        removed(new, nas)


def the_same_from_s3(host, nas):
    """All files and rows are lost, and come back from a server of another kind."""
    nas.host.run("systemd-run --quiet --unit=s3 python3 -m moto.server -H 0.0.0.0 -p 9000")
    declare(host, nas.s3())
    host.write("/root/s3-key", "s3cret of the bucket\n", mode="0600")
    host.apply("immich.backup")
    nas.host.wait_for("curl -s http://127.0.0.1:9000/moto-api/")
    made = host.salt("immich.backup")
    files, rows = lines(host, FILES), lines(host, ROWS)
    host.run(f"""find {UPLOADS} -type f ! -name .immich -delete; {PSQL} -c 'delete from asset; delete from "user"'""")
    host.salt("immich.restore", made["library"]["snapshot"], "confirm=host")
    assert lines(host, FILES) ^ files == set()
    assert lines(host, ROWS) ^ rows == set()


def removed(host, nas):
    """The unit and its secrets go with the setting; the repository never does."""
    host.pillar(pillar_with())
    host.apply("immich.backup")
    assert host.run(f"systemctl cat {UNIT}", check=False).returncode != 0
    assert host.out("ls /etc/immich-formula | grep library", check=False) == ""
    assert nas.host.out("ls /srv/repo/immich/config")
