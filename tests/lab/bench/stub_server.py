"""An OpenAI server that generates numbers, for tests of what measures servers.

    python -m tests.lab.bench.stub_server --port PORT [--record FILE] [--fault FAULT] [--text]

It appends the body of every completion to the file, and has the fault it is given.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_IDS_FIELDS = {"model", "prompt", "max_tokens", "temperature", "stream", "stream_options"} | {
    "ignore_eos"
}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--record")
    options.add_argument("--fault", choices=["dies", "short", "error", "refuses", "unnamed"])
    options.add_argument("--text", action="store_true", help="take text, and no `ignore_eos`")
    given = options.parse_args()
    if given.fault == "dies":
        raise SystemExit("no such checkpoint")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = [] if given.fault == "unnamed" else [{"id": "stub"}]
            self._send(200, json.dumps({"data": listed}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if given.record:
                with open(given.record, "a") as file:
                    file.write(json.dumps(body) + "\n")
            is_text = isinstance(body["prompt"], str)
            if given.fault == "refuses" or is_text != given.text:
                self._send(400, json.dumps({"error": {"message": "not such a prompt"}}))
                return
            if given.text:
                assert "ignore_eos" not in body
            else:
                assert set(body) == _IDS_FIELDS
            prompt = body["prompt"].split() if is_text else body["prompt"]
            self._send(200, "".join(map(_event, _chunks(body, len(prompt)))))

        def _send(self, status: int, content: str) -> None:
            self.send_response(status)
            is_stream = content.startswith("data: ")
            kind = "text/event-stream" if is_stream else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            pass

    def _chunks(body: dict[str, Any], num_prompt_tokens: int) -> list[Any]:
        count = body["max_tokens"] - (1 if given.fault == "short" else 0)
        chunks: list[Any] = [{"choices": [{"text": str(i)}]} for i in range(count)]
        if given.fault == "error":
            return [*chunks[:1], {"error": {"message": "out of memory"}}]
        usage = {"prompt_tokens": num_prompt_tokens, "completion_tokens": count}
        return [*chunks, {"choices": [], "usage": usage}, "[DONE]"]

    ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()


def _event(chunk: Any) -> str:
    return f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n"


if __name__ == "__main__":
    main()
