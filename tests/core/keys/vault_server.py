"""A Vault on 127.0.0.1 that knows its transit engine, as the API's documentation has it.

`POST /v1/transit/encrypt/<key>` and `/decrypt/<key>`: base64 in and out, `X-Vault-Token`, errors
as `{"errors": [...]}`; an aes256-gcm96 key, whose associated data has to be the same.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.a-token"


class Vault(ThreadingHTTPServer):
    """One transit key named `lockstep`; the fields may be set to make it fail."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.versions = [AESGCM(AESGCM.generate_key(256))]
        self.sealed = False
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def rotate(self) -> None:
        self.versions.append(AESGCM(AESGCM.generate_key(256)))

    def answer(self, path: str, body: dict[str, Any], token: str | None) -> tuple[int, Any]:
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN:
            return 403, {"errors": ["permission denied"]}
        verb, _, key = path.removeprefix("/v1/transit/").partition("/")
        if key != "lockstep":
            return 400, {"errors": ["encryption key not found"]}
        data = base64.b64decode(body.get("associated_data", ""))
        return self._encrypted(body, data) if verb == "encrypt" else self._decrypted(body, data)

    def _encrypted(self, body: dict[str, Any], data: bytes) -> tuple[int, Any]:
        nonce, version = os.urandom(12), len(self.versions)
        sealed = self.versions[-1].encrypt(nonce, base64.b64decode(body["plaintext"]), data)
        text = base64.b64encode(nonce + sealed).decode()
        return 200, {"data": {"ciphertext": f"vault:v{version}:{text}", "key_version": version}}

    def _decrypted(self, body: dict[str, Any], data: bytes) -> tuple[int, Any]:
        _, version, text = body["ciphertext"].split(":")
        sealed = base64.b64decode(text)
        try:
            plain = self.versions[int(version[1:]) - 1].decrypt(sealed[:12], sealed[12:], data)
        except InvalidTag:
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}


class _Handler(BaseHTTPRequestHandler):
    server: Vault

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, dict(self.headers)))
        status, content = self.server.answer(self.path, body, self.headers.get("X-Vault-Token"))
        payload = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def running_vault() -> Iterator[Vault]:
    server = Vault()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
