"""What this machine needs to boot test hosts, and how it gets it."""

import os
import shutil
import sys

from tests.host.cache import run, step

# Program -> the Debian package it comes in.
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "nft": "nftables",
    "npm": "npm",
    "esbuild": "esbuild",
}


def obstacle():
    """Why this machine cannot boot a test host, or None."""
    if sys.platform != "linux":
        return "test hosts are Linux machines in systemd-nspawn, and this is not Linux"
    if os.geteuid() != 0:
        return "test hosts are booted by root (systemd-nspawn); you are not root: try sudo"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing and not shutil.which("apt-get"):
        return f"missing here, and there is no apt-get to install them: {', '.join(missing)}"
    return None


def install(programs=None):
    """Install the packages of the programs that this machine lacks. Needs root and apt."""
    desired = {**PROGRAMS, **(programs or {})}
    packages = sorted({package for name, package in desired.items() if not shutil.which(name)})
    if not packages:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {', '.join(packages)}"):
        run("apt-get", "-qq", "update", env=environment)
        run("apt-get", "-qq", "install", "--no-install-recommends", "-y", *packages, env=environment)
