"""As much of S3 as an object store's client needs, on a port of this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import pytest

SECRET = "wJalrXUtnFEMI-secret"
KEY_ID = "AKIDEXAMPLE"


class S3Server:
    """One bucket in memory. `fault`, where set, is the answer to everything: a status and body.

    Attributes:
        objects: Content by key.
        calls: Method, key and `if-none-match` of every request.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str, str | None]] = []
        self.fault: tuple[int, str] | None = None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"s3": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def lend_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the environment as an operator would."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._http.server_port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "local")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def damage(self, key: str) -> Callable[[bytes | None], None]:
        """Writes other bytes in an object's stead, or removes it."""

        def act(content: bytes | None) -> None:
            if content is None:
                del self.objects[key]
            else:
                self.objects[key] = content

        return act


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3Server

    def handle_one_request(self) -> None:
        self.close_connection = True  # no idle connection outlives the server
        super().handle_one_request()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        body, key = self._begin()
        source = self.headers.get("x-amz-copy-source")
        if self._is_faulty():
            return None
        if self.headers.get("if-none-match") == "*" and key in self.s3.objects:
            return self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if source is None:
            self.s3.objects[key] = body
            return self._send(200, etag=body)
        name = unquote(source).removeprefix("/").partition("/")[2]
        if name not in self.s3.objects:
            return self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        self.s3.objects[key] = self.s3.objects[name]
        return self._send(200, b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>")

    def do_GET(self) -> None:
        _, key = self._begin()
        if self._is_faulty():
            return None
        if key == "":
            return self._send(200, self._listing())
        if key not in self.s3.objects:
            return self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return self._send(200, self.s3.objects[key], etag=self.s3.objects[key])

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        _, key = self._begin()
        if not self._is_faulty():
            self.s3.objects.pop(key, None)
            self._send(204)

    def do_POST(self) -> None:
        """The bulk delete."""
        body, _ = self._begin()
        if self._is_faulty():
            return
        names = [
            node.text or "" for node in ElementTree.fromstring(body).iter() if "Key" in node.tag
        ]
        for name in names:
            self.s3.objects.pop(name, None)
        deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
        self._send(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _begin(self) -> tuple[bytes, str]:
        key = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")[2]
        self.s3.calls.append((self.command, key, self.headers.get("if-none-match")))
        return self.rfile.read(int(self.headers.get("content-length", 0))), key

    def _is_faulty(self) -> bool:
        fault = self.s3.fault  # read once: the test may end it as soon as it has the answer
        if fault is None:
            return False
        self._send(fault[0], fault[1].encode())
        return True

    def _listing(self) -> bytes:
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        now = datetime.now(UTC).isoformat()
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(content)}</Size><ETag>e</ETag>"
            f"<LastModified>{now}</LastModified></Contents>"
            for key, content in sorted(self.s3.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult>{contents}</ListBucketResult>".encode()

    def _send(self, status: int, body: bytes = b"", *, etag: bytes | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("last-modified", format_datetime(datetime.now(UTC), usegmt=True))
        if etag is not None:
            self.send_header("etag", f'"{hashlib.md5(etag).hexdigest()}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
