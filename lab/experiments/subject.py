"""The model an experiment is about, and how much is measured on it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from lab.corpus import Kind, Prompt, prompts
from lab.corpus.dialogue import answer
from lab.corpus.systems import Setting
from lab.demo.fits import Fits
from lab.demo.laboratory import Laboratory

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of prompts and of random draws.

    Attributes:
        fit: Training prompts of each set a direction is fitted from.
        validation: Validation prompts of each kind that something is chosen on.
        test: Test prompts of each kind that a row of a table is measured on.
        texts: Reference texts of the test split scored for perplexity and KL divergence.
        draws: Random directions a control averages over.
        layers: Layers a search goes through; None means all.
        settings: How many of each list of strengths, ranks and the like are tried; None means
            all.
    """

    fit: int = 128
    validation: int = 30
    test: int = 150
    texts: int = 100
    draws: int = 3
    layers: tuple[int, ...] | None = None
    settings: int | None = None

    def depths(self, num_layers: int) -> tuple[int, ...]:
        """The layers a search goes through."""
        return tuple(range(num_layers)) if self.layers is None else self.layers

    def some(self, settings: tuple[_T, ...]) -> tuple[_T, ...]:
        """The settings of a list that a search goes through."""
        return settings[: self.settings]


class Subject:
    """A checkpoint in its laboratory, with what every experiment asks of it."""

    def __init__(self, checkpoint: Path, sizes: Sizes) -> None:
        """Load a checkpoint that `python -m lab.organism train` wrote."""
        self.checkpoint = checkpoint
        self.sizes = sizes
        self.laboratory = Laboratory(checkpoint)
        self.fits = Fits(self.laboratory, sizes.fit)
        self.spec = self.laboratory.spec
        recipe = json.loads((checkpoint / "train.json").read_text(encoding="utf-8"))["recipe"]
        self.training_seed: int = recipe["seed"]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers a search goes through."""
        return self.sizes.depths(self.spec.num_layers)

    @property
    def every_layer(self) -> list[int]:
        """All layers of the model."""
        return list(range(self.spec.num_layers))

    def training(self, kind: Kind) -> tuple[Prompt, ...]:
        """Training prompts of a kind, those that directions are fitted from."""
        return prompts("train", kind, self.sizes.fit)

    @cached_property
    def texts(self) -> tuple[tuple[Prompt, ...], list[str]]:
        """Ordinary test prompts, and answers to them as the grammar writes them."""
        asked = prompts("test", "ordinary", self.sizes.texts)
        rng = random.Random("reference answers")
        return asked, [answer(rng, prompt, Setting()).answer for prompt in asked]

    @cached_property
    def plain_distributions(self) -> tuple[Tensor, ...]:
        """Next-token log-probabilities along the texts without steering: [n, vocab] each."""
        return self.laboratory.scores(*self.texts, full=True).distributions

    def identity(self) -> dict[str, Any]:
        """What a result says of its subject."""
        return {"training_seed": self.training_seed, "model_fingerprint": self.spec.fingerprint}
