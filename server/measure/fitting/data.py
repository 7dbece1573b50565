"""The examples of a fit as prompts: read to fit, served to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from server.measure.examples.example import Example
from server.measure.examples.examples import ContrastSets, Examples
from server.measure.examples.prompts import ExamplePrompts, ReadPrompt
from steering.errors import FitError
from steering.fit import DataSummary

MAX_VALUES: Final = 2**30
"""Most numbers of the activations of one fit: 4 GiB in float32."""

_SIDES: Final = ("positive", "negative")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts of one side.

    Attributes:
        read: Prompts to capture from, below the transient system prompt.
        served: Prompts as chats would send them: without it, and without an answer.
    """

    read: tuple[ReadPrompt, ...]
    served: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, examples: tuple[Example, ...], prompts: ExamplePrompts) -> Self:
        """Render all examples.

        Raises:
            InvalidFieldError: An example does not fit what is read; names it.
            RequestRejectedError: An example cannot be rendered or is too long; names it.
        """
        return cls(
            tuple(prompts.read(example) for example in examples),
            tuple(prompts.serve(example) for example in examples),
        )


@dataclass(frozen=True, slots=True)
class PromptSets:
    """Prompts of both sides."""

    positive: PromptSet
    negative: PromptSet

    @classmethod
    def of(cls, sets: ContrastSets, prompts: ExamplePrompts) -> Self:
        """Render both sides; raises as `PromptSet.of`."""
        return cls(PromptSet.of(sets.positive, prompts), PromptSet.of(sets.negative, prompts))


@dataclass(frozen=True, slots=True)
class FitData:
    """Rendered training and validation examples.

    Attributes:
        train: Prompts to fit on.
        validation: Prompts held out.
        neutral: Prompts that should not change, as served; empty where none were given.
        positions: Tokens read of every prompt, negative from its end; None where they are pooled.
        is_mean: Whether the tokens of a window are averaged.
        summary: What the receipt says of the data.
        notes: Sentences that say which examples were dropped.
    """

    train: PromptSets
    validation: PromptSets
    neutral: tuple[tuple[int, ...], ...]
    positions: tuple[int | None, ...]
    is_mean: bool
    summary: DataSummary
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        examples: Examples,
        prompts: ExamplePrompts,
        *,
        neutral: tuple[tuple[int, ...], ...],
        token: str | int,
        system_sha256: str | None,
        seed: int,
    ) -> Self:
        """Render all examples; raises as `PromptSet.of`."""
        return cls(
            train=PromptSets.of(examples.train, prompts),
            validation=PromptSets.of(examples.validation, prompts),
            neutral=neutral,
            positions=prompts.positions,
            is_mean=token == "mean",
            summary=DataSummary(
                sha256=examples.sha256,
                token=token,
                num_train=_counts(examples.train),
                num_validation=_counts(examples.validation),
                num_duplicates_removed=len(examples.duplicates),
                num_leaked_removed=len(examples.leaked),
                system_prompt_sha256=system_sha256,
                seed=seed,
            ),
            notes=(*examples.notes(), *prompts.notes()),
        )

    def check_size(self, num_layers: int, width: int) -> None:
        """Check that activations [width] of all examples at so many layers fit in memory.

        Raises:
            FitError: They would hold more than `MAX_VALUES` numbers.
        """
        counts = (*self.summary.num_train.values(), *self.summary.num_validation.values())
        num_rows = sum(counts) * len(self.positions) * num_layers
        if num_rows * width > MAX_VALUES:
            raise FitError(
                f"{num_rows:,} activations of {width:,} numbers would be held in memory; expected "
                f"at most {MAX_VALUES // width:,}: fewer examples, layers or tokens",
                param="data",
            )


def _counts(sets: ContrastSets) -> dict[str, Any]:
    return {side: len(getattr(sets, side)) for side in _SIDES}
