"""Servers on 127.0.0.1 whose certificate is for `right.example`, by an authority of their own."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

RIGHT = "right.example"
WRONG = "wrong.example"


def write_certificate(folder: Path) -> Path:
    """A self-signed certificate and its key, in one file; it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, RIGHT)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(RIGHT)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@dataclass
class TlsServer:
    """What clients asked for and sent, once they had accepted the certificate."""

    port: int
    certificate: Path
    names: list[str] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)


@contextmanager
def tls_server(
    folder: Path, *, greet: Callable[[socket.socket], None] | None = None, answer: bytes = b""
) -> Iterator[TlsServer]:
    """greet: what is said before TLS begins; answer: to whatever a client says in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = socket.create_server(("127.0.0.1", 0))
    server = TlsServer(listener.getsockname()[1], write_certificate(folder))
    context.load_cert_chain(server.certificate)
    context.sni_callback = lambda _, name, __: server.names.append(name or "")

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                if greet is not None:
                    greet(plain)
                with context.wrap_socket(plain, server_side=True) as secure:
                    if said := secure.recv(65536):
                        server.said.append(said)
                    secure.sendall(answer)
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
