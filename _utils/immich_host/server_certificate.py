"""
Whether Immich would trust the certificate of PostgreSQL or Valkey
===================================================================

Asked with Python's own TLS: no login is needed, which a first run has not created yet.
"""

import socket
import ssl
import struct

# PostgreSQL's SSLRequest (its documentation, "Message Formats"): length and code. Answered with S or N.
POSTGRES = struct.pack("!ii", 8, 80877103)
_SECONDS = 5


def refused(host, port, authorities=None, request=b""):
    """
    Return why a client that demands TLS would not connect to a server, or None: also if the server does not answer,
    which the states report that connect to it.

    host, port
        Address of the server, as Immich uses it.
    authorities
        File of the certificate authorities to trust besides the usual ones. Defaults to none.
    request
        What asks the server for TLS, such as ``POSTGRES``. Defaults to none: it begins with TLS.

    .. code-block:: python

        server_certificate.refused("db.example.com", 5432, "/etc/ssl/db-ca.pem", server_certificate.POSTGRES)
    """
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            connection.sendall(request)
            if request and connection.recv(1) != b"S":
                return f"{host}:{port} does not offer TLS"
            context = ssl.create_default_context()
            if authorities:
                context.load_verify_locations(cafile=authorities)
            with context.wrap_socket(connection, server_hostname=host):
                return None
    except ssl.SSLCertVerificationError as error:
        return f"{host}:{port} has a certificate that Immich would refuse: {error.verify_message}"
    except ssl.SSLError as error:
        return f"{host}:{port} has no TLS that Immich could use: {error.reason}"
    except OSError:
        return None
