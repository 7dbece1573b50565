"""The examples of the documentation: found, run, and their outputs written back.

Every fenced block tagged `bash` or `python` is an example and is run against a real server whose
address replaces the one in the text; `console` is for people only. A block that follows directly
under the comment `<!-- output -->` is what the example printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.models.named import ORGANISM, SMOLLM2, smollm2_file

ADDRESS = "http://127.0.0.1:8000"
"""Where the documentation's server is."""

_ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(
    r"^```(?P<language>bash|python)\n(?P<code>.*?)^```\n"
    r"(?:\n<!-- output -->\n```(?P<kind>\w+)\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_TIMEOUT_SECONDS = 120
# What differs from one run to the next.
_VOLATILE = (
    (re.compile(r'"id": "[^"]*"'), '"id": "..."'),
    (re.compile(r'"created": \d+'), '"created": 0'),
)


@dataclass(frozen=True)
class Example:
    """One block of code, and what it printed when the document was written."""

    path: Path
    line: int
    language: str
    code: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


def documents() -> list[Path]:
    """The README and the guides."""
    return [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def model_of(path: Path) -> str:
    """The model whose server a document's examples talk to: SmolLM2 in the README alone."""
    return SMOLLM2 if path.name == "README.md" else ORGANISM


def is_here(model: str) -> bool:
    """Whether a named model can be served here."""
    return model != SMOLLM2 or smollm2_file() is not None


def examples(path: Path) -> list[Example]:
    """The examples of one document, in order."""
    text = path.read_text()
    return [
        Example(path, text.count("\n", 0, m.start()) + 1, m["language"], m["code"], m["output"])
        for m in _BLOCK.finditer(text)
    ]


def run(example: Example, address: str, folder: Path) -> str:
    """What an example prints with the server at `address`, run in `folder`.

    Raises:
        RuntimeError: It failed.
    """
    code = example.code.replace(ADDRESS, address)
    command = {
        "bash": ["bash", "-euo", "pipefail", "-c", code],
        "python": [sys.executable, "-c", code],
    }[example.language]
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": tools, "COXCTL_BASE_URL": address},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{example} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.replace(address, ADDRESS)


def stable(output: str) -> str:
    """What of an output is the same in every run."""
    for pattern, replacement in _VOLATILE:
        output = pattern.sub(replacement, output)
    return output.strip()


def rewrite(path: Path, answer: Callable[[Example], str]) -> None:
    """Run every example of a document, and write what those with an output block printed.

    An output that differs only in what differs from run to run stays as it is.
    """
    text = path.read_text()
    outputs = {example.line: answer(example) for example in examples(path)}

    def replace(match: re.Match[str]) -> str:
        printed = outputs[text.count("\n", 0, match.start()) + 1].rstrip("\n") + "\n"
        if match["output"] is None or stable(match["output"]) == stable(printed):
            return match[0]
        start, stop = (match.span("output")[i] - match.start() for i in (0, 1))
        return match[0][:start] + printed + match[0][stop:]

    path.write_text(_BLOCK.sub(replace, text))
