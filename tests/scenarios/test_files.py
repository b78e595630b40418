"""Every file that an apply has written, by owner and mode, found by comparing the whole host before and after."""

import json
import re
import shlex

import pytest

from tests.scenarios.conftest import PASSWORDS, pillar_with

pytestmark = pytest.mark.long

# Of each path that appears or changes: type and mode, owner. The first that matches counts.
EXPECTED = (
    # What holds a secret, or may.
    ("/opt/podman/immich/secrets", "d700 root:root"),
    ("/opt/podman/immich/secrets/(db|redis)_password", "f400 immich-server:immich-server"),
    ("/etc/immich-formula/valkey.password", "f600 root:root"),
    ("/etc/immich-formula/backup-on-failure", "f700 root:root"),
    ("/etc/valkey/(users.acl|valkey.conf)", "f640 valkey:valkey"),
    ("/etc/postgresql/17/main/pg_hba.conf", "f640 postgres:postgres"),
    ("/var/backups/immich", "d700 postgres:root"),
    ("/var/backups/immich/[^/]+", "f600 postgres:postgres"),
    # Photos.
    ("/srv/immich", "d755 root:root"),
    ("/srv/immich/upload", "d750 immich-server:immich-server"),
    ("/srv/immich/upload/[a-z-]+", "d755 immich-server:immich-server"),
    ("/srv/immich/upload/[a-z-]+/.immich", "f644 immich-server:immich-server"),
    ("/srv/immich/model-cache", "d750 immich-ml:immich-ml"),
    # The users of the containers, and what useradd keeps of before.
    ("/etc/(passwd|group)-?", "f644 root:root"),
    ("/etc/g?shadow-?", "f640 root:shadow"),
    ("/etc/.pwd.lock", "f600 root:root"),
    # What anybody may read and root alone may write.
    ("/etc/(immich-formula|systemd/system/(nftables|postgresql@17-main|valkey-server).service.d)", "d755 root:root"),
    ("/etc/systemd/system/[^/]+.service.d/immich-(gateway|stop).conf", "f644 root:root"),
    ("/etc/systemd/system/immich[a-z-]*.(service|timer)", "f644 root:root"),
    ("/etc/systemd/system/[a-z-]+.target.wants/immich[a-z-]*.(service|timer)", "l777 root:root"),
    ("/etc/(immich-formula/backup.json|immich-gateway.nft|tmpfiles.d/immich-formula.conf)", "f644 root:root"),
    ("/etc/containers/containers.conf.d/50-immich.conf", "f644 root:root"),
    ("/etc/containers/networks", "d755 root:root"),
    ("/etc/containers/networks/(immich|podman).json", "f644 root:root"),
    ("/etc/containers/networks/netavark.lock", "f644 root:root"),
    ("/opt/podman(/immich)?", "d755 root:root"),
    ("/opt/podman/immich/docker-compose.yml", "f644 root:root"),
    ("/usr/local/lib/immich-formula(/((host|immich|pgsql)_core|immich_io))?", "d755 root:root"),
    ("/usr/local/lib/immich-formula/immich-(stack|backup)", "f755 root:root"),
    ("/usr/local/lib/immich-formula/((host|immich|pgsql)_core|immich_io)/[a-z_]+.py", "f644 root:root"),
    ("/var/lib/immich-formula", "d700 root:root"),
    ("/var/lib/immich-formula/((installation|valkey).json|podman|postgres)", "f600 root:root"),
    # What is gone with the next boot.
    ("/run/immich-backup", "d755 postgres:postgres"),
    ("/run/immich-backup/status.json", "f600 postgres:postgres"),
    ("/run/immich-formula", "d755 root:root"),
    ("/run/immich-formula/lock", "f600 postgres:root"),
    ("/run/immich-gateway", "d755 root:root"),
    ("/run/immich-gateway/(rules.nft|table)", "f600 root:root"),
    ("/run/immich-stack.lock", "f600 root:root"),
)
# What systemd, Podman, PostgreSQL, Valkey and Salt write for themselves, by their own rules. It is searched for
# secrets all the same.
OTHERS = re.compile(
    "/run/(containers|crun|libpod|netns|postgresql|valkey|systemd|udev|log|dbus|lock|user)(/.*)?|"
    "/run/(podman|utmp|nologin|initctl|xtables.lock)(/.*)?|"
    "/var/(lib/(containers|postgresql|valkey|systemd)|log|cache|tmp)(/.*)?|/(tmp|root)(/.*)?|"
    "/etc/(resolv.conf|machine-id|salt/pki(/.*)?)"
)
SECRETS = {**PASSWORDS, "in a hook": "token-of-the-hook"}


def listing(host):
    """Every path on the host: type and mode, owner, time of the last change."""
    skipped = " -o ".join(f"-path {path}" for path in ("/proc", "/sys", "/dev", "/srv/formula", "/srv/pillar"))
    found = host.out(
        rf"find / /run -xdev \( {skipped} \) -prune -o -printf '%p\t%y%m %u:%g\t%C@\n' | sort -u", timeout=300
    )
    return {path: (rights, at) for path, rights, at in (line.split("\t") for line in found.splitlines())}


def expectation(path):
    return next((rights for pattern, rights in EXPECTED if re.fullmatch(pattern.replace(".", r"\."), path)), None)


def test_owner_and_mode_of_every_file(ready_host):
    host = ready_host
    hook = {"on_failure": f"exec logger {SECRETS['in a hook']}", "restore_drill": "Sat 04:00"}
    host.pillar(pillar_with(backup=hook))
    before = listing(host)
    host.apply()
    host.salt("immich.backup")
    after = listing(host)
    # A directory changes when something appears in it; what counts of it are its own rights.
    written = {
        path: rights
        for path, (rights, at) in after.items()
        if path not in before or before[path][0] != rights or (rights[0] != "d" and before[path][1] != at)
    }
    own = {path: rights for path, rights in written.items() if not OTHERS.fullmatch(path)}
    assert own == {path: expectation(path) for path in own}
    # Each line of the expectation was met, or it expects nothing.
    seen = {pattern for pattern, _ in EXPECTED for path in own if re.fullmatch(pattern.replace(".", r"\."), path)}
    assert {pattern for pattern, _ in EXPECTED} - seen <= {"/etc/containers/networks/netavark.lock", "/etc/.pwd.lock"}

    readable = [path for path, rights in written.items() if rights[0] == "f" and int(rights.split()[0][-1]) & 4]
    assert len(readable) > 50
    secrets = {**SECRETS, "own": host.out("cat /etc/immich-formula/valkey.password")}
    pieces = {piece for secret in secrets.values() for piece in (secret, json.dumps(secret)[1:-1], secret[20:40])}
    host.write("/root/pieces", "".join(f"{piece}\n" for piece in pieces if piece), mode="0600")
    host.write("/root/readable", "".join(f"{path}\n" for path in readable), mode="0600")
    grep = "xargs -d '\\n' grep -lF -f /root/pieces -- </root/readable"
    assert host.run(grep, check=False).stdout == ""
    # The search finds what is there to be found.
    host.write("/root/readable", "/opt/podman/immich/secrets/db_password\n/etc/immich-formula/backup-on-failure\n")
    assert len(host.out(grep).splitlines()) == len(shlex.split(host.read("/root/readable")))
