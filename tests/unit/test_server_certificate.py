"""Whether Immich would trust a server is known before anything changes."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest

from immich_host import server_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Paths of a certificate for localhost, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(words, check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@contextlib.contextmanager
def server(answer, certificate=None):
    """A port that answers one SSLRequest, with TLS where there is a certificate."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                with client:
                    assert client.recv(8) == server_certificate.POSTGRES
                    client.sendall(answer)
                    if certificate:
                        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                        context.load_cert_chain(*certificate)
                        context.wrap_socket(client, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def refused(host, port, authority=None):
    return server_certificate.refused(host, port, authority, server_certificate.POSTGRES)


def test_a_server_is_trusted_by_its_authority_alone(certificate):
    authority = certificate[0]
    with server(b"S", certificate) as port:
        assert refused("localhost", port, authority) is None
    with server(b"S", certificate) as port:
        assert "a certificate that Immich would refuse: self" in refused("localhost", port)
    with server(b"S", certificate) as port:
        assert "IP address mismatch" in refused("127.0.0.1", port, authority)
    with server(b"N") as port:
        assert refused("localhost", port, authority) == f"localhost:{port} does not offer TLS"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refused("localhost", port, authority) is None
