"""An OpenID provider on a LAN, over TLS by an authority of its own: oidc-provider-mock, which is Authlib's.

Run as a program: ADDRESS PORT CERTIFICATE KEY.
"""

import json
import subprocess
import sys
import urllib.parse

from tests.host.cache import REPO
from tests.host.lan import PREFIX

ADDRESS, PORT = f"{PREFIX}.1", 8443
ISSUER = f"https://{ADDRESS}:{PORT}"
# The authority's certificate, and the provider's by it.
CERTIFICATES = f"""
set -eu; cd /root
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=Authority at home' -keyout ca.key -out ca.pem 2>/dev/null
openssl req -x509 -CA ca.pem -CAkey ca.key -newkey rsa:2048 -nodes -days 2 -subj /CN={ADDRESS} \\
  -addext subjectAltName=IP:{ADDRESS} -addext basicConstraints=critical,CA:FALSE \\
  -keyout tls.key -out tls.pem 2>/dev/null
"""


class Provider:
    """The provider on a host's LAN, whose authority the host has as ``/root/ca.pem``."""

    def __init__(self, host):
        self.host = host
        host.run(CERTIFICATES)
        folder = host.lan.folder / "provider"
        folder.mkdir()
        for name in ("tls.pem", "tls.key"):
            (folder / name).write_text(host.read(f"/root/{name}"), encoding="ascii")
        program = [sys.executable, "-m", "tests.scenarios.oidc_provider", ADDRESS, str(PORT)]
        command = [*host.lan.enter, *program, str(folder / "tls.pem"), str(folder / "tls.key")]
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        host.wait_for(f"curl -sf --cacert /root/ca.pem {ISSUER}/.well-known/openid-configuration", 120)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=120)

    def call(self, method, path, body):
        """What the provider answers to JSON."""
        self.host.write("/run/test/body", json.dumps(body))
        curl = f"curl -sf --cacert /root/ca.pem -X {method} -H 'Content-Type: application/json' -d @/run/test/body"
        return self.host.out(f"{curl} {ISSUER}{path}")

    def client(self, redirect_uri):
        """Register a client; return its id and secret."""
        body = {"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "client_secret_post"}
        answer = json.loads(self.call("POST", "/oauth2/clients", body))
        return answer["client_id"], answer["client_secret"]

    def log_in(self, url, user):
        """What a browser does at the address that Immich names: the address to which it is sent back."""
        form = f"curl -sf --cacert /root/ca.pem -o /dev/null -w '%{{redirect_url}}' -d sub={urllib.parse.quote(user)}"
        return self.host.out(f"{form} '{url}'")


def main(address, port, certificate, key):
    from oidc_provider_mock import app
    from werkzeug.serving import make_server

    provider = app(require_client_registration=True)
    make_server(address, int(port), provider, threaded=True, ssl_context=(certificate, key)).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
