"""`docs/demos.md`: what was tried for each style, what was chosen, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .concepts import CONCEPTS, TEST, VALIDATION
from .search import LEAST_HITS, MOST_DAMAGE, MOST_REPETITION

_COLUMNS: Final = ("hits", "perplexity", "prompted_perplexity", "repetition", "num_words")
_HEADS: Final = ("hits", "perplexity", "told the style", "repetition", "words")
_SHOWN: Final = 6
_MOST_CHARS: Final = 200


def page(effects: Mapping[str, Any]) -> str:
    """The page of everything that a run measured."""
    styles = effects["styles"]
    known = [concept.name for concept in CONCEPTS if concept.name in styles]
    introduction = _INTRODUCTION.format(
        num_validation=len(VALIDATION),
        damage=f"{MOST_DAMAGE:g}",
        repetition=f"{MOST_REPETITION:g}",
        hits=f"{LEAST_HITS:g}",
        fingerprint=effects["model"]["fingerprint"],
    )
    return "\n".join(
        [introduction, _overview(styles, known), *(_style(name, styles[name]) for name in known)]
    )


def write_page(folder: Path, path: Path) -> None:
    """Write the page of the figures in a demo's folder."""
    effects = json.loads((folder / "effects.json").read_text(encoding="utf-8"))
    path.write_text(page(effects), encoding="utf-8")


def _overview(styles: Mapping[str, Any], known: Sequence[str]) -> str:
    rows = []
    for name in known:
        test = styles[name]["test"]
        chosen = [dose for dose in styles[name]["doses"] if dose["is_chosen"]]
        if not chosen:
            rows.append([f"`{name}`", "none: not shipped", "", "", "", ""])
            continue
        cells = [
            _pair(test, condition, figure)
            for condition in ("steered", "steered as served")
            for figure in ("hits", "perplexity")
        ]
        rows.append([f"`{name}`", _dose(chosen[0]), *cells])
    heads = ("profile", "dose", "hits at 1", "perplexity at 1", "hits as served", "perplexity")
    return f"## All of them\n\n{_OVERVIEW}\n\n{_table(heads, rows)}"


def _pair(test: Mapping[str, Any], condition: str, figure: str) -> str:
    base = test[condition.replace("steered", "unsteered")][figure]
    return f"{test[condition][figure]:g} ({base:g})"


def _style(name: str, style: Mapping[str, Any]) -> str:
    rows = [["none", *_cells(style["unsteered"])]]
    for dose in style["doses"]:
        label = _dose(dose)
        rows.append([f"**{label}**, chosen" if dose["is_chosen"] else label, *_cells(dose)])
    parts = [f"## {name}\n", _table(("dose", *_HEADS), rows)]
    if "steered" in style["test"]:
        parts.append(_samples(style["samples"], "", "At temperature 1"))
        parts.append(_samples(style["samples"], " as served", "As the server samples by default"))
    return "\n".join(parts)


def _samples(samples: Mapping[str, Any], end: str, title: str) -> str:
    plain, steered = samples[f"unsteered{end}"], samples[f"steered{end}"]
    rows = [
        [_text(one["prompt"]), _text(one["answer"]), _text(other["answer"])]
        for one, other in list(zip(plain, steered, strict=True))[:_SHOWN]
    ]
    return f"{title}:\n\n{_table(('asked', 'unsteered', 'steered'), rows)}"


def _dose(dose: Mapping[str, Any]) -> str:
    first, last = dose["layers"]
    return f"{dose['strength']:g} at layers {first} to {last}"


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return ["" if figures[key] is None else f"{figures[key]:g}" for key in _COLUMNS]


def _text(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= _MOST_CHARS else f"{line[:_MOST_CHARS]}..."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


_INTRODUCTION: Final = """# The profiles that come with SmolLM2

Written by `make demo`, which fits, chooses and measures over HTTP, on a server with SmolLM2
(fingerprint `{fingerprint}`). Of each style `lab/smollm2/examples` has 24 prompts with an answer
in it. The direction is the difference between the mean activations on those answers' tokens and
on the model's own answers at temperature 1 to the same prompts (of `concise`: on long-winded
answers), at layers 3 to 27 of 30. It is added to the last prompt token, which decides the first
token of the answer, and to the answer's tokens.

**Doses** are chosen at temperature 1 without `top_p`, on {num_validation} prompts, greetings and
small talk among them: the highest share of answers in the style (*hits*) among the doses that
stay as fluent as the unsteered model. The figures are few prompts' and have their error: one
answer more or less is 0.07. What the columns say:

- *hits*: the style's judge, a list of words or a count in `lab/smollm2/judge.py`, counts the
  answer.
- *perplexity*: of the answers under the unsteered model; *told the style*, for styles in which it
  hardly speaks unasked: the same with a system prompt that asks for the style and one example.
  The lower of the two may be at most {damage} times that of unsteered answers, which differs by
  1.4 between two sets of prompts; a bound of 1.5 would leave `happy` and `sad` alone.
- *repetition*: the share of runs of three words that have occurred before in the answer; at most
  {repetition} more than unsteered.

A style whose best dose adds less than {hits} hits is not shipped.

**One of your own** takes a file of examples and a minute, [as for any model](fitting.md):

```console
coxctl fit merry --positive lab/smollm2/examples/happy.jsonl \\
  --negative lab/smollm2/examples/plain.jsonl \\
  --token mean --layers 10-90% --option selection=separation --watch
```

**What to expect.** SmolLM2-135M is small, and its distribution is broad: at temperature 1 without
`top_p` it wanders unsteered too, as the answers below show, and steering does not mend that. Its
makers recommend temperature 0.2 and `top_p` 0.9, under which it repeats itself, so a repetition
penalty of 1.1 is added. That is what the server samples with where a request says nothing
(`server/embedded/smollm2/generation_config.json`), and what a request says holds.
"""

_OVERVIEW: Final = f"On {len(TEST)} prompts that nothing was chosen on; unsteered in brackets."
