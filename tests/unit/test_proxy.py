"""Caddy's site for Immich: its text, its import, what of it is loaded, and its certificates."""

import json

import pytest

from immich_core import proxy
from immich_core.obstacles import proxy as obstacles

CONFIG, SITE = "/etc/caddy/Caddyfile", "/etc/caddy/conf.d/immich.caddyfile"
DAY = 86400


def settings(**declared):
    declared = {"domains": ["photos.example.org"], "tls": "acme", "email": None, **declared}
    caddy = {"config_file": CONFIG, "site_file": SITE}
    return {"proxy": declared, "port": 2283, "sign_up": "closed", "lookup": {"caddy": caddy}}


@pytest.mark.parametrize(
    ("declared", "line"),
    (
        ({"email": "ana@example.org"}, "\ttls ana@example.org\n"),
        ({"tls": "internal"}, "\ttls internal\n"),
        ({"tls": "files"}, "\ttls /etc/caddy/immich-certificate.pem /etc/caddy/immich-key.pem\n"),
    ),
)
def test_the_site_has_the_declared_certificate(declared, line):
    assert line in proxy.site(settings(**declared))
    assert "\ttls" not in proxy.site(settings())


def test_each_name_is_served_and_redirected():
    text = proxy.site(settings(domains=["a.example.org", "b.example.org"]))
    assert "http://a.example.org, http://b.example.org {\n\tredir https://{host}{uri} 308\n}\n" in text
    assert "https://a.example.org, https://b.example.org {\n" in text
    assert "reverse_proxy 127.0.0.1:2283 {" in text


def test_immich_has_ten_minutes_for_an_answer():
    lines = [line.strip() for line in proxy.site(settings()).splitlines()]
    assert [line for line in lines if line.endswith(" 600s")] == [
        "response_header_timeout 600s",
        "read_timeout 600s",
        "write_timeout 600s",
    ]


def test_the_site_passes_nothing_on_while_only_this_host_may_reach_immich():
    text = proxy.site({**settings(), "sign_up": "host"})
    assert "reverse_proxy" not in text
    assert "respond" in text


@pytest.mark.parametrize(
    "line",
    (
        f"import {SITE}",
        "import conf.d/*",
        "import conf.d/*.caddyfile # sites",
        'import "/etc/caddy/conf.d/*.caddyfile"',
        "  import conf.d/immich.caddyfile",
    ),
)
def test_a_caddyfile_that_imports_the_site_stays_as_it_is(line):
    text = f"{{\n\temail a@example.org\n}}\n{line}\n"
    assert proxy.with_import(text, CONFIG, SITE) == text


@pytest.mark.parametrize(
    "line",
    (
        "# import conf.d/*",
        "import *",
        "import sites/*",
        "a.example.org {\n\timport conf.d/*\n}",
        "(x) {\nimport conf.d/*\n}",
    ),
)
def test_a_caddyfile_that_does_not_gets_one_line_more_and_gives_it_back(line):
    text = f"{line}\n"
    added = proxy.with_import(text, CONFIG, SITE)
    assert added == f"{text}\n{proxy.IMPORT_COMMENT}\nimport {SITE}\n"
    assert proxy.with_import(added, CONFIG, SITE) == added
    assert proxy.without_import(added, SITE) == text
    assert proxy.without_import(text, SITE) == text


def test_a_caddyfile_without_anything_else_stays_one_that_caddy_loads():
    """Of an empty one Caddy 2.6.2 says: adapting config using caddyfile: EOF."""
    left = proxy.without_import(proxy.with_import("", CONFIG, SITE), SITE)
    assert left == proxy.NO_SITES
    assert proxy.without_import(proxy.with_import(left, CONFIG, SITE), SITE) == left


def adapted(*hosts, upstream="127.0.0.1:2283", subjects=None):
    """A configuration of Caddy 2.6.2, without what makes no difference here."""
    route = {"match": [{"host": list(hosts)}], "handle": [{"handler": "reverse_proxy", "upstreams": [upstream]}]}
    other = {"match": [{"host": ["other.example.org"]}], "handle": []}
    policies = [{"subjects": sorted(subjects or hosts), "issuers": [{"module": "internal"}]}]
    servers = {"srv0": {"listen": [":443"], "routes": [route, other, {"handle": []}]}}
    return {"apps": {"http": {"servers": servers}, "tls": {"automation": {"policies": policies}}}}


def test_what_others_have_in_caddy_makes_no_difference():
    name = ["photos.example.org"]
    mine = proxy.part(adapted(*name), name)
    # Caddy merges the policies of sites with the same authority.
    assert proxy.part(adapted(*name, subjects=["other.example.org", *name]), name) == mine
    assert proxy.part(adapted(*name, upstream="127.0.0.1:2284"), name) != mine
    assert proxy.part({}, name) != mine
    assert proxy.part({"apps": {"http": {"servers": {"x": {}}}}}, name) == proxy.part({}, name)


def test_another_site_with_the_same_name_is_found():
    """Of `photos.example.org` and `https://photos.example.org` Caddy 2.6.2 makes one route with two handlers."""
    config = adapted("photos.example.org")
    names = ["photos.example.org", "other.example.org"]
    assert proxy.others(config, names) == []
    config["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"].append({"handler": "subroute"})
    assert proxy.others(config, names) == ["photos.example.org"]
    # The other of several names.
    config = adapted("photos.example.org")
    more = {"match": [{"host": ["photos.example.org", "a.example.org"]}], "handle": [{"handler": "subroute"}]}
    config["apps"]["http"]["servers"]["srv0"]["routes"].append(more)
    assert proxy.others(config, names) == ["photos.example.org"]
    assert proxy.others({}, names) == []


# As Caddy 2.6.2 logged it, with pebble as the authority and a name that nobody could resolve.
LOG = "\n".join(
    json.dumps(entry)
    for entry in (
        {"level": "error", "logger": "http.acme_client", "msg": "challenge failed", "identifier": "photos.example.org"},
        {
            "level": "error",
            "logger": "tls.obtain",
            "msg": "could not get certificate from issuer",
            "identifier": "photos.example.org",
            "issuer": "acme-v02.api.letsencrypt.org-directory",
            "error": "HTTP 400 urn:ietf:params:acme:error:malformed",
        },
    )
)
RETRY = json.dumps(
    {
        "level": "error",
        "logger": "tls.obtain",
        "msg": "will retry",
        "error": "[photos.example.org] Obtain: [photos.example.org] solving challenge: connection refused",
        "attempt": 1,
    }
)


def test_the_authoritys_reason_is_read_from_caddys_log():
    names = ["photos.example.org"]
    reason = "acme-v02.api.letsencrypt.org-directory: HTTP 400 urn:ietf:params:acme:error:malformed"
    assert proxy.failure(LOG, names) == reason
    assert not proxy.gave_up(LOG, names)
    later = f"{LOG}\nno JSON\n[1]\n{RETRY}"
    assert proxy.failure(later, names) == reason
    assert proxy.failure(RETRY, names).endswith("connection refused")
    assert proxy.gave_up(later, names)
    assert proxy.failure(later, ["other.example.org"]) == ""


def test_the_authoritys_reason_is_not_hidden_by_that_no_challenge_is_left():
    name, issuer = "photos.example.org", "acme-v02.api.letsencrypt.org-directory"
    refused = {"logger": "http.acme_client", "msg": "validating authorization", "identifier": name}
    none_left = "solving challenges: no solvers available for remaining challenges"
    obtain = {"logger": "tls.obtain", "msg": "could not get certificate from issuer", "identifier": name}
    entries = [
        {**refused, "error": "authorization failed: HTTP 400 urn:ietf:params:acme:error:connection - refused"},
        {**obtain, "issuer": issuer, "error": none_left},
        {**obtain, "issuer": "acme.zerossl.com-v2-DV90", "error": "no account"},
    ]

    def failure(entries):
        return proxy.failure("\n".join(map(json.dumps, entries)), [name])

    assert failure(entries) == f"{issuer}: {entries[0]['error']}"
    assert failure([entries[0], {**obtain, "identifier": "x", "error": none_left}]).endswith(entries[0]["error"])
    assert failure(entries[1:]) == f"{issuer}: {none_left}"
    # As newer releases log it.
    assert failure([{**refused, "problem": {"detail": "refused"}}, entries[1]]) == f"{issuer}: refused"
    assert failure([{**refused, "problem": "refused"}, entries[1]]) == f"{issuer}: "


def certificate(**changes):
    return {"names": ["photos.example.org"], "from": 0, "until": 90 * DAY, "issuer": "R3", **changes}


@pytest.mark.parametrize(
    ("changes", "tls", "now", "expected"),
    (
        ({}, "acme", 59 * DAY, []),
        ({"names": ["*.example.org"]}, "acme", 1, []),
        ({"names": ["PHOTOS.example.org"]}, "acme", 1, []),
        ({"names": ["*.org"]}, "acme", 1, ["proxy-certificate-name"]),
        ({"names": []}, "acme", 1, ["proxy-certificate-name"]),
        ({}, "acme", 90 * DAY, ["proxy-certificate-expired"]),
        ({}, "acme", -1, ["proxy-certificate-expired"]),
        ({}, "acme", 80 * DAY, ["proxy-certificate-expires"]),
        ({}, "files", 75 * DAY, []),
        ({}, "files", 77 * DAY, ["proxy-certificate-expires"]),
        ({"issuer": "Caddy Local Authority - ECC Intermediate"}, "acme", 1, ["proxy-certificate-internal"]),
        ({"issuer": "Caddy Local Authority - ECC Intermediate", "until": DAY / 2}, "internal", DAY / 4, []),
    ),
)
def test_what_is_wrong_with_a_certificate(changes, tls, now, expected):
    found = proxy.of_certificate("photos.example.org", certificate(**changes), tls, now)
    assert [each["code"] for each in found] == expected
    assert all("photos.example.org" in each["seen"] and each["remedy"] for each in found)


def socket(port, address, unit):
    return {"port": port, "address": address, "holder": {"number": 7, "arguments": ["nginx"], "unit": unit}}


def test_who_has_the_ports_is_named_unless_it_is_caddy():
    mine = [socket(443, "::", "caddy.service"), socket(80, "127.0.0.1", "x.service")]
    assert list(obstacles.of_ports(mine, "caddy")) == []
    others = [socket(80, "0.0.0.0", "nginx.service"), socket(80, "::", "nginx.service"), mine[0]]
    (found,) = obstacles.of_ports(others, "caddy")
    assert found["path"] == "immich:proxy:domain"
    assert "80 is taken by nginx (nginx.service, process 7)" in found["seen"]


def test_a_file_with_another_names_certificate_is_found_before_a_change():
    (found,) = obstacles.of_files(["photos.example.org", "b.example.org"], certificate(), 80 * DAY)
    assert (found["path"], "b.example.org" in found["seen"]) == ("immich:proxy:certificate", True)


def test_immich_trusts_the_gateway_of_its_network():
    assert proxy.trusted({"subnet": "172.20.0.0/16", "gateway": "172.20.0.9"}) == "172.20.0.9"
    assert proxy.trusted({"subnet": "172.20.0.0/16"}) == "172.20.0.1"


@pytest.mark.parametrize(("name", "local"), (("photos.lan", True), ("nas", True), ("photos.example.org", False)))
def test_names_that_no_public_authority_certifies(name, local):
    assert proxy.is_local_name(name) is local


def test_an_answer_is_read_or_is_none():
    assert proxy.answered(b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://a/\r\n\r\n")[0] == 308
    assert proxy.answered(b"HTTP/1.0 200 OK\r\n\r\n{}")[1] == b"{}"
    assert proxy.answered(b"SSH-2.0-x\r\n\r\n") is None
