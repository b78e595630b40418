"""
Caddy on this host: its files, what it has loaded, and what it serves for Immich
================================================================================

``settings`` are the formula's. Decisions are in ``immich_core.proxy``.
"""

import json
import os
import pwd
import socket
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import command, durable, systemctl, terminal
from immich_core import findings, proxy, sign_up
from immich_host import certificates
from immich_io import server, untrusted

PROGRAM = "caddy"
# Caddy's own, where its configuration names no other.
ADMIN = "localhost:2019"
# Seconds for a configuration to be read, for a reload, and until an authority has certified all names.
READ, RELOAD, CERTIFIED = 30, 60, 120
# A configuration with thousands of sites is larger than an answer of Immich's.
LARGEST_CONFIG = 16 * 1024**2


# -- files ----------------------------------------


def desired(settings):
    """
    Return what each file has to hold by its path, in the order in which they are written.

    Raises CommandExecutionError if the pillar names a certificate that cannot be read.
    """
    paths, found = proxy.paths(settings), {}
    files = {"certificate": settings["proxy"]["certificate"], "key": settings["proxy"]["key"]}
    for kind, source in files.items():
        found[paths[kind]] = certificates.text(source) if settings["proxy"]["tls"] == proxy.FILES else None
    found[paths["site"]] = proxy.site(settings)
    # Last: a Caddyfile that imports what is not there does not load.
    found[paths["config"]] = proxy.with_import(current(paths["config"]) or "", paths["config"], paths["site"])
    return found


def without(settings):
    """Return the same for a host without the proxy. First goes the line that imports the site."""
    paths = proxy.paths(settings)
    config = current(paths["config"])
    rest = {paths[kind]: None for kind in ("site", "key", "certificate")}
    return {paths["config"]: config and proxy.without_import(config, paths["site"]), **rest}


def current(path):
    """Return what a file holds; None where it is not there."""
    try:
        return Path(path).read_text(encoding="utf8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def differing(files):
    """Return what those files of a dictionary hold now that do not hold what they should."""
    held = {path: current(path) for path in files}
    return {path: held[path] for path in files if held[path] != files[path]}


def write(settings, files):
    """Write files of a dictionary, or remove those with None, in its order."""
    paths = proxy.paths(settings)
    for path, text in files.items():
        if text is None:
            Path(path).unlink(missing_ok=True)
        elif path == paths["config"] and os.path.exists(path):
            durable.replace(path, text)
        else:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            secret = path == paths["key"]
            group = pwd.getpwnam(settings["lookup"]["caddy"]["user"]).pw_gid if secret else 0
            durable.write(path, text, 0o640 if secret else 0o644, (0, group))


# -- Caddy ----------------------------------------


def active(settings):
    """Return whether Caddy's service is active."""
    shown = command.run(["systemctl", "is-active", settings["lookup"]["caddy"]["service"]], READ, check=False)
    return shown.strip() == "active"


def validate(settings):
    """Raise CommandExecutionError unless Caddy can load its files as they are, and no other site has Immich's names."""
    others = proxy.others(json.loads(_caddy(settings, "adapt")), settings["proxy"]["domains"])
    if others:
        raise CommandExecutionError(f"Another site of this Caddy has {', '.join(others)}. Next step: remove it there")
    _caddy(settings, "validate")


def reload(settings):
    """
    Have Caddy load its files, without a restart.

    Raises CommandExecutionError if it does not; then it goes on with what it had.
    """
    service, since = settings["lookup"]["caddy"]["service"], int(time.time())
    try:
        command.run(["systemctl", "reload", service], RELOAD)
    except command.CommandError as error:
        reason = _last_error(_log(settings, since))
        seen = f"{service} was not reloaded: {reason or error}"
        raise CommandExecutionError(f"{seen}. Next step: see `journalctl -u {service} -n 50`") from error


def outdated(settings):
    """
    Return whether Caddy has loaded another site for Immich than its files have.

    Raises CommandExecutionError if its files cannot be read.
    """
    names = settings["proxy"]["domains"]
    on_disk = json.loads(_caddy(settings, "adapt"))
    return proxy.part(on_disk, names) != proxy.part(_loaded(on_disk), names)


def _loaded(on_disk):
    """The configuration with which Caddy runs, by its admin API; nothing where that does not answer."""
    address = on_disk.get("admin", {}).get("listen") or ADMIN
    request = f"GET /config/ HTTP/1.0\r\nHost: {address}\r\n\r\n".encode()
    try:
        with _connected(address) as connection:
            status, content, _ = proxy.answered(untrusted.exchange(connection, request, READ, LARGEST_CONFIG)) or (
                0,
                b"",
                "",
            )
        return json.loads(content) if status == 200 else {}
    except (OSError, ValueError):
        return {}


def _connected(address):
    if address.startswith("unix/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(READ)
        connection.connect(address[len("unix/") :])
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]") or "localhost", int(port)), READ)


def _caddy(settings, verb):
    """
    What Caddy says of its files: as its own user and with its service's variables, which its files may name.

    As root it would create an authority and files that the service cannot write.
    """
    caddy = settings["lookup"]["caddy"]
    words = [PROGRAM, verb, "--config", caddy["config_file"], "--adapter", "caddyfile"]
    try:
        return command.run(["runuser", "-u", caddy["user"], "--", *words], READ, variables=_variables(caddy))
    except command.CommandError as error:
        reason = _last_error(error.words) or str(error)
        seen = f"Caddy refuses {caddy['config_file']}: {reason}"
        raise CommandExecutionError(f"{seen}. Next step: correct what it names") from error


def _variables(caddy):
    try:
        process = systemctl.run("show", "--property=MainPID", "--value", caddy["service"])
        pairs = Path(f"/proc/{int(process)}/environ").read_text(encoding="utf8", errors="surrogateescape")
        return dict(pair.split("=", 1) for pair in pairs.split("\0") if "=" in pair)
    except (command.CommandError, OSError, ValueError):
        return {"HOME": pwd.getpwnam(caddy["user"]).pw_dir}


def _last_error(text):
    """What stands behind the last `Error:` of a program's words, on one line."""
    return terminal.one_line(text.rpartition("Error: ")[2] if "Error: " in text else "")


def _log(settings, since):
    words = ["journalctl", "-u", settings["lookup"]["caddy"]["service"], "-o", "cat", "-n", "500", f"--since=@{since}"]
    return untrusted.output(words)


# -- what is served ----------------------------------------


def wait_for_certificates(settings, since, seconds=CERTIFIED):
    """
    Wait until every name is served with its certificate.

    since
        When Caddy was told to load its files, in seconds.

    Raises CommandExecutionError with the authority's reason if one is not to be had.
    """
    deadline = time.monotonic() + seconds
    while True:
        missing = [name for name in settings["proxy"]["domains"] if _uncertified(settings, name)]
        if not missing:
            return
        log = _log(settings, int(since))
        if proxy.gave_up(log, missing) or time.monotonic() > deadline:
            reason = terminal.one_line(proxy.failure(log, missing)) or f"none came within {seconds} s"
            seen = f"There is no certificate for {', '.join(missing)}: {reason}"
            raise CommandExecutionError(f"{seen}. Next step: {_CERTIFICATE[settings['proxy']['tls']]}")
        time.sleep(1)


_CERTIFICATE = {
    proxy.ACME: "the names have to lead to ports 80 and 443 of this host, from the internet",
    proxy.INTERNAL: "see `journalctl -u caddy -n 50`",
    proxy.FILES: "see `journalctl -u caddy -n 50`",
}


def _uncertified(settings, name):
    return any(each["severity"] == findings.ERROR for each in examined(settings, name, certificate_only=True))


def examined(settings, name, certificate_only=False, timeout=5):
    """
    Return what of a name is not served as declared, as findings.

    name
        One of the site's names.
    certificate_only
        Whether Immich does not matter. Defaults to False.
    timeout
        Seconds for each of connection and answer. Defaults to 5.
    """
    request = f"GET /api/server/ping HTTP/1.0\r\nHost: {name}\r\n\r\n".encode()
    try:
        held, answer = certificates.served(name, request, proxy.HTTPS, timeout)
        found = proxy.of_certificate(name, certificates.described(held), settings["proxy"]["tls"], time.time())
    except (OSError, ValueError) as error:
        return [proxy.unreachable(name, f"is not served on this host: {error}")]
    found += _outdated_certificate(settings, name, held)
    if certificate_only or any(each["severity"] == findings.ERROR for each in found):
        return found
    return [*found, *_not_passed_on(settings, name, answer), *_not_redirected(name, timeout)]


def _outdated_certificate(settings, name, held):
    declared = settings["proxy"]
    if declared["tls"] != proxy.FILES:
        return []
    path = declared["certificate"]
    return [] if certificates.first(certificates.text(path), path) == held else [proxy.another(name, path)]


def _not_passed_on(settings, name, answer):
    if settings["sign_up"] == sign_up.HOST:
        return []  # the site answers itself
    status, content, _ = proxy.answered(answer) or (0, b"", "")
    try:
        if status == 200 and json.loads(content) == server.PING:
            return []
    except (ValueError, RecursionError):
        pass
    return [proxy.unreachable(name, f"does not answer as Immich, but with the status {status}")]


def _not_redirected(name, timeout):
    request = f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode()
    try:
        with socket.create_connection((certificates.HERE, proxy.HTTP), timeout) as connection:
            status, _, head = proxy.answered(untrusted.exchange(connection, request, timeout)) or (0, b"", "")
    except (OSError, ValueError) as error:
        return [proxy.not_redirected(name, str(error))]
    if status in (301, 308) and f"location: https://{name}/" in head.lower():
        return []
    return [proxy.not_redirected(name, f"the answer has the status {status}")]
