"""One request at the ASGI interface, with a client that can leave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI

__all__ = ["call"]

_PATH = "/v1/chat/completions"


async def call(app: FastAPI, body: dict[str, Any], send: Any, left: asyncio.Event) -> None:
    """One request at the ASGI interface; `left` is the client's going."""
    content = json.dumps(body).encode()
    is_read = False

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": content, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
