"""The main job, shown on a disposable host: deploy Immich, apply again with no change, and look whether it works."""

import argparse
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time

from tests.host import images, tools
from tests.host.cache import CACHE, REPO, run, say, step
from tests.host.lan import Lan
from tests.host.machine import Host, HostError
from tests.host.registry import Registry, stored, use_registry

APPLY = "salt-call --local --state-output=changes --force-color state.apply immich"
# Run inside the LAN: hands what connects to an inherited socket of this machine to the server on the host.
RELAY = """
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    finally:
        for s in (a, b):
            try: s.shutdown(socket.SHUT_RDWR)
            except OSError: pass
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    near, _ = listener.accept()
    try:
        far = socket.create_connection((sys.argv[2], 2283))
    except OSError:
        near.close(); continue
    for pair in ((near, far), (far, near)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def main():
    parser = argparse.ArgumentParser(prog="bin/demo", description=__doc__)
    parser.add_argument(
        "--images",
        choices=["standin", "real"],
        default="standin",
        help="standin: small images of the tests, which talk to PostgreSQL and Valkey as Immich does (default); "
        "real: the published ones, from ghcr.io",
    )
    arguments = parser.parse_args()
    why_not = tools.obstacle()
    if why_not:
        return plan_only(why_not)
    tools.install()
    with Lan(uplink=arguments.images == "real") as lan:
        return show(lan, arguments.images)


def show(lan, which):
    if which == "standin":
        Registry(lan, stored())
    with step("booting a Debian 13 host that has only systemd, Python and Salt"):
        host = Host("demo", lan=lan, layers=images.bare())
    with host:
        if which == "standin":
            use_registry(host)
        host.pillar(pillar())
        for title in ("first apply, from bare", "second apply, which must change nothing"):
            with step(title):
                if host.stream(APPLY):
                    return 1
        try:
            check(host, which)
        except (HostError, AssertionError) as error:
            say(f"NOT WORKING: {error}")
            return 1
        return serve(lan, host)


def pillar():
    """The smallest pillar, with passwords of this run."""
    return {
        "timezone": "Europe/Paris",
        "postgres": {"password": secrets.token_urlsafe(18)},
        "valkey": {"password": secrets.token_urlsafe(18), "admin_password": secrets.token_urlsafe(18)},
    }


def check(host, which):
    """Look whether it works; AssertionError says what does not."""
    ping = json.loads(host.out("curl -sf http://127.0.0.1:2283/api/server/ping"))
    _shown(ping == {"res": "pong"}, f"the server answers {ping}")
    _shown(host.out("systemctl is-active immich") == "active", "immich.service is active")
    changed = [state["id"] for state in host.apply() if state["changes"]]
    _shown(not changed, f"another apply changes nothing {changed or ''}")
    listed = host.out("podman ps --format '{{.Names}} {{.Image}} {{.Status}}'")
    _shown("immich-machine-learning" in listed, f"containers:\n{listed}")
    if which == "standin":
        jobs = json.loads(host.out("curl -sf -X POST http://127.0.0.1:2283/standin/jobs"))
        _shown(not jobs["denied"], f"jobs went through {len(jobs['completed'])} queues, Valkey denied nothing")


def _shown(good, text):
    if not good:
        raise AssertionError(text)
    say(f"ok: {text}")


def serve(lan, host):
    """Give a browser on this machine an address, until Ctrl-C when on a terminal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        relay = subprocess.Popen(
            [*lan.enter, sys.executable, "-c", RELAY, str(listener.fileno()), host.address],
            pass_fds=[listener.fileno()],
        )
        try:
            with socket.create_connection(("127.0.0.1", port)) as probe:
                probe.sendall(b"GET /api/server/ping HTTP/1.0\r\n\r\n")
                answer = probe.recv(4096)
            _shown(b"200" in answer.splitlines()[0], f"open http://127.0.0.1:{port}/ in a browser on this machine")
            if sys.stdin.isatty() and sys.stdout.isatty():
                say(f"a shell on the host: nsenter -t {host.pid} -a bash. Ctrl-C ends the demo and removes the host")
                with contextlib.suppress(KeyboardInterrupt):
                    while True:
                        time.sleep(3600)
        finally:
            relay.kill()
    return 0


def plan_only(why_not):
    """What can be shown without a host: the plan for this machine, and the files it would write."""
    say(f"No host can be booted here: {why_not}.")
    if os.environ.get("CI") == "true":
        return 1
    say("Instead, what the formula would do on this machine (test=True), and Immich's compose file:")
    venv, folder = CACHE / "plan-venv", CACHE / "plan"
    if not (venv / "bin/salt-call").exists():
        with step("installing Salt in a venv of its own"):
            run(sys.executable, "-m", "venv", venv)
            run(venv / "bin/pip", "-q", "install", *images.SALT, *images.FORMULA_WHEELS)
    (folder / "pillar").mkdir(parents=True, exist_ok=True)
    (folder / "pillar/top.sls").write_text("base: {'*': [immich]}\n", encoding="ascii")
    (folder / "pillar/immich.sls").write_text(json.dumps({"immich": pillar()}), encoding="ascii")
    (folder / "minion").write_text(
        f"root_dir: {folder}\nfile_client: local\nid: plan\nfile_roots: {{base: [{REPO}]}}\n"
        f"pillar_roots: {{base: [{folder}/pillar]}}\n",
        encoding="ascii",
    )
    call = [venv / "bin/salt-call", "--local", "-c", folder]
    run(*call, "saltutil.sync_all")
    subprocess.run([*call, "--state-output=changes", "state.apply", "immich", "test=True"], check=False)
    settings = json.dumps(json.loads(run(*call, "--out=json", "immich_settings.get"))["local"])
    subprocess.run(
        [*call, "--out=newline_values_only", "immich_compose.project_yaml", settings, "pgvector"], check=False
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
