"""
The files that Immich's containers get as secrets: what each has to hold
=========================================================================

``settings`` are the formula's, ``pillar`` is the whole pillar (``__pillar__``). Each file is below ``secrets`` of the
project's directory, has one of the names of ``compose.secrets``, and belongs to the container's user.
"""

import ssl
import unicodedata
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core.pillar import value
from immich_core import compose, hardware, server_settings

# Of a file that somebody names: a certificate bundle of a distribution has 220 KB.
LARGEST = 1024**2


def desired(settings, pillar):
    """
    Return what each file has to hold, in bytes, by its name; None where the pillar does not say it.

    Raises CommandExecutionError if one depends on a file of this host that cannot be read.
    """
    found = {}
    for name, path in compose.SECRETS.items():
        password = value(pillar, path)
        found[name] = None if password is None else str(password).encode()
    if settings["server"]["settings_managed"]:
        found[compose.SERVER_SETTINGS] = settings_text(settings, pillar).encode()
    if settings["server"]["trusted"]:
        found[compose.CA_CERTIFICATES] = certificates(settings["server"]["trusted"])
    return found


def certificates(files):
    """
    Return what is in files of certificates, one after the other, in bytes.

    Raises CommandExecutionError if one cannot be read.
    """
    return b"".join(_read(file).rstrip(b"\n") + b"\n" for file in files)


def settings_text(settings, pillar):
    """
    Return the text of Immich's configuration file, which holds secrets.

    Raises CommandExecutionError if a secret is not where the pillar says.
    """
    declared = declared_settings(settings, pillar)
    secrets = {path: secret(where, pillar) for path, where in server_settings.references(declared).items()}
    return server_settings.text(declared, secrets)


def declared_settings(settings, pillar):
    """Return Immich's settings as the pillar declares them: ``immich:settings``, and what ``immich:hardware`` means."""
    declared = value(pillar, f"immich:{server_settings.KEY}")
    return server_settings.merged(hardware.settings_for(settings["hardware"]), declared)


def secret(where, pillar):
    """
    Return a secret of Immich's settings.

    where
        ``{"pillar": path}`` or ``{"file": path}``.

    Raises CommandExecutionError that says why there is none.
    """
    if "pillar" in where:
        place, found = where["pillar"], value(pillar, where["pillar"])
        if not isinstance(found, str):
            raise CommandExecutionError(f"names {place}, where the pillar has no text")
    else:
        place, found = where["file"], _read(where["file"]).decode(errors="replace")
    found = found.rstrip("\n")
    if not found or any(unicodedata.category(char) in ("Cc", "Cs") for char in found):
        raise CommandExecutionError(f"names {place}, which must contain one line of text")
    return found


def unusable_certificates(path):
    """Return why a file holds no certificates for Immich to trust, or None if it does."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_read(path).decode("ascii"))
    except CommandExecutionError as error:
        return str(error)
    except (ssl.SSLError, ValueError):
        return f"names {path}, which does not contain certificates in PEM format"
    return None


def _read(path):
    try:
        with open(Path(path), "rb") as file:
            held = file.read(LARGEST + 1)
    except OSError as error:
        raise CommandExecutionError(f"names {path}, which cannot be read: {error.strerror}") from error
    if len(held) > LARGEST:
        raise CommandExecutionError(f"names {path}, which is larger than {LARGEST // 1024} KiB")
    return held
