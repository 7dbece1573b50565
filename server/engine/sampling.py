"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from .errors import InvalidSamplingError, PromptTooLongError

MAX_LOGPROBS: Final = 20
"""Most top log-probabilities a request may ask for; the whole vocabulary never."""

_LEAST_POSITIVE: Final = 2.0**-126
"""Least that float32, in which logits are changed, holds in full and no device takes for 0."""

_LEAST_REPETITION: Final = (
    1e-6  # no logit that a model gives is so large that its quotient overflows
)

_EMPTY: Final[Mapping[int, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Parameters of one generation.

    Numbers are used in float32: one other than 0 that float32 takes for 0, or nearly, is refused.

    Attributes:
        max_tokens: Most tokens to generate; 0 only scores the prompt. None means as many as the
            context allows.
        temperature: 0 is greedy; in [0, 2].
        top_p: Smallest set of tokens with at least this probability; in (0, 1].
        top_k: Only the k likeliest tokens; 0 or -1 means all.
        min_p: Only tokens at least this fraction as likely as the likeliest; in [0, 1].
        presence_penalty: Subtracted once from logits of tokens generated before; in [-2, 2].
        frequency_penalty: Subtracted once per occurrence generated before; in [-2, 2].
        repetition_penalty: Divides positive and multiplies negative logits of tokens in prompt or
            output; in [1e-6, 2], 1 is none.
        logit_bias: Added to logits by token id; each in [-100, 100].
        seed: Makes the choice reproducible in any batch; None draws one at admission.
        stop: Strings that end the answer, not part of it.
        stop_token_ids: Token ids that end the answer, beside the model's end tokens.
        ignore_eos: Go on after the model's end tokens.
        min_tokens: No end token before this many tokens; at most `max_tokens`.
        logprobs: Number of top log-probabilities per generated token (0: the chosen one only);
            None for none.
        prompt_logprobs: The same for each prompt token.

    Raises:
        InvalidSamplingError: With `param` naming the field.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _EMPTY)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0.0, 2.0)
        _within("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise InvalidSamplingError("top_p is 0; expected a number in (0, 1]", param="top_p")
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("repetition_penalty", self.repetition_penalty, _LEAST_REPETITION, 2.0)
        if self.top_k < -1:
            raise InvalidSamplingError(
                f"top_k is {self.top_k}; expected -1, 0 (both: no limit) or more", param="top_k"
            )
        for bias in self.logit_bias.values():
            _within("logit_bias", bias, -100.0, 100.0)
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= MAX_LOGPROBS:
                raise InvalidSamplingError(
                    f"{name} is {count}; expected 0 to {MAX_LOGPROBS}", param=name
                )
        if self.max_tokens is not None and self.max_tokens < 0:
            raise InvalidSamplingError(
                f"max_tokens is {self.max_tokens}; expected 0 or more", param="max_tokens"
            )
        most = self.min_tokens if self.max_tokens is None else self.max_tokens
        if not 0 <= self.min_tokens <= most:
            raise InvalidSamplingError(
                f"min_tokens is {self.min_tokens}; expected 0 to max_tokens"
                + ("" if self.max_tokens is None else f", which is {self.max_tokens}"),
                param="min_tokens",
            )

    def check_room(
        self, num_prompt_tokens: int, max_model_len: int, *, param: str = "prompt"
    ) -> None:
        """Check that the context holds a prompt and what is to be generated after it.

        Without `max_tokens` the answer needs room for one token at least.

        Args:
            num_prompt_tokens: Number of tokens in the prompt.
            max_model_len: Most tokens of prompt and answer in sum.
            param: Name of the field that holds the prompt, for the error.

        Raises:
            PromptTooLongError: The context does not hold them.
            InvalidSamplingError: The prompt leaves less room than `min_tokens`.
        """
        room = max_model_len - num_prompt_tokens
        if self.max_tokens is None and room < 1:
            raise PromptTooLongError(
                f"the prompt has {num_prompt_tokens:,} tokens and the context holds "
                f"{max_model_len:,}, which leaves none for an answer; shorten the prompt",
                param=param,
            )
        if self.max_tokens is not None and self.max_tokens > room:
            raise PromptTooLongError(
                f"the prompt has {num_prompt_tokens:,} tokens and max_tokens is "
                f"{self.max_tokens:,}; together they may be at most {max_model_len:,}; shorten one "
                "of them",
                param=param if room <= 0 else "max_tokens",
            )
        if self.min_tokens > room:
            raise InvalidSamplingError(
                f"min_tokens is {self.min_tokens:,} and the prompt leaves room for {room:,}; "
                "expected at most that",
                param="min_tokens",
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether tokens of before change the logits."""
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """How a request is sampled that does not say; None leaves a field as `SamplingParams` has it.

    Attributes:
        temperature: As in `SamplingParams`, like the other fields.
        max_tokens: Most tokens of an answer to a chat, where the context holds as many.

    Raises:
        InvalidSamplingError: A value is outside its range; `param` names the field.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        SamplingParams(**self.given())
        if self.max_tokens == 0:
            raise InvalidSamplingError("max_tokens is 0; expected 1 or more", param="max_tokens")

    def given(self) -> dict[str, Any]:
        """The fields that have a value, by name."""
        values = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {name: value for name, value in values if value is not None}

    def over(self, other: SamplingDefaults) -> SamplingDefaults:
        """These, and those of `other` where these say nothing."""
        return SamplingDefaults(**{**other.given(), **self.given()})


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise InvalidSamplingError(
            f"{name} is {value:g}; expected a number from {low:g} to {high:g}", param=name
        )
    if 0.0 < abs(value) < _LEAST_POSITIVE:
        raise InvalidSamplingError(
            f"{name} is {value:g}, which float32 cannot tell from 0; expected 0, or "
            f"{_LEAST_POSITIVE:.3g} or more away from it",
            param=name,
        )
