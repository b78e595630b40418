"""
The formula in a git repository, served over HTTP on a LAN (``git.test`` for its hosts).

Salt 3008 refuses ``git://``, and libgit2 wants git's own protocol over HTTP, which `git http-backend`, a CGI program,
speaks.
"""

import http.server
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.host.cache import REPO, run

PORT = 8418
URL = f"http://git.test:{PORT}/immich-formula.git"
WHO = ["-c", "user.name=formula", "-c", "user.email=formula@git.test"]


class GitServer:
    """A repository whose branch ``main`` and ``tag`` are the working tree of this one, and a daemon that serves it."""

    def __init__(self, lan, tag):
        self.folder = lan.folder / "git"
        self.work = self.folder / "work"
        self.repository = self.folder / "immich-formula.git"
        self.work.mkdir(parents=True)
        listed = run("git", "-C", REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        there = "\0".join(name for name in listed if name and (REPO / name).exists())
        run("tar", "-C", REPO, "--null", "--files-from=-", "-cf", self.folder / "formula.tar", input=there)
        run("tar", "-C", self.work, "-xf", self.folder / "formula.tar")
        run("git", "init", "-q", "--bare", "--initial-branch=main", self.repository)
        run("git", "init", "-q", "--initial-branch=main", self.work)
        self.publish("the formula", tag)
        command = [*lan.enter, sys.executable, "-m", "tests.host.git_server", self.folder]
        with open(self.folder / "log", "wb") as log:
            self._server = subprocess.Popen(
                list(map(str, command)), cwd=REPO, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait(lan)

    def publish(self, subject, tag=None):
        """Commit what stands in ``work`` and push it to ``main``, with a tag if one is given."""
        run("git", "-C", self.work, "add", "--all")
        run("git", "-C", self.work, *WHO, "commit", "-q", "--message", subject)
        run("git", "-C", self.work, "push", "-q", self.repository, "main")
        if tag:
            run("git", "-C", self.work, "push", "-q", self.repository, f"main:refs/tags/{tag}")

    def edit(self, path, old, new):
        """Replace text in a file of ``work``; it must be there."""
        file = Path(self.work / path)
        text = file.read_text(encoding="utf8")
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new), encoding="utf8")

    def _wait(self, lan):
        probe = [*lan.enter, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"]
        for _ in range(2400):
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"the git server did not start: {(self.folder / 'log').read_text()}")

    def close(self):
        self._server.terminate()
        self._server.wait(timeout=120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands each request to `git http-backend`."""

    folder = None

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": self.folder,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, stdout=subprocess.PIPE, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815


if __name__ == "__main__":
    Handler.folder = sys.argv[1]
    http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
