"""
Certificates of TLS: in files of this host, and as a server shows them
======================================================================

:depends: - ``cryptography``, a dependency of Salt
"""

import datetime
import socket
import ssl
from pathlib import Path

from salt.exceptions import CommandExecutionError

from immich_io import untrusted

# A certificate with its chain has a few KB.
LARGEST = 1024**2
HERE = "127.0.0.1"


def described(der):
    """
    Return what a certificate says: ``{"names": [DNS names], "from": seconds, "until": seconds, "issuer": name}``.

    der
        The certificate, in DER.

    Raises ``ValueError`` if it is none.
    """
    from cryptography import x509  # takes a tenth of a second, and only hosts with a proxy need it

    parsed = x509.load_der_x509_certificate(der)
    try:
        alternative = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternative.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    issuer = parsed.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return {
        "names": list(names),
        "from": _seconds(parsed, "not_valid_before"),
        "until": _seconds(parsed, "not_valid_after"),
        "issuer": str(issuer[0].value) if issuer else "",
    }


def _seconds(parsed, name):
    """Of a time as seconds. Before cryptography 42 it has no time zone, which is UTC."""
    found = getattr(parsed, f"{name}_utc", None) or getattr(parsed, name).replace(tzinfo=datetime.timezone.utc)
    return found.timestamp()


def text(path):
    """
    Return what a PEM file holds.

    path
        The file.

    Raises ``CommandExecutionError`` that says why it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            held = file.read(LARGEST + 1)
    except OSError as error:
        raise CommandExecutionError(f"{path} cannot be read: {error.strerror}") from error
    if len(held) > LARGEST:
        raise CommandExecutionError(f"{path} has more than {LARGEST} bytes: it is no certificate")
    return held.decode(errors="surrogateescape")


def first(pem, path):
    """
    Return the first certificate of a PEM file, in DER.

    pem, path
        What the file holds, and where it is.

    Raises ``CommandExecutionError`` if there is none.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        return ssl.PEM_cert_to_DER_cert(f"{begin}{pem.split(begin, 1)[1].split(end, 1)[0]}{end}")
    except (IndexError, ValueError) as error:
        raise CommandExecutionError(f"{path} holds no certificate in PEM") from error


def check_pair(certificate, key):
    """
    Raise ``CommandExecutionError`` unless a private key is that of a certificate, and has no passphrase.

    certificate, key
        Paths of the PEM files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", "") or str(error)
        raise CommandExecutionError(
            f"{key} is not the private key of {certificate}, or has a passphrase ({reason})"
        ) from error


def served(domain, request, port, timeout=5):
    """
    Return the certificate that this host serves for a name, in DER, and what is answered to a request.

    Whether anybody trusts the certificate does not matter.

    domain
        The name.
    request
        The request, in HTTP/1.0.
    port
        The port of HTTPS.
    timeout
        Seconds for each of connection and answer. Defaults to 5.

    Raises ``OSError`` or ``ValueError`` if there is no answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((HERE, port), timeout) as plain:
        with context.wrap_socket(plain, server_hostname=domain) as connection:
            return connection.getpeercert(binary_form=True), untrusted.exchange(connection, request, timeout)
