"""Fit a style's direction by a job of the server, and choose its dose at temperature 1."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from coxswain_client import Coxswain

from .concepts import LAYERS, TEST, VALIDATION, Concept, as_messages, intervention, read_examples
from .trials import AS_SERVED, AT_ONE, Answer, Figures, Trials

MOST_DAMAGE: Final = 2.0
"""Factor on the unsteered perplexity that a dose may cost, prompted or not."""
MOST_REPETITION: Final = 0.1
"""Repetition that a dose may add."""
LEAST_HITS: Final = 0.2
"""Hits that a profile must add to be shipped."""

_SHORT: Final = 24
_LONG: Final = 48
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dose:
    """One setting that was tried."""

    layers: Sequence[int]
    strength: float
    figures: Figures

    def keeps(self, plain: Figures) -> bool:
        """Whether answers stay as fluent as unsteered ones, within the bounds above."""
        return (
            self.figures.fluency <= MOST_DAMAGE * plain.perplexity
            and self.figures.repetition <= plain.repetition + MOST_REPETITION
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What was tried for a style and what it does on the test prompts.

    Attributes:
        concept: The style.
        unsteered: On the validation prompts, without steering.
        doses: On the same, each setting.
        chosen: The setting taken; None where none keeps fluent and shows.
        test: On the test prompts: figures by condition, `unsteered` and `steered` at temperature 1.
        samples: Answers there: unsteered and steered, at temperature 1 and as the server samples.
    """

    concept: Concept
    unsteered: Figures
    doses: Sequence[Dose]
    chosen: Dose | None
    test: dict[str, Figures]
    samples: dict[str, Sequence[Answer]]


def choose(doses: Sequence[Dose], plain: Figures) -> Dose | None:
    """Of the doses that keep fluent and add hits, that with most; of equals the most fluent."""
    kept = [
        dose
        for dose in doses
        if dose.keeps(plain) and dose.figures.hits >= plain.hits + LEAST_HITS - 1e-9
    ]
    return max(kept, key=lambda d: (d.figures.hits, -d.figures.fluency), default=None)


def fit(client: Coxswain, trials: Trials, concept: Concept) -> str:
    """The reference of a direction that leads from the negative to the style's examples.

    Means over the answers' tokens, at every layer of `LAYERS`. The negatives are the model's own
    answers at temperature 1, so that the direction leads from how it wanders to what is shown.
    """
    examples = read_examples(concept.name)
    if concept.negative is not None:
        others = read_examples(concept.negative)
    else:
        asked = [example["prompt"] for example in examples]
        texts = trials.texts(asked, max_tokens=40, seed=7)
        others = [
            {"prompt": prompt, "answer": text or "."}
            for prompt, text in zip(asked, texts, strict=True)
        ]
    job = client.jobs.create(
        "fit",
        name=concept.name,
        method="mean_difference",
        layers=list(LAYERS),
        options={"selection": "separation"},
        data={
            "positive": [as_messages(example) for example in examples],
            "negative": [as_messages(example) for example in others],
            "token": "mean",
        },
    )
    result: dict[str, Any] | None = client.jobs.wait(job.id).result
    if result is None:
        raise RuntimeError(f"the fit of {concept.name} did not succeed; see job {job.id}")
    return str(result["direction"])


@dataclass(frozen=True, slots=True)
class Unsteered:
    """The model's own answers, which every style is compared with."""

    validation: Sequence[Answer]
    test: Sequence[Answer]
    as_served: Sequence[Answer]

    @classmethod
    def ask(cls, trials: Trials) -> Unsteered:
        """Ask every prompt without steering."""
        return cls(
            trials.ask(VALIDATION, max_tokens=_SHORT),
            trials.ask(TEST, max_tokens=_LONG),
            trials.ask(TEST, max_tokens=_LONG, sampling=AS_SERVED),
        )


def search(client: Coxswain, trials: Trials, concept: Concept, unsteered: Unsteered) -> Found:
    """Fit, try each dose on the validation prompts, and show the chosen one on the test prompts."""
    reference = fit(client, trials, concept)
    plain = Figures.of(concept, unsteered.validation)
    doses = []
    told = concept if concept.is_rare else None
    for layers, strengths in concept.spreads:
        for strength in strengths:
            edit = intervention(reference, layers, strength)
            answers = trials.ask(VALIDATION, max_tokens=_SHORT, style=told, interventions=[edit])
            doses.append(Dose(layers, strength, Figures.of(concept, answers)))
            _log.info("%s %s x %g: %s", concept.name, layers, strength, asdict(doses[-1].figures))
    chosen = choose(doses, plain)
    samples = {"unsteered": unsteered.test, "unsteered as served": unsteered.as_served}
    if chosen is not None:
        edit = intervention(reference, chosen.layers, chosen.strength)
        for name, sampling in (("steered", AT_ONE), ("steered as served", AS_SERVED)):
            samples[name] = trials.ask(
                TEST, max_tokens=_LONG, sampling=sampling, style=told, interventions=[edit]
            )
    test = {name: Figures.of(concept, answers) for name, answers in samples.items()}
    return Found(concept, plain, doses, chosen, test, samples)
