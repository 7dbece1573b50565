"""The part of the Hugging Face hub that a download asks, on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

__all__ = ["COMMIT", "fake_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub(
    repositories: Mapping[str, Mapping[str, bytes]], gated: frozenset[str] = frozenset()
) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories of files; yields the address, and the files that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
                self._list("/".join(parts[2:4]))
            elif parts[:2] == ["api", "models"]:
                self._tell("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            elif parts[2:3] == ["resolve"]:
                self._give("/".join(parts[:2]), "/".join(parts[4:]))
            else:
                self._fail(404, "EntryNotFound")

        def _tell(self, repo_id: str, revision: str) -> None:
            if repo_id in gated:
                self._fail(403, "GatedRepo")
            elif repo_id not in repositories:
                self._fail(404, "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self._fail(404, "RevisionNotFound")
            else:
                files = repositories[repo_id].items()
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files]
                found = {"id": repo_id, "modelId": repo_id, "sha": COMMIT, "siblings": siblings}
                self._send(json.dumps(found).encode(), {"Content-Type": "application/json"})

        def _list(self, repo_id: str) -> None:
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                for name, data in repositories[repo_id].items()
            ]
            self._send(json.dumps(files).encode(), {"Content-Type": "application/json"})

        def _give(self, repo_id: str, name: str) -> None:
            data = repositories[repo_id][name]
            if self.command == "GET":
                asked.append(name)
            digest = hashlib.sha256(data).hexdigest()
            self._send(data, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

        def _send(self, data: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def _fail(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
