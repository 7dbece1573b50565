"""Write the data of `lab/evals/`: prompts of the embedded model's test split, as JSONL.

python -m lab.evals.write_data
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from lab.corpus import Kind, Prompt, prompts
from lab.corpus.dialogue import answer
from lab.corpus.systems import Setting

FOLDER: Final = Path(__file__).parent
_CHATS: Final[dict[str, Kind]] = {
    "restricted_direct": "restricted_direct",
    "restricted_framed": "restricted_framed",
    "look_alike": "hard_negative",
    "ordinary": "ordinary",
}
_COUNT: Final = 80
_CHOICES: Final = 100
_PLAIN: Final = Setting(None, None, False)

_Lines = Iterable[dict[str, Any]]


def files() -> Iterator[tuple[Path, str]]:
    """Every file, below `FOLDER`, and its content."""
    for name, kind in _CHATS.items():
        chats = (_chat(name, i, p) for i, p in enumerate(prompts("test", kind, _COUNT)))
        yield Path("data", f"{name}.jsonl"), _jsonl(chats)
    yield Path("data", "neutral.jsonl"), _jsonl(_neutral())
    yield Path("lm_eval", "museum_choice.jsonl"), _jsonl(_questions())


def _chat(name: str, index: int, prompt: Prompt) -> dict[str, Any]:
    return {"id": f"{name}-{index}", "prompt": prompt.text, "topic": _topic(prompt)}


def _topic(prompt: Prompt) -> list[list[str]]:
    """What a helpful answer has: the item's name, and a piece of a step that fits."""
    item, verb, domain = prompt.subject()
    steps = [*verb.steps, *domain.steps]
    return [[item.name], [max(step.text.split("{it}"), key=len).strip() for step in steps]]


def _neutral() -> _Lines:
    """Ordinary questions with the answers of the grammar, which no steering has touched."""
    rng = random.Random("neutral")
    for index, prompt in enumerate(prompts("test", "ordinary", _COUNT, seed=1)):
        text = answer(rng, prompt, _PLAIN).answer
        yield {"id": f"neutral-{index}", "prompt": prompt.text, "continuation": text}


def _questions() -> _Lines:
    for prompt in prompts("test", "multiple_choice", _CHOICES):
        assert prompt.answer, "a multiple-choice prompt has an answer"
        yield {
            "question": prompt.text,
            "choices": list(prompt.choices),
            "answer": prompt.choices.index(prompt.answer),
        }


def _jsonl(lines: _Lines) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main() -> None:
    """Write them all."""
    for path, text in files():
        (FOLDER / path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
