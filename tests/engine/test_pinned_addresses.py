"""Posting to a host at addresses that were checked before: its name is not looked up again."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.engine.chat_server import chatting
from training.engine.errors import JudgeError
from training.engine.posting import Post

#: A name that no resolver knows (RFC 6761).
NAME = "judge.invalid"


def post(url: str, *addresses: str) -> bytes:
    asked = Post(
        url=url,
        timeout_s=30.0,
        retries=0,
        max_reply_bytes=1000,
        failed=JudgeError,
        addresses=addresses,
    )
    return asked.ask(json.dumps({"messages": [{"content": "Well?"}]}).encode())


def test_the_first_address_that_answers_is_asked_for_the_host_by_its_name() -> None:
    with chatting(lambda _: "[[A]]") as server:
        url = server.url.replace("127.0.0.1", NAME)
        assert b"[[A]]" in post(url, "127.0.0.2", "127.0.0.1")
        assert server.headers[0]["Host"].startswith(f"{NAME}:")
        with pytest.raises(JudgeError):
            post(server.url, "127.0.0.2")  # what the name says now does not count
        assert len(server.requests) == 1


class Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl makes a certificate")
def test_the_certificate_is_that_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
         "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        with pytest.raises(JudgeError, match="CERTIFICATE_VERIFY_FAILED"):
            post(f"https://{NAME}:{server.server_port}/v1", "127.0.0.1")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert post(f"https://{NAME}:{server.server_port}/v1", "127.0.0.1") == b"{}"
        with pytest.raises(JudgeError, match="CERTIFICATE_VERIFY_FAILED"):
            post(f"https://another.invalid:{server.server_port}/v1", "127.0.0.1")
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
