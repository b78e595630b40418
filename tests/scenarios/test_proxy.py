"""Caddy in front, in the order of the file: certificates by ACME, what gets through, and what else is in that Caddy."""

import json
import re

import pytest

from tests.host import images
from tests.host.machine import Host
from tests.scenarios import browser
from tests.scenarios.conftest import changed, deployed, merged, pillar_with, post
from tests.scenarios.reader import Reader, shelf, stock

pytestmark = pytest.mark.long

NAME = "photos.example.org"
URL = f"https://{NAME}"
ADMIN = {"email": "ana@example.org", "password": "a long password", "name": "Ana"}
ACME = {"proxy": {"domain": [NAME, "fotos.example.org"], "email": ADMIN["email"]}}
MEGABYTES = 2048
# A Caddy that is here already: its site, and an authority of its administrator's that looks at certificates often.
CADDYFILE = """{
	acme_ca https://localhost:14000/dir
	acme_ca_root {$AUTHORITY}
	renew_interval 5s
	ocsp_stapling off
}

other.example.org {
	tls internal
	respond "another site"
}
"""
# Certificates for 150 s, which Caddy renews after 100. The authority asks the DNS of `pebble-challtestsrv`.
PEBBLE = {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/run/test/pebble.pem",
    "privateKey": "/run/test/pebble.key",
    "httpPort": 80,
    "tlsPort": 443,
    "certificateValidityPeriod": 150,
}
OTHERS = """set -eu
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout /run/test/pebble.key -out /run/test/pebble.pem 2>/dev/null
chmod 644 /run/test/pebble.*
mkdir -p /etc/systemd/system/caddy.service.d
printf '[Service]\\nEnvironment=AUTHORITY=/run/test/pebble.pem\\n' >/etc/systemd/system/caddy.service.d/authority.conf
systemctl daemon-reload
systemctl restart caddy
systemd-run -q --unit=pebble -E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_WFE_NONCEREJECT=0 \
    pebble -config /run/test/pebble.json -dnsserver 127.0.0.1:8053
until curl -sk https://127.0.0.1:14000/dir >/dev/null; do sleep 0.2; done
echo '{address} photos.example.org fotos.example.org other.example.org photos.lan' >>/etc/hosts
"""
DNS = (
    "systemd-run -q --unit=dns pebble-challtestsrv -defaultIPv4 {} -defaultIPv6 '' -http01 '' -https01 '' -tlsalpn01 ''"
)
OTHER = "curl -sk https://other.example.org"
PROCESS = "systemctl show --property=MainPID --value caddy"
# What Caddy has on its disk and in its memory, and what of the upload Immich has, time and again until it is done.
WATCHED_UPLOAD = """
truncate -s {megabytes}M /srv/video.mp4 && date +%N | dd of=/srv/video.mp4 conv=notrunc status=none
before=$(du -sb /var/lib/caddy /proc/$({process})/root/tmp 2>/dev/null | awk '{{n+=$1}} END {{print n}}')
curl -s --cacert /run/test/root.pem --max-time 900 -H 'Authorization: Bearer {token}' -F assetData=@/srv/video.mp4 \
    -F fileCreatedAt=2026-01-01T00:00:00Z -F fileModifiedAt=2026-01-01T00:00:00Z {url}/api/assets >/run/test/answer &
while kill -0 $! 2>/dev/null; do
  echo "memory $(awk '/VmRSS/ {{print $2}}' /proc/$({process})/status)"
  echo "files $(find /proc/$({process})/fd -lname '/*' ! -lname '/dev/*' ! -lname '/proc/*' -printf '%l ')"
  echo "immich $(find /srv/immich/upload/upload -name '*.part' -printf '%s ')"
  sleep 0.3
done
after=$(du -sb /var/lib/caddy /proc/$({process})/root/tmp 2>/dev/null | awk '{{n+=$1}} END {{print n}}')
echo "grown $((after - before))"
rm /srv/video.mp4
"""


# As certbot leaves a certificate: for root alone.
CERTBOT = f"""set -eu
mkdir -p /etc/letsencrypt/live/{NAME} && cd /etc/letsencrypt/live/{NAME}
openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=x -addext subjectAltName=DNS:{NAME} \\
    -keyout privkey.pem -out fullchain.pem 2>/dev/null
chmod -R go= /etc/letsencrypt
"""


def curl(host, arguments, check=True):
    return host.out(f"curl -s --cacert /run/test/root.pem {arguments}", check=check)


@pytest.fixture(scope="module")
def host(first_run):
    with deployed(first_run, binds=shelf()) as host:
        stock(host)
        host.write("/run/test/pebble.json", json.dumps({"pebble": PEBBLE}))
        host.run("apt-get -qq install --no-install-recommends caddy pebble >/dev/null", timeout=300)
        host.write("/etc/caddy/Caddyfile", CADDYFILE)
        host.run(OTHERS.format(address=host.address), timeout=300)
        yield host


def test_a_certificate_that_cannot_be_had_leaves_everything_as_it_was(host):
    before = host.out(f"{PROCESS}; ls -R /etc/caddy; cat /etc/caddy/Caddyfile")
    host.pillar(pillar_with(**ACME))
    # Nobody answers for the name.
    host.run(DNS.format("203.0.113.9"))
    failed = [state for state in host.apply(check=False) if state["result"] is False]
    assert failed[0]["id"] == "Immich's site is served by Caddy"
    assert NAME in failed[0]["comment"]
    assert "acme:error" in failed[0]["comment"], failed[0]["comment"]
    assert "ports 80 and 443" in failed[0]["comment"]
    assert failed[0]["changes"] == {}
    after = host.out(f"{PROCESS}; ls -R /etc/caddy; cat /etc/caddy/Caddyfile")
    assert after.replace("/etc/caddy/conf.d:\n", "").replace("conf.d\n", "").split() == before.split()
    assert host.out(OTHER) == "another site"
    assert json.loads(host.out(f"curl -s http://{host.address}:2283/api/server/ping")) == {"res": "pong"}


def test_nobody_signs_up_through_the_proxy_before_its_host_has(host):
    host.run(f"systemctl stop dns && {DNS.format(host.address)}")
    process = host.out(PROCESS)
    host.pillar(pillar_with(**ACME, setup="host"))
    planned = changed(host.apply(test=True))
    assert planned["Immich's site is served by Caddy"]["/etc/caddy/Caddyfile"] == {"old": "outdated", "new": "written"}
    done = changed(host.apply())
    assert set(done) == set(planned)
    host.run("curl -sk https://127.0.0.1:15000/roots/0 >/run/test/root.pem")
    assert curl(host, f"-o /dev/null -w '%{{http_code}}' {URL}/api/server/ping") == "503"
    assert (host.out(PROCESS), host.out(OTHER)) == (process, "another site")
    post(host, "/api/auth/admin-sign-up", ADMIN)
    opened = changed(host.apply())
    assert "Immich's site is served by Caddy" in opened
    assert changed(host.apply()) == {}
    assert changed(host.apply(test=True)) == {}


def test_immich_is_reached_through_the_proxy_alone(host):
    head = curl(host, f"-D - {URL}/api/server/ping")
    assert head.startswith("HTTP/2 200")
    assert "strict-transport-security: max-age=31536000" in head
    assert head.endswith('{"res":"pong"}')
    assert json.loads(curl(host, "https://fotos.example.org/api/server/ping")) == {"res": "pong"}
    assert host.run(f"curl -s http://{host.address}:2283/api/server/ping", check=False).returncode == 7
    redirect = host.out(f"curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' http://{NAME}/photos?x=1")
    assert redirect == f"308 {URL}/photos?x=1"


def test_immich_learns_the_clients_address_from_this_proxy_alone(host):
    headers = json.loads(
        curl(host, f"-H 'X-Forwarded-For: 192.0.2.66' -H 'X-Real-IP: 192.0.2.66' {URL}/standin/headers")
    )
    told = {name: headers.get(name) for name in ("host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto")}
    assert told == {
        "host": NAME,
        "x-real-ip": host.address,
        "x-forwarded-for": host.address,
        "x-forwarded-proto": "https",
    }
    pid = host.out("podman inspect --format '{{.State.Pid}}' immich-server")
    trusted = host.out("podman exec immich-server printenv IMMICH_TRUSTED_PROXIES")
    assert trusted
    # The server closes a connection after some seconds without a request.
    ask = f"curl -s --cacert /run/test/root.pem {URL}/api/server/ping >/dev/null"
    peers = f"nsenter -n -t {pid} ss -Htn state established 'sport = :2283' | awk '{{ print $4 }}'"
    host.wait_for(f"{ask}; {peers} | grep -Fw '{trusted}'")


def test_a_large_upload_is_neither_in_caddys_memory_nor_on_its_disk(host):
    token = post(host, "/api/auth/login", ADMIN)["accessToken"]
    script = WATCHED_UPLOAD.format(megabytes=MEGABYTES, token=token, url=URL, process=PROCESS)
    watched = host.out(script, timeout=1000)
    answer = json.loads(host.read("/run/test/answer"))
    assert (answer["status"], answer["size"]) == ("created", MEGABYTES * 2**20)
    halfway = [int(size) for size in re.findall(r"immich (\d+)", watched)]
    assert any(0 < size < MEGABYTES * 2**20 for size in halfway), watched
    assert max(int(size) for size in re.findall(r"memory (\d+)", watched)) < 200 * 1024
    assert int(re.search(r"grown (-?\d+)", watched)[1]) < 2**20
    assert re.findall(r"files .*/tmp.*", watched) == []


def test_a_person_uses_immich_in_a_browser(host):
    with Host("browser", lan=host.lan, layers=images.with_browser()) as other:
        other.run(f"echo '{host.address} {NAME}' >>/etc/hosts")
        browser.trust(other, host.read("/run/test/root.pem"))
        with browser.page(other) as page:
            page.open(f"http://{NAME}/")
            assert page.run("return location.href") == f"{URL}/"
            assert page.run("return performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
            assert page.run(IN_THE_BROWSER.replace("LOGIN", json.dumps(ADMIN))) == {
                "login": 201,
                "upload": "created",
                "event": "on_standin",
            }


# Signs in, uploads, and waits at the websocket for an event of the server's.
IN_THE_BROWSER = """
const asked = (path, body, headers = {}) => fetch(path, { method: "POST", body, headers });
const login = await asked("/api/auth/login", JSON.stringify(LOGIN), { "content-type": "application/json" });
const headers = { authorization: `Bearer ${(await login.json()).accessToken}` };
const form = new FormData();
form.append("assetData", new Blob([crypto.getRandomValues(new Uint8Array(60000))]), "photo.jpg");
form.append("fileCreatedAt", "2026-01-01T00:00:00Z");
form.append("fileModifiedAt", "2026-01-01T00:00:00Z");
const upload = await (await asked("/api/assets", form, headers)).json();
const event = await new Promise((resolve, reject) => {
  const socket = new WebSocket(`wss://${location.host}/api/socket.io/?EIO=4&transport=websocket`);
  socket.onerror = () => reject(new Error("the websocket failed"));
  socket.onmessage = ({ data }) => {
    if (data.startsWith("0")) socket.send("40");
    if (data.startsWith("40")) asked("/standin/jobs", "{}");
    if (data.startsWith("42")) resolve(JSON.parse(data.slice(2))[0]);
  };
});
return { login: login.status, upload: upload.status, event };
"""


def test_what_was_written_and_not_loaded_is_loaded_by_the_next_apply(host):
    # As an apply that is killed in between leaves it.
    host.run(
        "grep -v ^import /etc/caddy/Caddyfile >/run/test/Caddyfile && AUTHORITY=/run/test/pebble.pem "
        "caddy reload --config /run/test/Caddyfile --adapter caddyfile"
    )
    assert curl(host, f"{URL}/api/server/ping", check=False) == ""
    assert changed(host.apply("immich.proxy")) == {
        "Immich's site is served by Caddy": {"caddy": {"old": "outdated", "new": "reloaded"}}
    }
    assert json.loads(curl(host, f"{URL}/api/server/ping")) == {"res": "pong"}


def test_a_name_that_another_site_has_is_not_taken_from_it(host):
    host.run("cp /etc/caddy/Caddyfile /run/test/good")
    host.run("printf 'photos.lan {\\n\\trespond mine\\n}\\n' >>/etc/caddy/Caddyfile")
    before, process = host.read("/etc/caddy/conf.d/immich.caddyfile"), host.out(PROCESS)
    host.pillar(merged(pillar_with(**ACME), {"proxy": {"domain": "photos.lan", "tls": "internal", "email": None}}))
    (failed,) = [state for state in host.apply("immich.proxy", check=False) if state["result"] is False]
    assert "Another site of this Caddy has photos.lan" in failed["comment"]
    assert (host.read("/etc/caddy/conf.d/immich.caddyfile"), host.out(PROCESS)) == (before, process)
    assert json.loads(curl(host, f"{URL}/api/server/ping")) == {"res": "pong"}
    host.run("cp /run/test/good /etc/caddy/Caddyfile")
    host.pillar(pillar_with(**ACME))


def test_the_doctor_reports_a_caddy_that_is_gone(host):
    host.run("systemctl stop caddy")
    (row,) = [row for row in host.salt("immich.doctor", check=False) if row["part"] == "proxy"]
    assert (row["result"], row["code"]) == ("failed", "proxy-inactive")
    host.run(row["remedy"].split("`")[1])
    (row,) = [row for row in host.salt("immich.doctor", "timeout=60") if row["part"] == "proxy"]
    assert row["result"] == "ok", row


def test_a_certificate_is_renewed(host):
    serial = (
        f"echo | openssl s_client -connect 127.0.0.1:443 -servername {NAME} 2>/dev/null | openssl x509 -noout -serial"
    )
    before = host.out(serial)
    host.wait_for(f'test "$({serial})" != "{before}"', 400)
    assert json.loads(curl(host, f"{URL}/api/server/ping")) == {"res": "pong"}


def test_the_page_is_followed(host):
    host.run(CERTBOT)
    Reader(host).follow("docs/howto/https.md")
    assert host.out("cat /etc/caddy/Caddyfile; ls -A /etc/caddy /etc/caddy/conf.d") == (
        f"{CADDYFILE}/etc/caddy:\nCaddyfile\nconf.d\n\n/etc/caddy/conf.d:"
    )
    assert host.out(OTHER) == "another site"
    assert json.loads(host.out(f"curl -s http://{host.address}:2283/api/server/ping")) == {"res": "pong"}
    assert not host.out("ls /var/lib/immich-formula/proxy", check=False)
