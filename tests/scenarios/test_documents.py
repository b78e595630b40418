"""What the README and docs/ tell a person to do is done, page by page and in the order of each page.

A new page, or a new block on an old one, is run without more ado, and fails here if it does not work. docs/modules is
apart: tests/functional/test_docs_examples.py applies its states.
"""

import pytest
import yaml

from tests.host import images
from tests.host.cache import REPO, run
from tests.host.machine import Host
from tests.host.registry import use_registry
from tests.scenarios.conftest import GRAPHICS_CARD, LEARNING, deployed, get, post
from tests.scenarios.reader import Reader, shelf, stock

pytestmark = pytest.mark.long

PAGES = sorted(
    str(path.relative_to(REPO))
    for path in [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").rglob("*.md")]
    if path.parent != REPO / "docs/modules"
)
# These begin where Immich is nowhere, all others where it serves, one after the other. Of the first the host has only
# systemd and Python, of the second Salt and all packages too.
ON_A_FRESH_HOST = {"docs/tutorial.md": images.bare, "README.md docs/howto/install.md": images.ready}
LAST = ["docs/howto/remove.md"]
# Followed by a test of its own, here or in another file.
APART = [
    "docs/howto/hardware.md",
    "docs/howto/https.md",
    "docs/howto/identity.md",
    "docs/howto/master.md",
    "docs/howto/metrics.md",
    "docs/howto/reverse-proxy.md",
    "docs/howto/storage.md",
]
EXAMPLES = ["docs/howto/configure.md", "docs/howto/managed-elsewhere.md"]


def git_server(folder):
    """A bare repository with what stands in this one, also what is not committed, with its release's tag."""
    repository = folder / "git/immich-formula.git"
    release = "v" + yaml.safe_load((REPO / "FORMULA").read_text(encoding="utf8"))["version"]
    run("git", "init", "-q", "--bare", "-b", "main", repository)
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    state = run("git", "-C", REPO, *identity, "stash", "create").strip() or "HEAD"
    run("git", "-C", REPO, "push", "-q", repository, f"{state}:refs/heads/main", f"{state}:refs/tags/{release}")
    return folder / "git"


def pictures(host):
    host.run("mkdir -p /mnt/pictures /home/ana/Pictures && touch /mnt/pictures/a.jpg")


# The containers of the official compose file, played by this host's own PostgreSQL, as no Docker runs here. When the
# old database is stopped, the host's becomes the new one, which has nothing of it.
DOCKER = """#!/bin/sh
case "$1 $2" in
  "exec immich_postgres") shift 2; exec runuser -u postgres -- "$@" ;;
  "stop immich_postgres") exec runuser -u postgres -- psql -qd immich -c 'TRUNCATE asset CASCADE' ;;
esac
"""


def official_compose(host):
    post(host, "/standin/assets")
    host.write("/usr/local/bin/docker", DOCKER, mode="0755")


def own_settings(host):
    for name in ("oauth-secret", "smtp-password"):
        host.write(f"/root/{name}", f"{name} of a page\n")
    host.run("cp /etc/ssl/certs/ISRG_Root_X1.pem /etc/ssl/home-ca.pem")


def authority(host):
    for name in ("db-ca", "cache-ca"):
        host.run(f"cp /etc/ssl/certs/ISRG_Root_X1.pem /etc/ssl/{name}.pem")


def kept_database(host):
    host.run("runuser -u postgres -- createdb immich_kept_20261124T203500Z")


def used(host):
    post(host, "/api/auth/admin-sign-up", {"email": "ana@example.org", "name": "Ana", "password": "a password of Ana"})
    post(host, "/standin/assets")


BEFORE = {
    "docs/howto/accounts.md": pictures,
    "docs/howto/external-libraries.md": pictures,
    "docs/howto/from-compose.md": official_compose,
    "docs/howto/library-backup.md": used,
    "docs/howto/managed-elsewhere.md": authority,
    "docs/howto/restore.md": kept_database,
    "docs/howto/settings.md": own_settings,
}


# -- what is there after a page ----------------------------------------


def libraries_are_read_only(host):
    assert host.out("podman exec immich-server ls /mnt/pictures") == "a.jpg"
    assert "Read-only" in host.run("podman exec immich-server touch /mnt/ana/b", check=False).stderr


def database_came_along(host):
    assert get(host, "/standin/state")["storage"]["intact_assets"] > 0


def settings_are_used(host):
    assert get(host, "/api/server/config")["externalDomain"] == "https://photos.example.org"


def nothing_is_left(host):
    assert host.run("systemctl cat immich", check=False).returncode != 0
    assert host.run("podman container exists immich-server", check=False).returncode != 0


def sign_up_is_closed(host):
    assert "IMMICH_ALLOW_SETUP" in host.read("/opt/podman/immich/docker-compose.yml")
    assert get(host, "/api/server/config")["isInitialized"] is True


AFTER = {
    "docs/howto/accounts.md": sign_up_is_closed,
    "docs/howto/external-libraries.md": libraries_are_read_only,
    "docs/howto/from-compose.md": database_came_along,
    "docs/howto/remove.md": nothing_is_left,
    "docs/howto/settings.md": settings_are_used,
}


@pytest.mark.parametrize("pages", ON_A_FRESH_HOST)
def test_pages_on_a_fresh_host(lan, pages):
    binds = [*shelf(), (git_server(lan.folder), "/srv/git")]
    with Host("host", lan=lan, layers=ON_A_FRESH_HOST[pages](), binds=binds) as host:
        use_registry(host)
        stock(host)
        host.write("/root/.gitconfig", '[url "file:///srv/git/"]\n  insteadOf = https://git.example.com/\n')
        host.write("/root/photo.jpg", "no photo, which the stand-in does not mind\n")
        if pages == "docs/tutorial.md":
            host.run("rm /usr/local/bin/salt-call")
        reader = Reader(host)
        for page in pages.split():
            reader.follow(page)
        assert get(host, "/api/server/ping") == {"res": "pong"}


@pytest.fixture(scope="module")
def reader(first_run):
    with deployed(first_run, binds=shelf()) as host:
        stock(host)
        yield Reader(host, EXAMPLES)


def in_order():
    apart = [*LAST, *APART, *" ".join(ON_A_FRESH_HOST).split()]
    return [page for page in PAGES if page not in apart] + LAST


@pytest.mark.parametrize("page", in_order())
def test_page(reader, page):
    if page in BEFORE:
        BEFORE[page](reader.host)
    try:
        reader.follow(page)
        if page in AFTER:
            AFTER[page](reader.host)
    finally:
        if page not in LAST:
            reader.close_the_page()


def test_library_on_a_share(own_host):
    host = own_host
    # The machine serves no NFS: another folder is the share.
    for share, point in (("/srv/nas", "/mnt/photos"), ("/srv/disk", "/mnt/ssd")):
        host.run(f"mkdir -p {share} {point} && echo '{share} {point} none bind,nofail 0 0' >>/etc/fstab")
    host.run("systemctl daemon-reload")
    before = post(host, "/standin/assets") and get(host, "/standin/state")
    Reader(host).follow("docs/howto/storage.md")
    assert get(host, "/standin/state") == before
    assert "/mnt/photos/immich" in host.read("/opt/podman/immich/docker-compose.yml")
    mounts = host.out("systemctl show --property RequiresMountsFor --value immich").split()
    assert {"/mnt/photos/immich", "/mnt/ssd/immich-thumbs"} <= set(mounts)


def test_hardware_of_this_host_and_of_another(own_host):
    own_host.run(GRAPHICS_CARD)
    with Host("gpu", lan=own_host.lan) as gpu:
        use_registry(gpu)
        gpu.run(f"podman run -d -p 3003:3003 {LEARNING}", timeout=300)
        own_host.run(f"echo '{gpu.address} gpu.example.org' >>/etc/hosts")
        Reader(own_host).follow("docs/howto/hardware.md")
        own_host.wait_for("curl -sf http://127.0.0.1:2283/standin/ml | grep -q pong")  # it is given two seconds
        answer = get(own_host, "/standin/ml")
        assert (answer["url"], answer["answer"]) == ("http://gpu.example.org:3003", "pong"), answer
        assert own_host.run("podman container exists immich-machine-learning", check=False).returncode != 0
