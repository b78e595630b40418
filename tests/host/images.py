"""The root file systems, the local apt repository and the wheelhouse of the test hosts."""

import inspect
import os
import shutil
from pathlib import Path

from tests.host.cache import REPO, built, run

# curl is for the tests alone: they look through it.
BARE_PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "iproute2", "procps", "ca-certificates", "tzdata",
    "curl",
]  # fmt: skip
# What the formula installs, and what the tests need beside it.
MORE_PACKAGES = [
    "podman", "podman-compose", "netavark", "aardvark-dns", "crun", "nftables", "postgresql", "postgresql-17-pgvector",
    "valkey-server", "valkey-tools", "redis-server", "docker-registry", "gnupg",
]  # fmt: skip
# In the local repository only: what the bootstrap installs for a Salt that runs on the distribution's Python.
LIBRARY_PACKAGES = ["python3-redis", "python3-psycopg2", "python3-jsonschema"]
SALT = ["salt~=3008.0", "pip"]
FORMULA_WHEELS = ["redis", "psycopg2-binary", "jsonschema"]
TEST_WHEELS = ["pytest", "pytest-salt-factories", "hypothesis"]
# For the benchmarks alone: what they compare with, in a venv of its own.
ANSIBLE = ["ansible", "psycopg2-binary"]

MINION = """\
file_client: local
file_roots: {base: [/srv/salt, /srv/formula]}
pillar_roots: {base: [/srv/pillar]}
id: host
"""
CONTAINERS = "[containers]\npids_limit = 0\n"


def mmdebstrap(target, packages, suite="trixie"):
    """Make a root file system; MIRROR in the environment overrides mmdebstrap's own default."""
    mirror = os.environ.get("MIRROR")
    run(
        "mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*", suite, target, *([mirror] if mirror else []),
    )  # fmt: skip


def chroot(root, script, binds=()):
    """Run a shell script in a root file system, with this machine's network and its CA bundle and pip settings."""
    pip = [f"--setenv={name}={value}" for name, value in os.environ.items() if name.startswith("PIP_CERT")]
    bundle = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    return run(
        "systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--as-pid2", "--console=pipe",
        "--resolv-conf=copy-host", f"--bind-ro={bundle}:/etc/ssl/certs/ca-certificates.crt",
        *[f"--bind={outer}:{inner}" for outer, inner in binds], *pip, "--setenv=DEBIAN_FRONTEND=noninteractive",
        "/bin/sh", "-euc", script,
    )  # fmt: skip


def _debian(target):
    mmdebstrap(target / "root", BARE_PACKAGES)


def debian():
    """Debian 13 with systemd and Python, and Debian's own package sources."""
    return built("debian", [BARE_PACKAGES], _debian) / "root"


def _packages(target):
    scratch = target / "scratch"
    run("cp", "-a", "--reflink=auto", debian(), scratch)
    debs = " ".join(MORE_PACKAGES + LIBRARY_PACKAGES)
    (target / "apt").mkdir()
    (target / "wheels").mkdir()
    chroot(
        scratch,
        f"""
        apt-get -qq update
        apt-get -qq install --download-only --no-install-recommends {debs} >/dev/null
        mv /var/cache/apt/archives/*.deb /out/apt/
        apt-get -qq install --no-install-recommends gcc libc6-dev python3-dev apt-utils >/dev/null
        cd /out/apt && apt-ftparchive packages . >Packages
        python3 -m venv /tmp/venv
        /tmp/venv/bin/pip -q wheel -w /out/wheels {" ".join(f"'{x}'" for x in SALT + FORMULA_WHEELS + TEST_WHEELS)}
        """,
        binds=[(target, "/out")],
    )
    shutil.rmtree(scratch)


def packages():
    """A folder with ``apt`` (a local repository of Debian packages) and ``wheels`` (a wheelhouse)."""
    return built(
        "packages", [BARE_PACKAGES, MORE_PACKAGES, LIBRARY_PACKAGES, SALT, FORMULA_WHEELS, TEST_WHEELS], _packages
    )


def _bare(target):
    root = target / "root"
    run("cp", "-a", "--reflink=auto", debian(), root)
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/apt ./\n", encoding="ascii")
    for extra in (root / "etc/apt/sources.list.d").glob("*"):
        extra.unlink()
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n", encoding="ascii")
    (root / "etc/salt").mkdir()
    (root / "etc/salt/minion").write_text(MINION, encoding="ascii")
    (root / "etc/containers/containers.conf.d").mkdir(parents=True)
    # The outer machine may hold the cgroup controllers as v1, where crun finds no `pids` controller.
    (root / "etc/containers/containers.conf.d/10-test-host.conf").write_text(CONTAINERS, encoding="ascii")
    for folder in ("apt", "wheels", "formula", "salt", "pillar", "registry"):
        (root / "srv" / folder).mkdir()
    chroot(
        root,
        """
        python3 -m venv /opt/salt
        /opt/salt/bin/pip -q install salt pip
        ln -s /opt/salt/bin/salt-call /usr/local/bin/salt-call
        systemctl enable systemd-networkd >/dev/null 2>&1
        systemctl mask systemd-networkd-wait-online.service systemd-modules-load.service apt-daily.timer \
            apt-daily-upgrade.timer >/dev/null 2>&1
        apt-get -qq update
        rm -f /etc/machine-id /etc/resolv.conf
        touch /etc/machine-id
        """,
        binds=[(packages() / "apt", "/srv/apt"), (packages() / "wheels", "/srv/wheels")],
    )


def bare():
    """Lower layers of a host that has only systemd, Python and Salt."""
    ingredients = [packages().name, MINION, CONTAINERS, inspect.getsource(_bare)]
    return [built("bare", ingredients, _bare) / "root"]


def _ready(target):
    from tests.host.machine import Host  # a host is needed to make the next layer of hosts

    with Host("builder", layers=bare(), keep=target) as host:
        host.run(f"apt-get -qq install --no-install-recommends {' '.join(MORE_PACKAGES)} >/dev/null", timeout=600)
        host.run("systemctl disable --now redis-server docker-registry")
        host.run(f"/opt/salt/bin/pip -q install {' '.join(FORMULA_WHEELS + TEST_WHEELS)}", timeout=600)
        host.power_off()


def ready():
    """Lower layers of a host that has all packages and Python libraries too, its services in Debian's own state."""
    below = bare()
    return [built("ready", [below[0].parent.name, MORE_PACKAGES], _ready) / "upper", *below]


def _ansible(target):
    root, upper, work = (target / name for name in ("root", "upper", "work"))
    for folder in (root, upper, work):
        folder.mkdir()
    lower = ":".join(map(str, bare()))
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", root)
    try:
        chroot(
            root,
            f"""
            export PIP_CONFIG_FILE=/dev/null
            python3 -m venv /opt/ansible
            /opt/ansible/bin/pip -q install {" ".join(ANSIBLE)}
            ln -s /opt/ansible/bin/ansible-playbook /usr/local/bin/ansible-playbook
            rm -rf /root/.cache /etc/resolv.conf
            """,
        )
    finally:
        run("umount", root)


def with_ansible():
    """Lower layers of a host that has Ansible with its community collections beside everything of `ready`."""
    ingredients = [bare()[0].parent.name, ANSIBLE, inspect.getsource(_ansible)]
    return [built("ansible", ingredients, _ansible) / "upper", *ready()]


def formula_binds():
    """Bind arguments that show this repository, without its caches, read-only at /srv/formula."""
    hidden = {".cache", ".git", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [(path, f"/srv/formula/{path.name}") for path in sorted(REPO.iterdir()) if path.name not in hidden]
