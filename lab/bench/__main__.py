"""Run a measurement: `python -m lab.bench <name> [options]`; without a name, those of the guide.

http         OpenAI servers over HTTP, in turn on one core
profiles     what profiles cost
throughput   the engine alone
long_prompt  a long prompt beside short chats
drafts       drafts from a request's own text
attention    ways to attend on the CPU
linear       plain against packed weights
gpu          decode and prefill on a GPU, eager and in graphs; `gpu.sh` runs it with the tests
kernel       dense against gathered rows of the steering kernel
"""

from __future__ import annotations

import runpy
import sys

from server.logs import configure_logs

_NAMES = (
    "attention",
    "drafts",
    "gpu",
    "http",
    "kernel",
    "linear",
    "long_prompt",
    "profiles",
    "throughput",
)
_GUIDE = (
    ["profiles"],
    ["profiles", "--num-requests", "256", "--profiles", "1", "8", "32", "256"],
)


def main() -> None:
    """Run what was asked for."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] not in _NAMES:
        raise SystemExit(__doc__)
    configure_logs("warning", "text")
    for command in [arguments] if arguments else _GUIDE:
        sys.argv = [f"lab.bench.{command[0]}", *command[1:]]
        runpy.run_module(f"lab.bench.{command[0]}", run_name="__main__")


if __name__ == "__main__":
    main()
