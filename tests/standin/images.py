"""The stand-in images: what they are made of, and how a host with Podman builds and pushes them.

Two steps. The first needs the package registries, the second needs none:

1. ``context()`` on this machine, as root: a folder with everything that the images hold, made once.
2. ``build(run, context, registry)`` on a booted host with Podman, where that folder can be read. The
   registry's own storage folder is worth keeping afterwards: other hosts then need a registry that serves
   it, and no build.
"""

import os
import shlex
import shutil
from pathlib import Path

from tests.host.cache import built
from tests.host.cache import run as execute

HERE = Path(__file__).resolve().parent
PACKAGES = ["nodejs", "python3", "ca-certificates", "tzdata"]
PARTS = ("server", "machine-learning")
REPOSITORY = "immich-app/immich-{part}"

# Tag: what its images have in their environment. A tag plays the version it is called, unless told otherwise.
VERSIONS = {
    "v2.7.0": {},
    "v3.3.1": {},
    "v3.3.2": {},
    "v3.4.0": {},
    "v3": {"STANDIN_VERSION": "v3.4.0"},
    # Broken before they look at the database, and after they have migrated it.
    "v3.3.96": {"STANDIN_START_DELAY": "86400"},
    "v3.3.97": {"STANDIN_CRASH_AFTER": "0"},
    "v3.4.97": {"STANDIN_EXIT_AFTER_MIGRATIONS": "true"},
    "v3.4.98": {"STANDIN_NEVER_HEALTHY": "true"},
    "v3.3.98": {"STANDIN_NEVER_HEALTHY": "true"},
    "v3.3.99": {"STANDIN_CRASH_AFTER": "1"},
}

# Nobody reads these in a container that lives for one test.
REMOVED = [
    "var/lib/apt/*",
    "var/cache/*",
    "var/log/*",
    "usr/share/nodejs/corepack",
    "usr/share/perl5",
    "usr/share/bash-completion",
]


def npm_ci(folder):
    """Install the server's libraries, exactly as locked, with the npm of this machine."""
    # Optional packages are prebuilt binaries for speed, and no package gets to run a script of its own.
    execute("npm", "ci", "--omit=dev", "--omit=optional", "--ignore-scripts", "--no-audit", cwd=folder)


def bundle(folder, target):
    """Write the server with its libraries as one file: finding and reading 700 is half of its start."""
    # pg has these for other machines than a Node without extensions, and asks for them only there.
    foreign = [f"--external:{name}" for name in ("pg-cloudflare", "pg-native")]
    options = ["--bundle", "--platform=node", "--target=node20", "--log-level=error", *foreign]
    execute("esbuild", "server.js", *options, f"--outfile={target}", cwd=folder)


def context():
    """The cached folder that ``build`` needs."""
    ingredients = [
        HERE / "server",
        HERE / "machine_learning",
        HERE / "images.py",
        *sorted(HERE.glob("Containerfile.*")),
    ]
    return built("standin", ingredients, make_context)


def make_context(folder, npm_ci=npm_ci):
    """Make the folder that ``build`` needs.

    folder
        An empty folder.
    npm_ci
        Function that is called with a folder holding ``package.json`` and ``package-lock.json`` and installs
        what they name into its ``node_modules``. By default this machine's npm does it.

    ``MIRROR`` in the environment names the Debian mirror. A failing command raises ``RuntimeError`` with what
    it printed.
    """
    folder = Path(folder)
    for program in ("server", "machine_learning"):
        made_elsewhere = shutil.ignore_patterns("node_modules", "__pycache__")
        shutil.copytree(HERE / program, folder / program, ignore=made_elsewhere)
    for containerfile in HERE.glob("Containerfile.*"):
        shutil.copy(containerfile, folder)
    npm_ci(folder / "server")
    bundle(folder / "server", folder / "server.js")
    _root_file_system(folder / "base.tar")


def build(run, context, registry, versions=None):
    """Build both images for each tag and push them to a registry that speaks plain HTTP.

    run
        Function that runs a shell script on a host as root and raises if it fails: ``Host.run``.
    context
        Path, as the host sees it, of the folder that ``make_context`` made.
    registry
        ``HOST:PORT`` of the registry, as the host sees it.
    versions
        Tags and their extra environment, by default ``VERSIONS``. A later call may bring more tags.
    """
    versions = VERSIONS if versions is None else versions
    run(build_script(context, registry, versions), timeout=600)


def registries_conf(registry):
    """Text of a ``registries.conf.d`` file with which Podman takes ``ghcr.io`` images from this registry."""
    return f'[[registry]]\nprefix = "ghcr.io"\nlocation = "{registry}"\ninsecure = true\n'


def build_script(context, registry, versions):
    """The shell script that ``build`` runs."""
    lines = [
        f"set -eu; cd {shlex.quote(str(context))}",
        "podman image exists localhost/standin-base || podman import -q base.tar localhost/standin-base",
    ]
    lines += [f"podman build -q -f Containerfile.{part} -t localhost/standin-{part} ." for part in PARTS]
    for tag, environment in versions.items():
        lines += [_version_lines(part, tag, environment, registry) for part in PARTS]
    return "\n".join(lines)


def _version_lines(part, tag, environment, registry):
    image = f"{registry}/{REPOSITORY.format(part=part)}:{tag}"
    variables = {"STANDIN_VERSION": tag, **environment}
    options = " ".join(f"--env {shlex.quote(f'{name}={value}')}" for name, value in variables.items())
    return (
        f"podman build -q --no-cache -f Containerfile.version --build-arg PART={part} {options}"
        f" -t {image} .\n"
        # A layer is compressed once and then known to the registry: the time goes into the first push.
        f"podman push -q --tls-verify=false --compression-format gzip --compression-level 1 {image}"
    )


def _root_file_system(target):
    mirror = os.environ.get("MIRROR")
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")]
    removal = "; ".join(f'rm -rf "$1"/{pattern}' for pattern in REMOVED)
    execute(
        "mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", *excluded,
        f"--customize-hook={removal}", "trixie", target, *([mirror] if mirror else []),
    )  # fmt: skip
