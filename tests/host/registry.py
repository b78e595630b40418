"""The registry of images on a LAN, and the stand-in images it serves (built once, kept as the registry's storage)."""

import subprocess
import time

from tests.host import images
from tests.host.cache import built, run
from tests.host.lan import Lan
from tests.host.machine import Host
from tests.standin import images as standin

PORT = 5000
ADDRESS = f"registry.test:{PORT}"
CONFIG = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: /srv/registry}}}}\nhttp: {{addr: ':{PORT}'}}\n"


class Registry:
    """Debian's docker-registry on the LAN's own address (``registry.test`` for its hosts), serving ``storage``."""

    def __init__(self, lan, storage):
        self.lan = lan
        self.storage = storage
        self.folder = lan.folder / "registry"
        self.folder.mkdir()
        self.root = self.folder / "root"
        self.root.mkdir()
        (self.folder / "config.yml").write_text(CONFIG, encoding="ascii")
        lower = ":".join(map(str, images.ready()))
        run("mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", self.root)
        self._process = None
        self.start()

    def start(self):
        """Serve, and wait until it answers."""
        command = [
            *self.lan.enter, "systemd-nspawn", "-q", "-D", self.root, "-M", f"{self.lan.name}-registry", "--read-only",
            "--register=no", "--keep-unit", "--as-pid2", "--console=pipe", "--resolv-conf=off", "--timezone=off",
            f"--network-namespace-path=/run/netns/{self.lan.name}", f"--bind={self.storage}:/srv/registry",
            f"--bind-ro={self.folder}/config.yml:/etc/docker/registry/config.yml",
            "docker-registry", "serve", "/etc/docker/registry/config.yml",
        ]  # fmt: skip
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait(0)

    def stop(self):
        """Be gone: connections to the address are refused."""
        self._process.terminate()
        self._process.wait(timeout=120)
        self._wait(1)

    def _wait(self, exit_code):
        """Wait until a connection succeeds (0) or is refused (1)."""
        probe = [*self.lan.enter, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"]
        for _ in range(2400):
            if subprocess.run(probe, capture_output=True, check=False).returncode == exit_code:
                return
            time.sleep(0.05)
        raise RuntimeError(f"the registry did not {'stop' if exit_code else 'start'}: see {self.folder}/log")


def _storage(target):
    context = standin.context()
    storage = target / "storage"
    storage.mkdir()
    with Lan() as lan:
        Registry(lan, storage)
        with Host("builder", lan=lan, binds=[(context, "/srv/context")]) as host:
            standin.build(host.run, "/srv/context", ADDRESS)


def stored():
    """The registry's storage with all stand-in images."""
    ingredients = [standin.context().name, images.packages().name, CONFIG]
    return built("registry", ingredients, _storage) / "storage"


def use_registry(host):
    """Let a host take the images of ghcr.io from the registry of its LAN."""
    host.write("/etc/containers/registries.conf.d/stand-in.conf", standin.registries_conf(ADDRESS))
