"""What is asked about attention heads and a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from server.engine.text import Tokenizer
from server.store.names import check_name
from steering.errors import InvalidFieldError
from steering.fields import check_keys, member, number, seed_number, str_list
from steering.profiles import Monitor

from .cliff_query import read_examples, read_probe
from .examples.example import Example
from .rollout import read_ending

__all__ = ["HeadMethod", "HeadsQuery"]

_FIELDS: Final = frozenset(
    {
        *("prompts", "probe", "method", "fold", "factor", "percent", "gamma", "seed", "check"),
        *("profile", "requires"),
    }
)


class HeadMethod(StrEnum):
    """How heads are scored.

    `attribution`: what a head writes along the probe, most negative first. `causal`: the probe's
    probability with one head scaled down, highest first.
    """

    ATTRIBUTION = "attribution"
    CAUSAL = "causal"


@dataclass(frozen=True, slots=True)
class HeadsQuery:
    """A checked request for heads.

    Attributes:
        prompts: Chats or texts; a chat may end with the assistant's thought.
        probe: What heads are scored against, and where it is read.
        method: How.
        fold: Whether attribution ranks by the probe folded through the final norm; None: where the
            probe is read after that norm.
        factor: What the causal method scales a head by.
        percent: Share of the heads that is selected.
        gamma: What selected heads are scaled by in the profile.
        seed: Of the random control.
        check: Whether the probe is read again without the selected and without the random heads.
        profile: Name under which the selected heads are saved as a draft profile, or None.
        requires: Scopes that profile and direction are to require.
    """

    prompts: tuple[Example, ...]
    probe: Monitor
    method: HeadMethod = HeadMethod.ATTRIBUTION
    fold: bool | None = None
    factor: float = 0.001
    percent: float = 3.0
    gamma: float = 0.0
    seed: int = 0
    check: bool = True
    profile: str | None = None
    requires: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, most: int) -> Self:
        """Read `{"prompts": [...], "probe": "refusal-probe@1", "method": "causal", ...}`.

        Raises:
            SteeringError, NameReservedError: With `param` naming the field.
        """
        check_keys(document, _FIELDS, noun="a heads request")
        for key in ("fold", "check"):
            if not isinstance(document.get(key, True), bool):
                raise InvalidFieldError(f"{key} is not true or false", param=key)
        profile = document.get("profile")
        if profile is not None and not isinstance(profile, str):
            raise InvalidFieldError("profile is not a name", param="profile")
        if profile is not None:
            check_name(profile, param="profile")
        return cls(
            prompts=read_examples(document, "prompts", most=most),
            probe=read_probe(document),
            method=member(HeadMethod, document.get("method", "attribution"), "method"),
            fold=document.get("fold"),
            factor=_between(document, "factor", 0.001, 0.0, 1.0),
            percent=_between(document, "percent", 3.0, 0.0, 100.0),
            gamma=_between(document, "gamma", 0.0, 0.0, 1.0),
            seed=seed_number(document.get("seed", 0), "seed"),
            check=document.get("check", True),
            profile=profile,
            requires=tuple(str_list(document.get("requires"), "requires")),
        )

    def endings(self, tokenizer: Tokenizer, max_tokens: int) -> list[tuple[int, ...]]:
        """The prompts in tokens, each up to where its answer would begin.

        Raises:
            InvalidFieldError, EngineError: As `read_ending`.
        """
        return [read_ending(tokenizer, example, max_tokens) for example in self.prompts]


def _between(
    document: Mapping[str, Any], key: str, default: float, low: float, high: float
) -> float:
    value = number(document.get(key, default), key)
    if not low <= value <= high:
        raise InvalidFieldError(f"{key} is {value:g}; expected {low:g} to {high:g}", param=key)
    return value
