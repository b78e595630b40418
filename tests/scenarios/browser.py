"""A real browser on a host, which is told what to do over Chromium's own protocol."""

import contextlib
import itertools
import json
import subprocess

# As root, without a display, and without what it asks the internet for.
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe --user-data-dir=/run/test/browser"
)
# Chromium speaks on the descriptors 3 and 4.
SCRIPT = f"mkdir -p /run/test && exec chromium {OPTIONS} about:blank 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"


def trust(host, certificate):
    """Let the browser on a host trust an authority, by its certificate in PEM."""
    host.write("/run/test/authority.pem", certificate)
    store = "sql:/root/.pki/nssdb"
    host.run(
        f"mkdir -p /root/.pki/nssdb && certutil -d {store} -N --empty-password && "
        f"certutil -d {store} -A -t C,, -n authority -i /run/test/authority.pem"
    )


class Page:
    """A page in the browser."""

    def __init__(self, process):
        self._process = process
        self._numbers = itertools.count(1)
        self._session = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.call("Page.enable")

    def call(self, method, **params):
        """What the browser answers to a command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        text = b""
        while not text.endswith(b"\0"):
            chunk = self._process.stdout.read(1)
            assert chunk, f"the browser has ended: {text!r}"
            text += chunk
        return text[:-1]

    def open(self, url):
        """Open an address; its certificate must be one that the browser trusts."""
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.run("if (document.readyState !== 'complete') await new Promise((done) => addEventListener('load', done))")

    def run(self, script):
        """What an async function with this body returns in the page."""
        expression = f"(async () => {{ {script} }})()"
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


@contextlib.contextmanager
def page(host):
    """A new page in a browser on a host."""
    process = subprocess.Popen(host.command(SCRIPT), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Page(process)
    finally:
        process.kill()
        process.wait()
        host.run("pkill -x chromium", check=False)
