"""What would be downloaded: how much it is, and whether it can be had at all. apt and the registry are asked."""

import contextlib
import json
import os
import platform
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from installer import NOTHING_DONE, DeployError

ARCHIVES = Path("/var/cache/apt/archives")
DPKG_LOG = Path("/var/log/dpkg.log")
LISTS = Path("/var/lib/apt/lists")
DAY = 24 * 3600
APT_HELPER = "/usr/lib/apt/apt-helper"
QUICK = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15"]
# apt-get --print-uris, a line: 'address' file size hash
URI = re.compile(r"^'([^']+)' (\S+) (\d+) (\S*)$", re.MULTILINE)
NO_PGVECTOR = 'Debian 12 needs another repository for pgvector, see docs/versions.md, "Systems and services".\n'
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


# -- packages ----------------------------------------


def refresh():
    """Let apt know what its mirrors have, if that is older than a day."""
    ages = [time.time() - path.stat().st_mtime for path in [LISTS, *LISTS.glob("*_Packages*")] if path.exists()]
    if not list(LISTS.glob("*_Packages*")) or min(ages) > DAY:
        _apt("apt-get", "-qq", "update", *QUICK)


def packages(names):
    """What apt would download for packages: a list of ``(address, bytes)``. Raises DeployError if it has not one."""
    if not names:
        return []
    done = _apt("apt-get", "-qq", "install", "-y", "--print-uris", *names)
    if done.returncode:
        error = _last_error(done)
        hint = NO_PGVECTOR if "Unable to locate package" in error and "pgvector" in error else ""
        raise DeployError(f"apt cannot install what is needed: {error}\n{hint}{NOTHING_DONE}")
    return [(address, int(size)) for address, _, size, _ in URI.findall(done.stdout)]


def have_mirrors(found):
    """Raise DeployError unless apt can fetch the smallest of these, as it fetches everything: with its proxies."""
    if not found:
        return
    address, _ = min(found, key=lambda each: each[1])
    with tempfile.TemporaryDirectory() as folder:
        done = _apt(APT_HELPER, *QUICK, "download-file", address, f"{folder}/package")
    if done.returncode:
        raise DeployError(
            f"The packages cannot be downloaded: {_last_error(done)}\nIs this machine online, and do its files in "
            f"/etc/apt name mirrors that answer? {NOTHING_DONE}"
        )


def apt_progress(total):
    """A function that says how far apt is, where it has `total` bytes to download."""
    before = _downloaded()
    begin = time.time()

    def progress():
        done = _downloaded() - before
        if total and done < total and max(begin, _last_download()) > _changed(DPKG_LOG):
            return f"{size(max(done, 0))} of {size(total)} downloaded"
        return _dpkg_line()

    return progress


def _downloaded():
    total = 0
    for path in [*ARCHIVES.glob("*.deb"), *ARCHIVES.glob("partial/*")]:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _last_download():
    # apt gives a package that has come its time on the mirror: the folder that it was moved to tells when that was.
    return max(map(_changed, [ARCHIVES, ARCHIVES / "partial", *ARCHIVES.glob("partial/*")]))


def _changed(path):
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0


def _dpkg_line():
    """What dpkg does now, from the end of its log: ``2026-11-27 04:36:16 status unpacked podman:amd64 5.4.2``."""
    with contextlib.suppress(OSError), open(DPKG_LOG, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
        for line in reversed(log.read().decode(errors="replace").splitlines()):
            words = line.split()
            if len(words) > 3 and words[2] in ("install", "configure", "trigproc"):
                return f"{'unpacking' if words[2] == 'install' else 'setting up'} {words[3].partition(':')[0]}"
    return ""


def _apt(*command):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _last_error(done):
    errors = [line[2:].strip() for line in done.stderr.splitlines() if line.startswith(("E:", "Err:"))]
    return errors[0] if errors else f"exit {done.returncode} of {done.args[0]}"


# -- images ----------------------------------------


def images(references):
    """Bytes of each image as it is downloaded, by reference; ``None`` where the registry does not say.

    Raises DeployError where the registry cannot be reached or does not have the image.
    """
    return {reference: _image(reference) for reference in references}


def _image(reference):
    registry, _, rest = reference.partition("/")
    name, _, digest = rest.partition("@")
    repository, _, tag = name.rpartition(":") if ":" in name else (name, "", "latest")
    base = _registry(registry)
    try:
        return _size(_Registry(f"{base}/v2/{repository}"), digest or tag)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise DeployError(f"{registry} has no image {reference}: check immich:version. {NOTHING_DONE}") from error
        return None  # it is there, and says no to this look: Podman may have a login
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "reason", error)
        raise DeployError(
            f"The images cannot be downloaded: {registry} does not answer ({reason}). Is this machine online?\n"
            f"{NOTHING_DONE}"
        ) from error


def _registry(name):
    """Where Podman takes a registry's images from: itself, or what a file in registries.conf.d puts in its place."""
    with contextlib.suppress(ImportError):
        import tomllib  # from Python 3.11 on

        for path in sorted(Path("/etc/containers/registries.conf.d").glob("*.conf"), reverse=True):
            with contextlib.suppress(OSError, ValueError):
                for entry in tomllib.loads(path.read_text(encoding="utf8")).get("registry", []):
                    if entry.get("prefix", entry.get("location")) == name:
                        instead = next(iter(entry.get("mirror", [])), entry)
                        scheme = "http" if instead.get("insecure") else "https"
                        return f"{scheme}://{instead.get('location', name)}"
    return f"https://{'registry-1.docker.io' if name == 'docker.io' else name}"


class _Registry:
    """A repository of images, asked as the OCI Distribution Specification has it."""

    def __init__(self, address):
        self.address, self._token = address, None

    def manifest(self, what):
        try:
            return self._get(f"{self.address}/manifests/{what}")
        except urllib.error.HTTPError as error:
            challenge = dict(re.findall(r'(\w+)="([^"]*)"', error.headers.get("WWW-Authenticate", "")))
            if error.code != 401 or not challenge.get("realm", "").startswith("https://"):
                raise
            query = "&".join(f"{key}={challenge[key]}" for key in ("service", "scope") if key in challenge)
            self._token = self._get(f"{challenge['realm']}?{query}")["token"]
            return self._get(f"{self.address}/manifests/{what}")

    def _get(self, address):
        headers = {"Accept": MANIFESTS}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=15) as answer:
            return json.loads(answer.read(4 * 1024**2))


def _size(registry, what):
    manifest = registry.manifest(what)
    if "manifests" in manifest:
        machine = MACHINES.get(platform.machine(), platform.machine())
        digests = {each.get("platform", {}).get("architecture"): each["digest"] for each in manifest["manifests"]}
        if machine not in digests:
            raise DeployError(f"{registry.address} has no image for this machine ({machine}). {NOTHING_DONE}")
        manifest = registry.manifest(digests[machine])
    return sum(layer["size"] for layer in manifest["layers"])


def size(number):
    """Bytes as a person reads them."""
    for unit, factor in (("GB", 1000**3), ("MB", 1000**2)):
        if number >= factor:
            value = number / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{number / 1000:.0f} kB"
