"""
Caddy in front of Immich: its site, where it is imported, and what is wrong with a certificate
==============================================================================================

``settings`` are the formula's; ``settings["proxy"]["domains"]`` is empty where no proxy is declared. ``config`` is a
configuration of Caddy as JSON, as ``caddy adapt`` and its admin API show it. Written for Caddy 2.6.2, which Debian 12
and 13 have.
"""

import fnmatch
import ipaddress
import json
import os
import re

from immich_core import findings, sign_up

PART = "proxy"
ACME, INTERNAL, FILES = "acme", "internal", "files"
HTTP, HTTPS = 80, 443
# Immich's own variable: whose X-Forwarded-For its server believes.
TRUSTED_PROXIES = "IMMICH_TRUSTED_PROXIES"
# Of the site and of what the formula adds to a file of others.
HEAD = "# Written by Salt (immich.proxy). Changes made here are lost.\n"
IMPORT_COMMENT = "# Added by Salt (immich.proxy): Immich's site."
CERTIFICATE = "immich-certificate.pem"
NO_SITES = "# No sites.\n"
# Caddy's own authority, unless its administrator has named it.
INTERNAL_ISSUER = "Caddy Local Authority"
# Caddy renews when a third of a certificate's lifetime is left.
OVERDUE = 1 / 5
# Nobody renews a file but a person or a program of theirs: seconds.
SOON = 14 * 24 * 3600
# Names that no public authority certifies: RFC 6761, RFC 6762, RFC 8375, and ICANN's .internal.
LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa", "lan", "home", "test", "invalid", "corp")
NOBODY = "Nobody has signed up as Immich's administrator yet, and until then only its host reaches Immich."


def domains(declared):
    """
    Return the names of the site, in their order.

    declared
        ``immich:proxy:domain``: one name, a list of names, or nothing.

    .. code-block:: python

        proxy.domains("photos.example.org")
    """
    if declared is None:
        return []
    return [declared] if isinstance(declared, str) else list(declared)


def trusted(network):
    """
    Return the address from which Immich's server sees the requests of a program on this host: netavark masquerades
    them as the gateway of the container's network.

    network
        Immich's network: ``subnet``, and ``gateway`` if it has one of its own.

    .. code-block:: python

        proxy.trusted({"subnet": "172.20.0.0/16"})
    """
    return network.get("gateway") or str(ipaddress.ip_network(network["subnet"], strict=False)[1])


def is_local_name(domain):
    """
    Return whether no public authority can certify a name.

    domain
        The name.

    .. code-block:: python

        proxy.is_local_name("photos.lan")
    """
    return "." not in domain or any(domain == each or domain.endswith(f".{each}") for each in LOCAL_NAMES)


# -- files ----------------------------------------


def paths(settings):
    """
    Return the files of the site, by what they are: ``config``, ``site``, ``certificate`` and ``key``.

    settings
        The formula's settings.

    .. code-block:: python

        proxy.paths(settings)["site"]
    """
    caddy = settings["lookup"]["caddy"]
    folder = os.path.dirname(caddy["config_file"])
    return {
        "config": caddy["config_file"],
        "site": caddy["site_file"],
        "certificate": f"{folder}/{CERTIFICATE}",
        "key": f"{folder}/immich-key.pem",
    }


def site(settings):
    """
    Return the text of Immich's site.

    While only this host may reach Immich (``sign_up``), the site passes nothing on: it would let everybody in.

    settings
        The formula's settings.

    .. code-block:: python

        proxy.site(settings)
    """
    names = settings["proxy"]["domains"]
    handling = _CLOSED if settings["sign_up"] == sign_up.HOST else _OPEN
    return "".join(
        (
            HEAD,
            ", ".join(f"http://{name}" for name in names),
            " {\n\tredir https://{host}{uri} 308\n}\n\n",
            ", ".join(f"https://{name}" for name in names),
            " {\n",
            _tls(settings),
            '\theader {\n\t\tStrict-Transport-Security "max-age=31536000"\n\t\tdefer\n\t}\n',
            handling.replace("PORT", str(settings["port"])),
            "}\n",
        )
    )


# Caddy passes bodies on as they arrive, without a limit and without its disk, opens websockets, and sets
# X-Forwarded-For, -Proto and -Host itself: those of a client are dropped.
_OPEN = """\
	reverse_proxy 127.0.0.1:PORT {
		header_up X-Real-IP {remote_host}
		transport http {
			dial_timeout 10s
			response_header_timeout 600s
			read_timeout 600s
			write_timeout 600s
		}
	}
"""
_CLOSED = f'\trespond "{NOBODY}" 503\n'


def _tls(settings):
    source, email = settings["proxy"]["tls"], settings["proxy"]["email"]
    if source == INTERNAL:
        return "\ttls internal\n"
    if source == FILES:
        files = paths(settings)
        return f"\ttls {files['certificate']} {files['key']}\n"
    return f"\ttls {email}\n" if email else ""


def with_import(text, config_file, site_file):
    """
    Return a Caddyfile that imports the site: as it is if it does already, else with one line more at its end.

    text
        What the Caddyfile holds.
    config_file, site_file
        The paths of both.

    .. code-block:: python

        proxy.with_import("", "/etc/caddy/Caddyfile", "/etc/caddy/conf.d/immich.caddyfile")
    """
    if any(_covers(pattern, config_file, site_file) for pattern in _imported(text)):
        return text
    before = f"{text.rstrip()}\n\n" if text.strip() else ""
    return f"{before}{IMPORT_COMMENT}\nimport {site_file}\n"


def without_import(text, site_file):
    """
    Return a Caddyfile without the line that :py:func:`with_import` adds; a line of its administrator's stays.

    text
        What the Caddyfile holds.
    site_file
        The site's path.

    .. code-block:: python

        proxy.without_import(text, "/etc/caddy/conf.d/immich.caddyfile")
    """
    added = f"{IMPORT_COMMENT}\nimport {site_file}\n"
    if added not in text:
        return text
    before, _, after = text.partition(added)
    # Caddy refuses a file without a word.
    return ((f"{before.rstrip()}\n" if before.strip() else "") + after) or NO_SITES


def _imported(text):
    """What a Caddyfile imports outside of any block."""
    depth = 0
    for line in text.splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if depth == 0 and len(words) == 2 and words[0] == "import":
            yield words[1].strip('"`')
        depth += words.count("{") + sum(word.endswith("{") and word != "{" for word in words[-1:]) - words.count("}")


def _covers(pattern, config_file, site_file):
    full = os.path.normpath(os.path.join(os.path.dirname(config_file), pattern))
    # A * of Caddy's does not reach into a folder.
    return os.path.dirname(full) == os.path.dirname(site_file) and fnmatch.fnmatchcase(site_file, full)


# -- what is loaded ----------------------------------------


def part(config, names):
    """
    Return what of a configuration is about some names, as text that can be compared.

    config
        As above.
    names
        The site's names.

    .. code-block:: python

        proxy.part(adapted, names) == proxy.part(running, names)
    """
    apps = config.get("apps", {})
    servers, tls = apps.get("http", {}).get("servers", {}).values(), apps.get("tls", {})
    routes = [route for server in servers for route in server.get("routes", []) if _hosts(route) & set(names)]
    policies = [
        {**policy, "subjects": sorted(set(policy["subjects"]) & set(names))}
        for policy in tls.get("automation", {}).get("policies", [])
        if set(policy.get("subjects", [])) & set(names)
    ]
    loaded = [file.get("certificate", "") for file in tls.get("certificates", {}).get("load_files", [])]
    files = [path for path in loaded if os.path.basename(path) == CERTIFICATE]
    return json.dumps([routes, policies, files], sort_keys=True)


def others(config, names):
    """
    Return those names for which a configuration has another site besides Immich's. Where one names the scheme and the
    other does not, Caddy refuses neither, but handles requests by both, or by the first of them.

    config, names
        As for :py:func:`part`.

    .. code-block:: python

        proxy.others(adapted, ["photos.example.org"])
    """
    servers = config.get("apps", {}).get("http", {}).get("servers", {}).values()
    return [
        name
        for name in names
        if any(
            sum(len(route.get("handle", [])) for route in server.get("routes", []) if name in _hosts(route)) > 1
            for server in servers
        )
    ]


def _hosts(route):
    return {host for matcher in route.get("match", []) for host in matcher.get("host", [])}


def failure(log, names):
    """
    Return why Caddy could not get a certificate for one of some names, or an empty text. Of several authorities, which
    it asks one after the other, what the first has said.

    log
        What it has logged as JSON, a line for each entry.
    names
        The site's names.

    .. code-block:: python

        proxy.failure(log, ["photos.example.org"])
    """
    reasons, refused = {}, {}
    for entry in _entries(log, names):
        name, said = entry.get("identifier", ""), _said(entry)
        if entry["msg"] == _REFUSED:
            refused[name] = said
        else:
            # Of an issuer the last one; without an issuer it repeats what the last of them said.
            reasons[entry.get("issuer", "")] = refused.pop(name, said)
    issuer, reason = next(iter([*reasons.items(), *refused.items()]), ("", ""))
    return f"{issuer}: {reason}" if issuer else reason


def _said(entry):
    """The error of an entry. Since acmez 1.1 what the authority answered is an object."""
    problem = entry.get("problem")
    return str(entry.get("error") or (problem.get("detail", "") if isinstance(problem, dict) else ""))


def _entries(log, names):
    """What Caddy has logged of certificates for some names that it could not get."""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
            about = str(entry.get("identifier", "")) or str(entry.get("error", ""))
        except (ValueError, AttributeError, RecursionError):
            continue
        failed = str(entry.get("logger", "")).startswith(_LOGGERS) and entry.get("msg") in _FAILED
        if failed and any(name in about for name in names):
            yield entry


_LOGGERS = ("tls", "http.acme_client")
# acmez, client.go: the authority has refused a challenge. After the last one the error may only say that none is left.
_REFUSED = "validating authorization"
# certmagic, async.go and config.go: after one of all authorities has failed, and before the next try.
_RETRY = "will retry"
_FAILED = (_REFUSED, _RETRY, "could not get certificate from issuer")


def gave_up(log, names):
    """
    Return whether Caddy has asked all authorities for one of some names, and waits before it tries again.

    log, names
        As for :py:func:`failure`.

    .. code-block:: python

        proxy.gave_up(log, ["photos.example.org"])
    """
    return any(entry["msg"] == _RETRY for entry in _entries(log, names))


# -- certificates ----------------------------------------


def of_certificate(domain, certificate, tls, now):
    """
    Return what is wrong with a certificate for a name, as findings.

    domain
        The name.
    certificate
        ``{"names": [DNS names], "from": seconds, "until": seconds, "issuer": name}``.
    tls
        Where it comes from, as in ``immich:proxy:tls``.
    now
        The time, in seconds.

    .. code-block:: python

        proxy.of_certificate("photos.example.org", certificate, "acme", time.time())
    """
    if not any(_matches(name, domain) for name in certificate["names"]):
        for_whom = ", ".join(certificate["names"][:8]) or "no name"
        return [_finding("proxy-certificate-name", domain, f"its certificate is for {for_whom}", _REMEDY[tls])]
    if not certificate["from"] <= now < certificate["until"]:
        when = "has expired" if now >= certificate["until"] else "is not valid yet"
        return [_finding("proxy-certificate-expired", domain, f"its certificate {when}", _REMEDY[tls])]
    if tls == ACME and certificate["issuer"].startswith(INTERNAL_ISSUER):
        seen = "its certificate is of Caddy's own authority, which no browser knows"
        return [_finding("proxy-certificate-internal", domain, seen, _REMEDY[tls])]
    left, lifetime = certificate["until"] - now, certificate["until"] - certificate["from"]
    if left < (SOON if tls == FILES else lifetime * OVERDUE):
        when = f"in {left // 86400:.0f} day(s)" if left >= 86400 else f"in {left // 3600:.0f} hour(s)"
        seen = f"its certificate expires {when} and has not been renewed"
        return [_finding("proxy-certificate-expires", domain, seen, _REMEDY[tls], findings.WARNING)]
    return []


_REMEDY = {
    ACME: "`journalctl -u caddy -n 50` has the authority's reason",
    INTERNAL: "`systemctl restart caddy`, then see `journalctl -u caddy -n 50`",
    FILES: "renew immich:proxy:certificate, then: salt-call state.apply immich.proxy",
}


def _finding(code, domain, seen, remedy, severity=findings.ERROR):
    return findings.finding(code, PART, f"https://{domain}: {seen}", remedy, severity=severity)


def _matches(name, domain):
    if name.startswith("*."):
        return domain.partition(".")[2] == name[2:].lower()
    return name.lower() == domain


def unreachable(domain, why):
    """
    Return the finding that a name is not served.

    domain
        The name.
    why
        What was seen.

    .. code-block:: python

        proxy.unreachable("photos.example.org", "the connection is refused")
    """
    return _finding("proxy-unreachable", domain, why, "`journalctl -u caddy -n 50`, then: salt-call state.apply immich")


def inactive(service):
    """
    Return the finding that Caddy does not run.

    service
        Its service.

    .. code-block:: python

        proxy.inactive("caddy")
    """
    remedy = f"`systemctl start {service}`, or see `journalctl -u {service} -n 50`"
    return findings.finding("proxy-inactive", PART, "Caddy does not run", remedy, f"{service}.service")


def another(domain, path):
    """
    Return the finding that a name is served with another certificate than that of its file.

    domain, path
        The name, and the file.

    .. code-block:: python

        proxy.another("photos.example.org", "/etc/letsencrypt/live/photos.example.org/fullchain.pem")
    """
    seen = f"is served with another certificate than that of {path}"
    return _finding("proxy-certificate-outdated", domain, seen, "salt-call state.apply immich.proxy")


def not_redirected(domain, why):
    """
    Return the finding that HTTP does not lead to HTTPS.

    domain
        The name.
    why
        What was seen.

    .. code-block:: python

        proxy.not_redirected("photos.example.org", "the connection is refused")
    """
    seen = f"http://{domain} does not lead there: {why}"
    return _finding("proxy-not-redirected", domain, seen, findings.apply("immich.proxy"))


def answered(data):
    """
    Return status, content and head of an answer, or None if it is no HTTP.

    data
        The bytes that came.

    .. code-block:: python

        proxy.answered(b"HTTP/1.0 200 OK\\r\\n\\r\\n{}")
    """
    head, _, content = data.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    return (int(found[1]), content, head.decode("latin-1")) if found else None
