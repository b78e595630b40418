"""
Immich's containers, as Podman has them
=======================================

Which there are, which differ from a compose file, and what is asked inside one.
"""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

from host_core import command, podman, terminal
from immich_core import compose
from immich_io import project

A_DAY = 86400
# Run in a container: each argument is a name and a port, and what it prints is how far one gets to them: the target,
# and unless it answers, the step that fails and why. A question to the DNS that was lost is asked again after one
# second, not after five: resolv.conf(5).
NAME, PORT = "name", "port"
REACH = """
export RES_OPTIONS="timeout:1 attempts:3"
for target; do
  host=${target%:*} port=${target##*:}
  if ! timeout 4 getent ahosts "$host" >/dev/null; then echo "$target name getaddrinfo ENOTFOUND $host"; continue; fi
  said=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "$port" 2>&1)
  case $? in 0) said= ;; 124) said=" port connect ETIMEDOUT" ;; *) said=" port ${said##*: }" ;; esac
  echo "$target$said"
done
"""
# What it prints at most, in bytes, and how long it may take for each of them, in seconds.
REACH_ANSWER, REACH_SECONDS = 8192, 5
# What of a container says which hardware it has.
HARDWARE = (
    '{"running": {{json .State.Running}}, "devices": {{json .HostConfig.Devices}}, '
    '"groups": {{json .HostConfig.GroupAdd}}, "arguments": {{json .Config.CreateCommand}}}'
)


def names(directory):
    """
    Return the names of all containers, running or not, of the compose project in a directory.

    directory
        The project's directory.

    Raises ``CommandError`` if Podman is there and does not answer.

    .. code-block:: python

        containers.names("/opt/podman/immich")
    """
    if not shutil.which("podman"):
        return []
    return [each["Names"][0] for each in project.containers(directory, podman.run)]


def remove(directory):
    """
    Stop and remove all containers of the compose project in a directory.

    directory
        The project's directory.

    Raises ``CommandError`` if one cannot be removed.

    .. code-block:: python

        containers.remove("/opt/podman/immich")
    """
    there = names(directory)
    if there:
        podman.remove(*there)


def compared(directory, text, known):
    """
    Return which containers are not as a compose file wants them: ``{"recreate": {service: why}, "remove": [name]}``.

    directory
        The project's directory.
    text
        The compose file to compare with.
    known
        The facts of the run (``run_facts``): it takes the images that were seen, and leaves the server's process.

    Raises ``CommandError`` if Podman does not answer, and ``project.ProjectError`` if the file is of others.

    .. code-block:: python

        containers.compared(directory, text, run_facts.of(__context__))
    """
    declared = project.Project(directory, text, podman.run)
    current = declared.containers()
    known.server_pid = current.get(compose.SERVER, {}).get("Pid")
    images, ids = known.take("images") or (None, None)
    if images != declared.image_names():
        ids = declared.image_ids()
    return declared.compared(current, ids)


def server_pid():
    """
    Return the process of the server's container, as text.

    Raises ``CommandError`` if there is no such container.

    .. code-block:: python

        containers.server_pid()
    """
    return podman.run("container", "inspect", "--format", "{{.State.Pid}}", compose.SERVER).strip()


def refusals_since():
    """
    Return since when what was refused to Immich counts, in seconds since the epoch: since its server was started, for
    a day at most.

    .. code-block:: python

        time.time() - containers.refusals_since()
    """
    a_day_ago = time.time() - A_DAY
    try:
        started = podman.run("container", "inspect", "--format", "{{.State.StartedAt.Unix}}", compose.SERVER)
        return max(a_day_ago, float(started))
    except (command.CommandError, ValueError):
        return a_day_ago


def reach(container, targets):
    """
    Return how far a container gets to each of some TCP ports, as ``{target: None}``, or ``{target: (step, reason)}``:
    ``NAME`` where the name is not found, else ``PORT``, and why.

    container
        Name of a running container. It needs bash and getent, which both images of Immich have.
    targets
        List of ``name:port``.

    Raises ``CommandError`` if there is no such container or it does not run, or what runs in it neither ends nor says
    so: an attacker in the container can stop it, and write into its answer.

    .. code-block:: python

        containers.reach("immich-server", ["host.containers.internal:5432"])
    """
    words, seconds = ("exec", container, "bash", "-c", REACH, "bash", *targets), REACH_SECONDS * (1 + len(targets))
    printed = podman.run(*words, seconds=seconds, size=REACH_ANSWER)
    lines = dict(line.partition(" ")[::2] for line in printed.split("\n"))
    return {target: _reached(lines.get(target, f"{PORT} its answer is not there")) for target in targets}


def _reached(answer):
    if not answer:
        return None
    step, _, reason = answer.partition(" ")
    if step not in (NAME, PORT):
        step, reason = PORT, answer
    return step, terminal.one_line(reason, 200)


def hardware(container):
    """
    Return what Podman says that a container has of this host's hardware: ``{"running": bool, "devices": [paths],
    "groups": [numbers as text], "arguments": [words that made it]}``.

    container
        Its name.

    Raises ``CommandError`` if there is no such container.

    .. code-block:: python

        containers.hardware("immich-server")["devices"]
    """
    found = json.loads(podman.run("container", "inspect", "--format", HARDWARE, container))
    return {
        "running": found["running"],
        "devices": [device["PathInContainer"] for device in found["devices"] or []],
        "groups": found["groups"] or [],
        "arguments": found["arguments"] or [],
    }


def tried(container, words, seconds, size):
    """
    Run a command in a container that may hang or print without end, and leave nothing of it there.

    Returns ``host_core.command.Ended``: both outputs in their order, and the exit code, or None where it was killed
    from outside. In the container `timeout` of coreutils ends it, with the code 124 or 137.

    container
        Name of a running container.
    words
        The command.
    seconds
        How long it has.
    size
        Bytes of output, at which it is killed.

    Raises ``CommandError`` if Podman is not installed.

    .. code-block:: python

        containers.tried("immich-server", ["ffmpeg", "-version"], 5, 65536)
    """
    bounded = ["timeout", "--kill-after=1", f"{seconds:.1f}", *words]
    asked = ["podman", "exec", container, *bounded]
    with command.startable(asked):
        # Podman takes a moment to begin, and to say what became of it.
        ended = command.read(asked, seconds + 2, size, merged=True)
    if ended.code is None:
        _end(container, bounded)
    return ended


def _end(container, words):
    """End what was started in a container with these words. Killing `podman exec` ends nothing there."""
    inside = podman.run("container", "inspect", "--format", "{{.State.Pid}}", container).strip()
    with contextlib.suppress(FileNotFoundError):  # the container has ended, and all with it
        namespace = os.stat(f"/proc/{inside}/ns/pid").st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                own = os.stat(process / "ns/pid").st_ino == namespace
                if own and (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1] == words:
                    _kill_group(int(process.name))


def _kill_group(number):
    """`timeout` leads a group of its own, in which what it has started is too."""
    if os.getpgid(number) == number:
        os.killpg(number, signal.SIGKILL)
    else:
        os.kill(number, signal.SIGKILL)
