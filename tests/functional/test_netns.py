"""`netns` from the network of a container of Podman, whose name server is aardvark-dns."""

import subprocess
import sys
import time

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404)
        self.end_headers()
        self.wfile.write(b"pong")
http.server.HTTPServer(("", 3003), Handler).serve_forever()
"""
URL = "http://t-server:3003/ping"


def podman(*arguments):
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def start(name, *command):
    """Start a container with the host's own files on the network of these tests; return its PID and its address."""
    podman("run", "--detach", "--name", name, "--network", "t-netns", "--rootfs", "/:O", *command)
    told = podman(
        "inspect", "--format", '{{.State.Pid}} {{(index .NetworkSettings.Networks "t-netns").IPAddress}}', name
    )
    pid, address = told.split()
    return int(pid), address


@pytest.fixture(scope="module")
def neighbours():
    """PID of a container, and the address of another one, t-server, that answers HTTP on port 3003."""
    podman("network", "create", "t-netns")
    _, address = start("t-server", sys.executable, "-c", SERVER)
    pid, _ = start("t-asker", "sleep", "1000")
    yield pid, address
    podman("rm", "--force", "--time=0", "t-server", "t-asker")
    podman("network", "rm", "--force", "t-netns")


@pytest.fixture
def asker(neighbours, modules):
    """PID of the container that asks, once the other one answers."""
    pid, address = neighbours
    deadline = time.monotonic() + 120
    while True:
        try:
            modules.netns.http_get(pid, f"http://{address}:3003/ping")
            modules.netns.resolve(pid, "t-server")
        except CommandExecutionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return pid


def test_a_neighbour_answers_by_its_name(modules, neighbours, asker):
    assert modules.netns.resolve(asker, "t-server") == [neighbours[1]]
    assert modules.netns.http_get(asker, URL) == "pong"


def test_the_host_itself_stays_where_it_was(modules, asker):
    """The thread that enters the other network ends with the question."""
    modules.netns.http_get(asker, URL)
    with pytest.raises(CommandExecutionError):
        modules.netns.http_get(1, URL)


@pytest.mark.parametrize(
    ("url", "seconds", "reason"),
    (
        ("http://t-server:3004/ping", 60, "t-server .* port 3004: .*refused"),
        ("http://t-server:3003/else", 60, "answers .*404"),
        ("http://t-nobody:3003/ping", 2, "t-nobody does not resolve|does not answer"),
    ),
)
def test_what_failed_is_said(modules, asker, url, seconds, reason):
    with pytest.raises(CommandExecutionError, match=reason):
        modules.netns.http_get(asker, url, timeout=seconds)


def test_a_process_that_is_gone_is_said(modules):
    with pytest.raises(CommandExecutionError, match="No such file"):
        modules.netns.http_get(2**22, URL)


@pytest.mark.parametrize("url", ("https://t-server/", "t-server:3003", "http://t-server/ping"))
def test_another_url_is_refused(modules, url):
    with pytest.raises(SaltInvocationError, match="NAME:PORT"):
        modules.netns.http_get(1, url)
