"""One test host: a Debian machine booted with systemd-nspawn on an overlay of cached layers."""

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.host import cgroup, images
from tests.host.cache import run
from tests.host.lan import Lan

# Limits of what is waited for, in seconds: far beyond what a busy machine takes, for what would never come.
BOOT_SECONDS, END_SECONDS, WAIT_SECONDS, RUN_SECONDS = 300, 300, 120, 600
NETWORK_FILE = "[Match]\nName=host0\n[Network]\nAddress={address}/24\nGateway={gateway}\nLinkLocalAddressing=no\n"


class HostError(RuntimeError):
    """A command on a test host failed; the text is what it printed."""


def copy_containers(source, target):
    """Copy a /var/lib/containers without containers; the files of its images become hard links.

    Podman mounts the layers of images below those of containers, and never writes to their files.
    """
    containers = source / "storage/overlay-containers/containers.json"
    if containers.exists() and json.loads(containers.read_text(encoding="utf8")):
        raise ValueError(f"{source} has containers, whose layers are written to")
    run("cp", "-al", source, target)
    # All files but those: Podman does write to them.
    others = "find . -path './storage/overlay/*/diff' -prune -o -type f -print0"
    run("sh", "-c", f'{others} | xargs -0 cp -a --parents --remove-destination -t "$0"', target, cwd=source)


class Host:
    """A host called ``name`` on ``lan`` (a LAN of its own if none is given), over ``layers`` (top first).

    ``suite`` is the Debian release of the layers, a key of ``images.SUITES``.
    ``containers`` is a folder copied to /var/lib/containers. ``keep`` is a folder in which the host's own layer
    (``upper``) and ``containers`` are left, to be the layers of other hosts after a clean power-off. ``binds`` are more
    folders to show it read-only: pairs of outer and inner path.
    """

    def __init__(self, name, *, lan=None, suite=images.SUITE, layers=None, containers=None, keep=None, binds=()):
        self.name = name
        self._suite = suite
        self._binds = list(binds)
        self._own_lan = None if lan else Lan()
        self.lan = lan or self._own_lan
        self.address = self.lan.address()
        self.folder = self.lan.folder / name
        self.folder.mkdir()
        self._storage = keep or self.folder
        self.upper = self._storage / "upper"
        self.containers = self._storage / "containers"
        self.root = self.folder / "root"
        for folder in (self.upper, self.folder / "work", self.root):
            folder.mkdir()
        work = self.folder / "work"
        if keep:  # overlayfs wants upper and work on one file system
            work = self._storage / "work"
            work.mkdir()
        layers = layers or images.ready(suite)
        lower = ":".join(map(str, layers))
        run(
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir={lower},upperdir={self.upper},workdir={work}",
            self.root,
        )
        if containers:
            copy_containers(Path(containers), self.containers)
        else:
            self.containers.mkdir()
        self._write_identity()
        self._process = None
        self._calls = self._served = None
        # What `salt` shows on standard error, and what it showed there last.
        self.log_level, self.errors = "error", ""
        self.boot()

    def _write_identity(self):
        (self.root / "etc/hostname").write_text(f"{self.name}\n", encoding="ascii")
        hosts = f"127.0.0.1 localhost\n{self.address} {self.name}\n{self.lan_gateway} registry.test git.test\n"
        (self.root / "etc/hosts").write_text(hosts, encoding="ascii")
        # aardvark-dns refuses to start without one. Nothing answers there, as on a host that is offline.
        resolver = "nameserver 127.0.0.1\n"
        if self.lan.uplink:
            resolver = Path("/etc/resolv.conf").read_text(encoding="ascii")
        (self.root / "etc/resolv.conf").write_text(resolver, encoding="ascii")
        # A connection to a container that has just died would otherwise hang.
        (self.root / "root/.curlrc").write_text("max-time = 120\nconnect-timeout = 10\n", encoding="ascii")
        network = self.root / "etc/systemd/network/10-host0.network"
        network.parent.mkdir(parents=True, exist_ok=True)
        network.write_text(NETWORK_FILE.format(address=self.address, gateway=self.lan_gateway), encoding="ascii")

    @property
    def lan_gateway(self):
        return f"{self.address.rsplit('.', 1)[0]}.1"

    # -- life ----------------------------------------

    def boot(self):
        """Start the machine and wait until systemd has finished booting."""
        binds = [
            *images.package_binds(self._suite),
            *images.formula_binds(),
            *self._binds,
        ]
        machine = f"{self.lan.name}-{self.name}"
        command = [
            *self.lan.enter, *cgroup.enter(machine), "systemd-nspawn", "-q", "-D", self.root, "-M", machine, "--boot",
            "--register=no", "--keep-unit", "--console=pipe", "--capability=all", "--link-journal=no",
            "--system-call-filter=add_key keyctl bpf mount", "--network-bridge=br0",
            f"--bind={self.containers}:/var/lib/containers",
            *[f"--bind-ro={outer}:{inner}" for outer, inner in binds],
        ]  # fmt: skip
        with open(self.folder / "console.log", "ab") as console:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self.wait_booted()

    def wait_booted(self):
        """Wait until systemd has reached multi-user.target."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise HostError(f"{self.name} did not boot: {self.console()[-2000:]}")
            # A service that fails and is started again and again keeps the system "starting" for good.
            if self.pid and self.run("systemctl is-active multi-user.target", check=False).returncode == 0:
                return
            time.sleep(0.3)
        raise HostError(f"{self.name} did not finish booting in {BOOT_SECONDS} s: {self.console()[-2000:]}")

    @property
    def pid(self):
        """PID of the machine's PID 1, seen from outside; None if there is none at the moment."""
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="ascii")
        except OSError:
            return None
        if not children.split():
            return None
        pid = int(children.split()[0])
        try:
            # Before it boots the machine, nspawn's child is a process of this machine, and so would be what enters it.
            booting = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
        except OSError:
            return None
        return None if booting else pid

    def console(self):
        return (self.folder / "console.log").read_text(encoding="utf8", errors="replace")

    def reboot(self):
        """Reboot in the regular way and wait until the machine is back."""
        self.run("systemctl reboot", check=False)
        # With --keep-unit nspawn leaves the restart to whoever started it.
        self._process.wait(timeout=END_SECONDS)
        self.boot()

    def power_off(self):
        """Shut down in the regular way."""
        self.run("systemctl poweroff", check=False)
        self._process.wait(timeout=END_SECONDS)

    def crash(self):
        """Cut the power: every process dies at once."""
        if self._process.poll() is None:
            pid = self.pid
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(timeout=END_SECONDS)

    def close(self):
        self.crash()
        self._end_calls()
        run("umount", self.root)
        if self._own_lan:
            self._own_lan.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- work ----------------------------------------

    def command(self, script):
        """The argument list that runs a shell script on the host."""
        return [
            "nsenter", "-t", str(self.pid), "-a", "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "PODMAN_COMPOSE_WARNING_LOGS=false",
            "/bin/sh", "-c", f"cd /root; {script}",
        ]  # fmt: skip

    def run(self, script, check=True, timeout=RUN_SECONDS, stdin=None):
        """Run a shell script as root; return the completed process, text in stdout and stderr."""
        done = subprocess.run(
            self.command(script), capture_output=True, text=True, check=False, timeout=timeout, input=stdin
        )
        if check and done.returncode:
            raise HostError(
                f"{self.name}: {script}: exit {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
            )
        return done

    def out(self, script, **kwargs):
        """What a shell script prints, stripped."""
        return self.run(script, **kwargs).stdout.strip()

    def stream(self, script):
        """Run a shell script with this terminal's input and output; return its exit code."""
        return subprocess.run(self.command(script), check=False).returncode

    def write(self, path, text, mode="0644"):
        """Write a file on the host (through standard input: no argument list holds the text)."""
        self.run(f"mkdir -p $(dirname {path}) && umask 077 && cat >{path} && chmod {mode} {path}", stdin=text)

    def read(self, path):
        return self.run(f"cat {path}").stdout

    def pillar(self, pillar):
        """Make this the pillar's `immich` key."""
        self.write("/srv/pillar/top.sls", "base: {'*': [immich]}\n")
        self.write("/srv/pillar/immich.sls", "#!json\n" + json.dumps({"immich": pillar}), mode="0600")

    def salt(self, *arguments, check=True, timeout=600):
        """`salt-call --local ARGUMENTS` as parsed JSON of the local minion's return."""
        level = f"--log-level={self.log_level}"
        done = self.salt_call("--local", "--out=json", level, *arguments, check=False, timeout=timeout)
        self.errors = done.stderr
        try:
            answer = json.loads(done.stdout)["local"]
        except ValueError:
            raise HostError(f"{shlex.join(done.args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}") from None
        if check and not isinstance(answer, (dict, str, list, bool, int)):
            raise HostError(f"{shlex.join(done.args)}: {answer!r}")
        return answer

    def salt_call(self, *arguments, check=True, timeout=600):
        """`salt-call ARGUMENTS` as a completed process, with text in stdout and stderr.

        A Salt that was imported before makes the call, if the host's salt-call is one of a Python environment: see
        ``tests/host/salt_calls.py``. Where the program itself is the subject, run it: ``host.run("salt-call …")``.
        """
        words = ["salt-call", *map(str, arguments)]
        calls = self._salt_calls()
        if not calls:
            return self.run(shlex.join(words), check=check, timeout=timeout)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            read, write = os.pipe()
            with open(read, "rb", buffering=0) as result:
                try:
                    files = [output.fileno(), errors.fileno(), write]
                    socket.send_fds(calls, [json.dumps(words[1:]).encode()], files)
                except OSError:  # somebody has killed it
                    self._end_calls()
                    return self.salt_call(*arguments, check=check, timeout=timeout)
                finally:
                    os.close(write)
                if not select.select([result], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(words, timeout)
                code = int(result.read() or -signal.SIGKILL)
            for file in (output, errors):
                file.seek(0)
            done = subprocess.CompletedProcess(words, code, output.read().decode(), errors.read().decode())
        if check and code:
            raise HostError(
                f"{self.name}: {shlex.join(words)}: exit {code}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
            )
        return done

    def _salt_calls(self):
        """The socket of `salt_calls.py`, which runs since the first call; None where salt-call is another program.

        It is started anew after a reboot, and for another Salt: one with other libraries is another one.
        """
        program, calls = "/usr/local/bin/salt-call", "/srv/formula/tests/host/salt_calls.py"
        try:
            os.stat(f"/proc/{self.pid}/root{calls}")  # a test may hide the tree
            python = Path(os.readlink(f"/proc/{self.pid}/root{program}")).with_name("python3")
            (libraries,) = Path(f"/proc/{self.pid}/root{python.parents[1]}/lib").glob("python3*/site-packages")
        except (OSError, ValueError):
            return None
        served = (self.pid, python, libraries.stat().st_mtime_ns)
        if self._served != served:
            self._end_calls()
            self._served = served
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            room = f"ROOM_FOR_A_TITLE={'x' * 2000}"
            program = f"{python} -P {calls} {theirs.fileno()} {program}"
            # A process of the host's PID 1, which ends with the host as others do.
            command = self.command(f"{room} setsid {program} </dev/null >/dev/null 2>&1 &")
            with theirs:
                subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
            self._calls = ours
        return self._calls

    def _end_calls(self):
        if self._calls:
            self._calls.close()
            self._calls = self._served = None

    def apply(self, sls="immich", test=False, check=True, timeout=900):
        """`state.apply SLS` as a list of state returns in the order in which they ran, failing if a state failed."""
        answer = self.salt("state.apply", sls, *(["test=True"] if test else []), timeout=timeout)
        if not isinstance(answer, dict):
            if not check:
                return [{"result": False, "id": sls, "comment": "\n".join(map(str, answer)), "changes": {}}]
            raise HostError(f"state.apply {sls}: {answer}")
        # A state's own id stands in its tag: of a state that another one ran, `__id__` is the other's.
        states = [{**state, "id": tag.split("_|-")[1], "function": tag} for tag, state in answer.items()]
        states.sort(key=lambda state: state["__run_num__"])
        failed = [state for state in states if state["result"] is False]
        if check and failed:
            raise HostError(f"state.apply {sls}: " + json.dumps(failed, indent=1)[:8000])
        return states

    def wait_for(self, script, seconds=WAIT_SECONDS):
        """Wait until a shell script succeeds; return what it printed. A script that takes long is run less often.

        It is run once more after the time is up: this machine may have done nothing else for a while.
        """
        deadline = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            done = self.run(script, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
            if began > deadline:
                raise HostError(f"{self.name}: not within {seconds} s: {script}\n{done.stdout}\n{done.stderr}")
            time.sleep(min(1, max(0.2, 4 * (time.monotonic() - began))))
