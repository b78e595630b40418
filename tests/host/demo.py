"""The main job, shown on a disposable host: deploy Immich as a person does, and look whether it works.

Ends with a page for the browser. The host is removed; what it was built from stays in .cache.
"""

import argparse
import base64
import contextlib
import http.server
import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from tests.host import images, tools
from tests.host.cache import CACHE, REPO, run, say, step
from tests.host.lan import Lan
from tests.host.machine import Host, HostError
from tests.host.page import page, picture
from tests.host.registry import Registry, stored, use_registry

DEPLOY = "/srv/formula/bin/deploy"
SERVER = "http://127.0.0.1:2283"
NEIGHBOUR = 8000  # a web server on every address of the host, to be tried from inside
# What somebody in the server's container would try: in words, as tests/scenarios/inside.js takes it, and what the
# answer to it says if that is denied.
ATTEMPTS = (
    ("PostgreSQL: become superuser", "postgres", {"sql": "ALTER ROLE immich SUPERUSER"}, "permission denied"),
    (
        "PostgreSQL: run a program on the host",
        "postgres",
        {"sql": "COPY (SELECT 1) TO PROGRAM 'id'"},
        "permission denied",
    ),
    (
        "PostgreSQL: read a file of the host",
        "postgres",
        {"sql": "SELECT pg_read_file('/etc/passwd')"},
        "permission denied",
    ),
    ("PostgreSQL: create a role", "postgres", {"sql": "CREATE ROLE evil"}, "permission denied"),
    (
        "PostgreSQL: enter another database",
        "postgres",
        {"sql": "SELECT 1", "options": {"database": "postgres"}},
        "no pg_hba.conf entry|permission denied",
    ),
    ("Valkey: delete everybody's data", "valkey", ["FLUSHALL"], "NOPERM"),
    ("Valkey: change the configuration", "valkey", ["CONFIG", "SET", "dir", "/tmp"], "NOPERM"),
    ("Valkey: give itself more rights", "valkey", ["ACL", "SETUSER", "immich", "+@all"], "NOPERM"),
    ("Valkey: read a key of others", "valkey", ["GET", "tenant:secret"], "NOPERM"),
    ("Network: another service of the host", "connect", ["10.88.0.1", NEIGHBOUR], "timeout|ECONNREFUSED"),
    ("Files: write into its own program", "write", "/usr/src/app/evil", "EROFS"),
)
# The same way to where Immich has to get, or a denial would prove nothing.
NEEDED = ["10.88.0.1", 5432]
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
    parser.add_argument("--verbose", action="store_true", help="every state of the runs, and Salt's own messages")
    arguments = parser.parse_args()
    why_not = tools.obstacle()
    if why_not:
        return plan_only(why_not)
    tools.install()
    with Lan(uplink=arguments.images == "real") as lan:
        return show(lan, arguments)


def show(lan, arguments):
    which = arguments.images
    if which == "standin":
        Registry(lan, stored())
    with step("booting a Debian 13 host that has only systemd, Python and Salt"):
        host = Host("demo", lan=lan, layers=images.bare())
    with host:
        if which == "standin":
            use_registry(host)
        host.pillar(pillar())
        deploy = f"{DEPLOY} --yes --no-next-steps{' --verbose' if arguments.verbose else ''}"
        if host.stream(deploy):
            return 1
        try:
            check(host)
            photo = upload(host)
            attempts = intrude(host) if which == "standin" else []
            rows = host.salt("immich.doctor")
        except (HostError, AssertionError) as error:
            say(f"NOT WORKING: {error}")
            return 1
        broken = [f"{row['part']}: {row['seen']}" for row in rows if row["result"] == "failed"]
        shown = CACHE / "demo.html"
        shown.write_text(page(facts(host), rows, attempts, photo), encoding="utf8")
        try:
            _shown(not broken, f"salt-call immich.doctor: {len(rows)} rows, failed: {', '.join(broken) or 'none'}")
            return serve(lan, host, shown)
        except (AssertionError, OSError) as error:
            say(f"NOT WORKING: {error}")
            return 1


def pillar():
    """The smallest pillar, with passwords of this run."""
    return {
        "timezone": "Europe/Paris",
        "postgres": {"password": secrets.token_urlsafe(18)},
        "valkey": {"password": secrets.token_urlsafe(18), "admin_password": secrets.token_urlsafe(18)},
    }


def check(host):
    """See that the server answers and that another run has nothing to do; AssertionError says what does not hold."""
    ping = json.loads(host.out(f"curl -sf {SERVER}/api/server/ping"))
    _shown(ping == {"res": "pong"}, f"the server answers {ping}")
    again = host.run(DEPLOY, check=False, timeout=600)
    _shown("Nothing to do" in again.stdout, "bin/deploy, once more: nothing to do")


def upload(host):
    """Sign up and upload a picture, as a phone does; what the page shows of it."""
    sent = picture()
    host.run("base64 -d >/root/sunset.png", stdin=base64.b64encode(sent).decode())
    account = {"name": "Ana", "email": "ana@example.org", "password": secrets.token_urlsafe(12)}
    _api(host, "auth/admin-sign-up", account)
    token = _api(host, "auth/login", account)["accessToken"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    curl = f"curl -sf -H 'Authorization: Bearer {token}' {SERVER}/api/assets"
    form = f"-F assetData=@/root/sunset.png -F fileCreatedAt={now} -F fileModifiedAt={now}"
    host.run(f"{curl} {form} -F deviceAssetId=demo -F deviceId=demo")
    counted = json.loads(host.out(f"{curl}/statistics"))
    path = host.out("find /srv/immich/upload/upload -name '*.png' -exec cmp -s {} /root/sunset.png ';' -print")
    _shown(counted["images"] == 1 and path, f"a photo was uploaded, and lies unchanged in {path}")
    return {"picture": sent, "path": path, "counted": f"{counted['images']} photo"}


def _api(host, path, body):
    headers = "-H 'Content-Type: application/json'"
    return json.loads(
        host.run(f"curl -sf {headers} --data-binary @- {SERVER}/api/{path}", stdin=json.dumps(body)).stdout
    )


def intrude(host):
    """Try from inside the server's container, with all it has, what it must not be able to do."""
    host.run(f"systemd-run --quiet --unit neighbour python3 -m http.server {NEIGHBOUR}")
    host.wait_for(f"curl -sf http://10.88.0.1:{NEIGHBOUR}")
    script = (REPO / "tests/scenarios/inside.js").read_text(encoding="utf8")
    tried = {kind: [attempt for _, of, attempt, _ in ATTEMPTS if of == kind] for _, kind, _, _ in ATTEMPTS}
    tried["connect"].append(NEEDED)
    done = host.run(f"podman exec -i immich-server node - {shlex.quote(json.dumps(tried))}", stdin=script)
    outcomes = json.loads(done.stdout)
    if "answer" not in outcomes["connect"].pop():
        raise AssertionError(f"Immich's container does not reach {NEEDED}")
    found = []
    for what, kind, _, denial in ATTEMPTS:
        answer = next(iter(outcomes[kind].pop(0).items()))
        found.append((what, answer[0] == "error" and bool(re.search(denial, answer[1])), answer[1]))
    allowed = [what for what, denied, _ in found if not denied]
    _shown(
        not allowed, f"from inside Immich's container {len(found)} attempts, allowed: {', '.join(allowed) or 'none'}"
    )
    return found


def facts(host):
    """What runs on the host: pairs of a name and its version."""
    version = json.loads(host.out(f"curl -sf {SERVER}/api/server/version"))
    commands = {
        "Debian": "cat /etc/debian_version",
        "Podman": "podman --version",
        "PostgreSQL": "/usr/lib/postgresql/*/bin/postgres --version",
        "Valkey": "valkey-server --version",
        "Salt": "salt-call --version",
    }
    found = [("Immich", "v{major}.{minor}.{patch}".format(**version))]
    for name, command in commands.items():
        (number,) = re.findall(r"\d+\.\d[\w.]*", host.out(command))[:1]
        found.append((name, number))
    return found


def _shown(good, text):
    if not good:
        raise AssertionError(text)
    say(f"ok: {text}")


def serve(lan, host, shown):
    """Give a browser on this machine the page and the server, until Ctrl-C when on a terminal."""
    with socket.create_server(("127.0.0.1", 0)) as listener, PageServer(shown) as pages:
        port = listener.getsockname()[1]
        relay = subprocess.Popen(
            [*lan.enter, sys.executable, "-c", RELAY, str(listener.fileno()), host.address],
            pass_fds=[listener.fileno()],
        )
        try:
            for number, path in ((port, "/api/server/ping"), (pages.server_port, "/")):
                urllib.request.urlopen(f"http://127.0.0.1:{number}{path}", timeout=120).close()
            say(f"what runs, what was checked, what was denied: http://127.0.0.1:{pages.server_port} (kept: {shown})")
            say(f"the server itself: http://127.0.0.1:{port}")
            size = _disk(host.upper, host.containers)
            kept = _disk(*(each for each in CACHE.iterdir() if each.name != "run"))  # where the hosts are
            say(f"on the disk: this host {size}; what it was built from {kept}, kept in {CACHE}")
            if sys.stdin.isatty() and sys.stdout.isatty():
                say(f"a shell on the host: nsenter -t {host.pid} -a bash. Ctrl-C ends the demo and removes the host")
                with contextlib.suppress(KeyboardInterrupt):
                    while True:
                        time.sleep(3600)
        finally:
            relay.kill()
    return 0


class PageServer(http.server.ThreadingHTTPServer):
    """Serves one page on a free port of this machine, from a thread, while it is a context."""

    def __init__(self, path):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return super().__enter__()

    def __exit__(self, *exception):
        self.shutdown()
        return super().__exit__(*exception)


def _disk(*folders):
    done = subprocess.run(["du", "-sxBM", "--total", *folders], capture_output=True, text=True, check=False)
    return f"{int(done.stdout.splitlines()[-1].split('M')[0]) / 1024:.1f} GB"


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
    program = "import json, sys; from immich_core import compose; print(compose.text(json.load(sys.stdin), 'pgvector'))"
    environment = {**os.environ, "PYTHONPATH": f"{REPO}/_utils"}
    subprocess.run([venv / "bin/python", "-c", program], input=settings, text=True, env=environment, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
