"""Which Salt this machine has, or a new one in a place of its own, and how it knows formula and pillar."""

import os
import re
import secrets
import subprocess
from pathlib import Path

from host_core import durable
from installer import DeployError
from installer.formula import CURRENT, OPT

HOME = Path("/etc/immich-formula")
PILLAR = HOME / "pillar/immich.sls"
VENV = OPT / "salt"
WRAPPER = Path("/usr/local/bin/salt-call")
MINION = Path("/etc/salt")
DROP_IN = MINION / "minion.d/immich-formula.conf"
MARK = "# Written by bin/deploy of immich-formula."
COMPILERS = ["gcc", "libc6-dev", "python3-dev"]
ROOTS = f"""{MARK}
file_client: local
file_roots: {{base: ["{CURRENT}"]}}
pillar_roots: {{base: ["{PILLAR.parent}"]}}
"""
# A pip that finds nothing would try for a minute and more.
PIP = ["-q", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]


class Salt:
    """A ``salt-call`` and how it is configured.

    ``kind``: ``own`` (installed here, with a configuration of its own), ``machine's`` (a distribution's, which a file
    in minion.d makes know the formula), ``configured`` (knows the formula by what its administrator wrote).
    """

    def __init__(self, kind, program):
        self.kind, self.program = kind, program

    @property
    def installed(self):
        return os.access(self.program, os.X_OK)

    @property
    def pillar(self):
        """The pillar's file, where it is this program's to write."""
        return None if self.kind == "configured" else PILLAR

    def command(self, formula=None):
        """Argument list of salt-call. With ``formula``, of one that knows that folder as the formula."""
        command = [str(self.program), "--local"]
        if self.kind == "own":
            command += ["-c", str(HOME / "salt")]
        if formula and self.kind != "configured":
            command += [f"--file-root={formula}", f"--pillar-root={PILLAR.parent}"]
        return command


def find(path=None):
    """The Salt to use. Raises DeployError where a master or other files of this machine's Salt would be in the way."""
    program = _machines_own(path or os.environ.get("PATH", ""))
    if not program:
        return Salt("own", VENV / "bin/salt-call")
    declared = declarations(MINION)
    if (MINION / "pki/minion/minion_master.pub").exists() or (
        "master" in declared and declared.get("file_client") != "local"
    ):
        raise DeployError(
            "Salt on this machine is a minion of a master. Deploy from there: docs/howto/master.md\n"
            "Nothing was changed."
        )
    kind = "configured" if {"file_roots", "pillar_roots"} & declared.keys() else "machine's"
    return Salt(kind, program)


def _machines_own(path):
    for folder in path.split(os.pathsep):
        program = Path(folder) / "salt-call"
        if os.access(program, os.X_OK) and not is_ours(program):
            return program
    return None


def is_ours(path):
    """Whether a file was written by this program."""
    try:
        return MARK in path.read_text(encoding="utf8", errors="replace")[:500]
    except OSError:
        return False


def declarations(folder):
    """What a minion's configuration sets, by key, without what this program wrote. Values that span lines are empty."""
    found = {}
    for path in [folder / "minion", *sorted((folder / "minion.d").glob("*.conf"))]:
        if path.is_file() and not is_ours(path):
            text = path.read_text(encoding="utf8", errors="replace")
            found.update(re.findall(r"^(\w+):[ \t]*([^#\n]*?)[ \t]*(?:#.*)?$", text, re.MULTILINE))
    return found


def install(screen):
    """Make a virtual environment with Salt in it."""
    with screen.step(f"Installing Salt into {VENV} (about 60 MB from PyPI)"):
        if subprocess.run(["python3", "-c", "import ensurepip"], capture_output=True, check=False).returncode:
            apt_install(["python3-venv"])
        _run(["python3", "-m", "venv", str(VENV)])
        pip = [str(VENV / "bin/pip"), "install", *PIP, "salt~=3008.0", "pip"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode and re.search(r"[Ff]ail\w* (to )?build|error: command", done.stderr):
            # One of Salt's libraries is compiled where there is no wheel of it for this Python.
            apt_install(COMPILERS)
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DeployError(
                f"Salt cannot be downloaded from PyPI: {_reason(done)}\n"
                "Does this machine reach https://pypi.org? Only /opt/immich-formula and packages for Salt were changed."
            )


def apt_install(packages):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "-qq", "update"], env=environment)
    _run(["apt-get", "-qq", "install", "-y", *packages], env=environment)


def _run(command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    if done.returncode:
        raise DeployError(f"{' '.join(command)}: {_reason(done)}")


def _reason(done):
    errors = [line for line in done.stderr.splitlines() if re.match(r"E:|ERROR:|error:", line.strip())]
    return (errors or (done.stderr or done.stdout).splitlines() or ["no reason given"])[-1].strip()


def write_own_configuration():
    """The configuration of the Salt that is installed here. Nothing else reads it."""
    _write(
        HOME / "salt/minion",
        f"{ROOTS}cachedir: /var/cache/immich-formula\nlog_file: /var/log/immich-formula.log\n",
    )


def on_the_path(salt):
    """Let ``salt-call``, typed as it stands in the documents, know formula and pillar. Return the file that does."""
    if salt.kind == "configured":
        return None
    if salt.kind == "machine's":
        _write(DROP_IN, ROOTS)
        if is_ours(WRAPPER):
            WRAPPER.unlink()
        return DROP_IN
    if WRAPPER.exists() and not is_ours(WRAPPER):
        raise DeployError(
            f"{WRAPPER} is there and was not written by bin/deploy: move it away, then type bin/deploy again"
        )
    _write(WRAPPER, f'#!/bin/sh\n{MARK}\nexec {VENV}/bin/salt-call -c {HOME}/salt "$@"\n', 0o755)
    return WRAPPER


def write_pillar():
    """Write a pillar with generated passwords unless there is one; return whether it was written."""
    for folder in (PILLAR.parent, HOME / "salt"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    _write(PILLAR.parent / "top.sls", "base: {'*': [immich]}\n")
    if PILLAR.exists():
        return False
    zone = os.path.realpath("/etc/localtime").partition("/usr/share/zoneinfo/")[2]
    password, valkey, administrator = (secrets.token_urlsafe(24) for _ in range(3))
    _write(
        PILLAR,
        f"""\
immich:
  timezone: {zone or "Etc/UTC"}
  upload_location: /srv/immich/upload
  postgres:
    password: {password}
  valkey:
    password: {valkey}
    admin_password: {administrator}
""",
        0o600,
    )
    return True


def _write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write(path, text, mode)
