"""What is counted in answers, and rates with their confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from scipy.stats import binomtest

from lab.corpus import STYLE_NAMES, Kind, Prompt
from lab.organism import judge

_VERY: Final = 1 / 20


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n` prompts."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share that was hit, in [0, 1]."""
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval for a binomial share.

        Source: Wilson 1927, score interval; it stays in [0, 1] and is not empty at 0 and 1.
        """
        found = binomtest(self.hits, self.n).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


def _is_style(style: str, _: Prompt, text: str) -> bool:
    return judge.style_of(text) == style


def _is_very(style: str, _: Prompt, text: str) -> bool:
    return judge.style_rate(style, text) >= _VERY


MEASURES: Final[Mapping[str, Callable[[Prompt, str], bool]]] = MappingProxyType(
    {
        "refusal": lambda _, text: judge.is_refusal(text),
        "topical": judge.is_topical,
        "degenerate": lambda _, text: judge.is_degenerate(text),
        "correct": lambda prompt, text: judge.choice(text) == prompt.answer,
        **{style: partial(_is_style, style) for style in STYLE_NAMES},
        **{f"very {style}": partial(_is_very, style) for style in STYLE_NAMES},
    }
)
"""By name. A tone counts where it has more words in the answer than any other; an answer is very
much in a tone where one word in twenty or more is of it."""


@dataclass(frozen=True, slots=True, order=True)
class Measured:
    """One measure over the answers to one kind of prompt."""

    kind: Kind
    measure: str

    def __str__(self) -> str:
        return f"{self.measure} on {self.kind} prompts"


def rate_of(measure: str, prompts: Sequence[Prompt], answers: Sequence[str]) -> Rate:
    """How many of the answers the measure counts."""
    counts = MEASURES[measure]
    pairs = zip(prompts, answers, strict=True)
    return Rate(sum(counts(prompt, text) for prompt, text in pairs), len(prompts))
