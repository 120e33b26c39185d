"""A proxy in front of the web that terminates TLS with a self-signed certificate and forwards plain HTTP."""

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "poolhouse.example"
# Not 127.0.0.1, because gunicorn trusts that address, and a proxy is rarely on the same machine.
PROXY_ADDRESS = "127.0.0.2"
TIMEOUT_S = 60
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key; return their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    certificate_file, key_file = folder / "proxy.crt", folder / "proxy.key"
    pem = serialization.Encoding.PEM
    certificate_file.write_bytes(certificate.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return certificate_file, key_file


def _handler(web_port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Forward a request; X-Forwarded-Proto is replaced by https, whatever the client sent."""

        def _pass_on(self) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "x-forwarded-proto"}
            headers |= {"X-Forwarded-Proto": "https", "Connection": "close"}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            source = (PROXY_ADDRESS, 0)
            with closing(
                http.client.HTTPConnection("127.0.0.1", web_port, timeout=TIMEOUT_S, source_address=source)
            ) as web:
                web.request(self.command, self.path, body, headers)
                answer = web.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP | {"content-length", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _pass_on  # noqa: N815 - http.server requires these names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return Handler


@contextmanager
def tls_proxy(web_port: int, folder: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Run a proxy during a block; yield its port, and a client context that trusts its certificate."""
    certificate, key = write_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(web_port)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], ssl.create_default_context(cafile=str(certificate))
        finally:
            server.shutdown()
            thread.join()
