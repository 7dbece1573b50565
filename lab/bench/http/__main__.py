"""Compare OpenAI servers side by side over HTTP, in turn, on one core.

    python -m lab.bench http --tokenizer FOLDER
        --server ours="coxswain serve --model FOLDER --threads 1 --port {port}"
        --server peer="llama-server -m FILE --port {port}"
        [--concurrency 1 4 32] [--prompt-tokens 64 400] [--new-tokens 32] [--rounds 5]

A server is given by the command that starts it or by its address. Those started are kept to one
core with one thread each, and stopped (SIGSTOP) while another is measured; the client is kept to
the other cores. A round sends, to every server in turn, so many requests at once, for each number
of requests and length of prompts; every second round goes through the servers backwards. Prompts
are new in every burst, and the same for all servers. Answers are decoded greedily, streamed, and
checked to have the tokens that were asked for. On a machine that does other things, compare by
processor time: it leaves out what others took.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.bench.workload import describe

from .burst import Burst, Prompts, run_burst
from .report import table
from .server import Server, ServerError

_WARM_TOKENS = 8
_Cell = tuple[int, int]  # requests at once, tokens of a prompt


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with pairs `NAME=VALUE` as dictionaries."""
    options = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m lab.bench http",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("--server", action="append", required=True, type=_pair, metavar="NAME=COMMAND|URL")
    add("--tokenizer", type=Path, required=True, help="folder with the model's tokenizer.json")
    add("--concurrency", type=int, nargs="+", default=[1, 4, 32], help="requests at once")
    add("--prompt-tokens", type=int, nargs="+", default=[64, 400])
    add("--new-tokens", type=int, default=32)
    add("--rounds", type=int, default=5)
    add("--core", type=int, default=max(os.sched_getaffinity(0)), help="core of the servers")
    add("--seed", type=int, default=0, help="of the prompts")
    add("--start-seconds", type=float, default=300, help="how long a server may take to be ready")
    add("--text", nargs="+", default=[], metavar="NAME", help="servers that take text, not ids")
    add(
        "--body",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=JSON",
        help="fields of the requests to a server; null leaves a usual one out",
    )
    add(
        "--model",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=ID",
        help="model to ask a server for; else the first of its /v1/models",
    )
    add("--out", type=Path, help="file for every measured burst, a line of JSON each")
    given = options.parse_args(arguments)
    for name in ("server", "body", "model"):
        setattr(given, name, dict(getattr(given, name)))
    named = (*given.text, *given.body, *given.model)
    unknown = [name for name in named if name not in given.server]
    if unknown:
        options.error(f"no --server is called {unknown[0]!r}; there are {', '.join(given.server)}")
    return given


class Comparison:
    """Servers that are ready, and what was measured of each so far."""

    def __init__(self, servers: Sequence[Server], options: argparse.Namespace) -> None:
        self._servers = servers
        self._options = options
        self._prompts = Prompts(options.tokenizer, options.seed)
        self._extra = {name: json.loads(body) for name, body in options.body.items()}
        self.bursts: dict[_Cell, dict[str, list[Burst]]] = {
            (count, length): {server.name: [] for server in servers}
            for length in options.prompt_tokens
            for count in options.concurrency
        }

    def run_round(self, index: int) -> None:
        """One burst of every size to every server in turn."""
        turns = self._servers[:: -1 if index % 2 else 1]
        for cell in self.bursts:
            prompts = self._prompts.draw(*cell)
            for server in turns:
                burst = self._measure(server, prompts, cell[1])
                self.bursts[cell][server.name].append(burst)
                self._write(index, cell, server.name, burst)

    def _measure(self, server: Server, prompts: list[list[int]], length: int) -> Burst:
        server.resume()
        try:
            # The first work after a pause finds the processor's caches cold.
            self._send(server, self._prompts.draw(1, _WARM_TOKENS), _WARM_TOKENS, new_tokens=2)
            return self._send(server, prompts, length, self._options.new_tokens)
        finally:
            server.pause()

    def _send(
        self, server: Server, prompts: list[list[int]], length: int, new_tokens: int
    ) -> Burst:
        as_text = server.name in self._options.text
        sent = [self._prompts.text(prompt) if as_text else prompt for prompt in prompts]
        return run_burst(server, sent, length, new_tokens, self._extra.get(server.name, {}))

    def _write(self, index: int, cell: _Cell, name: str, burst: Burst) -> None:
        if self._options.out is None:
            return
        count, length = cell
        known = {"round": index, "server": name, "requests": count, "prompt_tokens": length}
        with self._options.out.open("a") as file:
            file.write(json.dumps(known | asdict(burst)) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the servers, measure every round, and print a table for each size of burst."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    others = os.sched_getaffinity(0) - {options.core}
    if others:
        os.sched_setaffinity(0, others)
    servers: list[Server] = []
    try:
        for name, given in options.server.items():
            servers.append(Server(name, given, options.core, options.model.get(name, "")))
            servers[-1].wait_until_ready(options.start_seconds)
            servers[-1].pause()
        comparison = Comparison(servers, options)
        for index in range(options.rounds):
            comparison.run_round(index)
    except ServerError as error:
        raise SystemExit(str(error)) from None
    finally:
        for server in servers:
            server.stop()
    print(
        f"{describe(options.seed)}, {options.new_tokens} new tokens, {options.rounds} rounds; ",
        end="",
    )
    print("medians (quartiles)")
    for (count, length), bursts in comparison.bursts.items():
        print(f"\n{count} requests at once, {length}-token prompts\n\n{table(bursts)}")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
