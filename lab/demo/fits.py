"""Directions fitted from activations of training prompts, by `steering.fit`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from torch import Tensor

from lab.corpus import Kind, prompts
from steering.directions import Direction
from steering.fit import combine_layers
from steering.fit.fitters.gaussian_transport import fit_gaussian_transport
from steering.fit.fitters.means import fit_mean_difference
from steering.sites import Site, SitePoint

from .laboratory import Laboratory, Trial

_NUM_PROMPTS: Final = 128
_NUM_ANSWERS: Final = 64

_Activations = Mapping[SitePoint, Tensor]


@dataclass(frozen=True, slots=True)
class Source:
    """Training prompts of one kind under a system prompt, or under none."""

    kind: Kind
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two sets of prompts: a direction leads from the negative to the positive one."""

    name: str
    positive: Source
    negative: Source


class Fits:
    """Fits after any layer; reads each set of prompts once, at every layer.

    A direction acts where it was fitted: on the last prompt token, which decides what the answer
    will be, or on the tokens of the answer.
    """

    def __init__(self, laboratory: Laboratory, num_prompts: int = _NUM_PROMPTS) -> None:
        self._laboratory = laboratory
        self._num_prompts = num_prompts
        self._num_answers = min(num_prompts, _NUM_ANSWERS)
        self.spec = laboratory.spec
        self._points = [SitePoint(i, Site.RESID_POST) for i in range(self.spec.num_layers)]
        self._last = cache(self._read_last)
        self._answers = cache(self._read_answers)

    @property
    def layers(self) -> range:
        """Indices of the model's layers."""
        return range(self.spec.num_layers)

    def difference(self, contrast: Contrast, layer: int) -> Direction:
        """Difference of the means on the last prompt token."""
        point = SitePoint(layer, Site.RESID_POST)
        direction = fit_mean_difference(
            self._last(contrast.positive)[point],
            self._last(contrast.negative)[point],
            name=contrast.name,
            layer=layer,
            model_fingerprint=self.spec.fingerprint,
        )
        return _with_origin(
            direction,
            position="last prompt token",
            positive=_described(contrast.positive),
            negative=_described(contrast.negative),
        )

    def words(self, contrast: Contrast, layers: Iterable[int]) -> Direction:
        """Differences of the means on the tokens of one and the same answers, layer by layer.

        The answers are the model's own under the positive system prompt, read again with it and
        without.
        """
        positive, negative = self._answers(contrast)
        points = [SitePoint(layer, Site.RESID_POST) for layer in layers]
        direction = combine_layers(
            [
                fit_mean_difference(
                    positive[point],
                    negative[point],
                    name=contrast.name,
                    layer=point.layer,
                    model_fingerprint=self.spec.fingerprint,
                )
                for point in points
            ],
            name=contrast.name,
        )
        return _with_origin(
            direction,
            position="tokens of answers given under the positive system prompt",
            num_answers=self._num_answers,
            positive=_described(contrast.positive),
            negative=_described(contrast.negative),
        )

    def transport(self, contrast: Contrast, layer: int, rank: int) -> Direction:
        """Gaussian transport from the positive to the negative set on the last prompt token."""
        point = SitePoint(layer, Site.RESID_POST)
        direction = fit_gaussian_transport(
            self._last(contrast.negative)[point],
            self._last(contrast.positive)[point],
            name=contrast.name,
            layer=layer,
            rank=rank,
            model_fingerprint=self.spec.fingerprint,
        )
        return _with_origin(
            direction,
            position="last prompt token",
            source=_described(contrast.positive),
            target=_described(contrast.negative),
        )

    def _read_last(self, source: Source) -> _Activations:
        asked = prompts("train", source.kind, self._num_prompts)
        return self._laboratory.activations(asked, self._points, system=source.system)

    def _read_answers(self, contrast: Contrast) -> tuple[_Activations, _Activations]:
        styled, plain = contrast.positive, contrast.negative
        asked = prompts("train", styled.kind, self._num_answers)
        (texts,) = self._laboratory.answers([Trial(asked, system=styled.system)])
        with_prompt, without = (
            self._laboratory.answer_activations(asked, texts, self._points, system=system)
            for system in (styled.system, plain.system)
        )
        return with_prompt, without


def _described(source: Source) -> dict[str, Any]:
    return {"split": "train", "kind": source.kind, "system": source.system}


def _with_origin(direction: Direction, **origin: Any) -> Direction:
    return replace(direction, provenance={**direction.provenance, **origin})
