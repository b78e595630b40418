"""nginx in front, with the vhost of docs/howto/reverse-proxy.md: what Immich needs gets through it."""

import json
import re

import pytest

from tests.scenarios.conftest import deployed, post
from tests.scenarios.reader import Reader, shelf, stock

pytestmark = pytest.mark.long

URL = "https://photos.example.org"
MEGABYTES = 300
ADMIN = {"email": "ana@example.org", "password": "a long password", "name": "Ana"}
# A name for the host, and a certificate that its own curl trusts.
CERTIFICATE = """set -eu
echo '{address} photos.example.org' >>/etc/hosts
mkdir -p /etc/letsencrypt/live/photos.example.org && cd /etc/letsencrypt/live/photos.example.org
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=photos.example.org \
    -addext subjectAltName=DNS:photos.example.org -keyout privkey.pem -out fullchain.pem 2>/dev/null
cp fullchain.pem /usr/local/share/ca-certificates/photos.crt
update-ca-certificates >/dev/null 2>&1
"""
# What nginx has on its disk, and what of the upload Immich has, time and again until the upload is done. nginx unlinks
# a body's file as soon as it has opened it, so it is seen among the open ones alone.
WATCHED_UPLOAD = """
truncate -s {megabytes}M /srv/video.mp4 && date +%N | dd of=/srv/video.mp4 conv=notrunc status=none
curl -s --max-time 900 --limit-rate 75M -H 'Authorization: Bearer {token}' -F assetData=@/srv/video.mp4 \
    -F fileCreatedAt=2026-01-01T00:00:00Z -F fileModifiedAt=2026-01-01T00:00:00Z {url}/api/assets >/run/test/answer &
while kill -0 $! 2>/dev/null; do
  echo "nginx $(find $(pgrep -x nginx | sed 's#.*#/proc/&/fd#') -lname '/var/lib/nginx/*' -printf '%l ')"
  echo "immich $(find /srv/immich/upload/upload -name '*.part' -printf '%s ')"
  sleep 0.1
done
"""


@pytest.fixture(scope="module")
def proxied(first_run):
    with deployed(first_run, binds=shelf()) as host:
        host.run(CERTIFICATE.format(address=host.address))
        stock(host)
        Reader(host).follow("docs/howto/reverse-proxy.md")
        post(host, "/api/auth/admin-sign-up", ADMIN)
        yield host


def test_immich_is_reached_through_the_proxy_alone(proxied):
    assert json.loads(proxied.out(f"curl -s {URL}/api/server/ping")) == {"res": "pong"}
    assert proxied.run(f"curl -s http://{proxied.address}:2283/api/server/ping", check=False).returncode == 7
    redirect = proxied.out(
        "curl -s -o /dev/null -w '%{http_code} %{redirect_url}' http://photos.example.org/photos?x=1"
    )
    assert redirect == f"301 {URL}/photos?x=1"


def test_headers_arrive(proxied):
    headers = json.loads(proxied.out(f"curl -s {URL}/standin/headers"))
    told = {name: headers.get(name) for name in ("host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto")}
    assert told == {
        "host": "photos.example.org",
        "x-real-ip": proxied.address,
        "x-forwarded-for": proxied.address,
        "x-forwarded-proto": "https",
    }
    assert "upgrade" not in headers


def test_a_large_upload_streams_to_immich_and_is_never_on_nginxs_disk(proxied):
    token = post(proxied, "/api/auth/login", ADMIN)["accessToken"]
    watched = proxied.out(WATCHED_UPLOAD.format(megabytes=MEGABYTES, token=token, url=URL), timeout=1000)
    assert re.findall(r"nginx .*\d", watched) == []
    halfway = [int(size) for size in re.findall(r"immich (\d+)", watched)]
    assert any(0 < size < MEGABYTES * 2**20 for size in halfway), watched
    answer = json.loads(proxied.read("/run/test/answer"))
    assert (answer["status"], answer["size"]) == ("created", MEGABYTES * 2**20)


def test_a_websocket_opens_through_the_proxy(proxied):
    upgrade = "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13'"
    key = "-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='"
    url = f"{URL}/api/socket.io/?EIO=4&transport=websocket"
    # It stays open: whoever waits for its end waits for the time to be up.
    proxied.run(f"curl -sN --http1.1 --max-time 120 -i {upgrade} {key} '{url}' >/run/test/opened 2>/dev/null &")
    proxied.wait_for("""grep -aq '"sid"' /run/test/opened""")
    opened = proxied.out("tr -d '\\0\\201\\376' </run/test/opened")
    assert opened.startswith("HTTP/1.1 101 ")
    assert '"sid"' in opened
