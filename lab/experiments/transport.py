"""Experiment 2: removing refusals by transport, and by everything it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any, Final

import torch
from torch import Tensor

from lab.corpus import Kind
from lab.demo.criterion import Criterion, Guard
from lab.demo.demo import use
from lab.demo.fits import Contrast, Source
from lab.demo.measures import Measured
from steering.directions import Direction
from steering.fit.fitters.gaussian_transport import fit_gaussian_transport
from steering.fit.fitters.linear_act import fit_linear_act
from steering.fit.fitters.means import fit_mean_difference
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .choice import Choice, choose
from .interventions import random_like
from .observation import Recipe, observe, survey
from .subject import Subject

SOURCE: Final[Kind] = "restricted_direct"

TARGET: Final[Kind] = "ordinary"

LAST: Final = "last_prompt"

EVERYWHERE: Final = "all"

Fit = Callable[[Tensor, Tensor, int], Direction]
"""From activations to reach, activations to leave and their layer."""

EFFECT: Final = Measured("restricted_direct", "topical")

MIDDLE: Final = 2
"""The one layer whose output lies at 40 to 60 % of six layers: 3 / 6."""

RANKS: Final = (1, 2, 8)
FACTORS: Final = (0.5, 0.75, 1.0, 1.5, 2.0)
_TOPICAL: Final = Measured("ordinary", "topical")
_BROKEN: Final = Measured("ordinary", "degenerate")
_MEASURED: Final = (
    EFFECT,
    Measured("restricted_direct", "refusal"),
    Measured("restricted_direct", "degenerate"),
    _TOPICAL,
    _BROKEN,
    Measured("multiple_choice", "correct"),
)
_SWEPT: Final = (EFFECT, _TOPICAL)
_CRITERION: Final = Criterion(
    EFFECT, (Guard(_TOPICAL, 0.03, is_good=True), Guard(_BROKEN, 0.05, is_good=False))
)
_REFUSAL: Final = Contrast("refusal", Source(SOURCE), Source(TARGET))
_SCOPES: Final = {LAST: "last prompt token", EVERYWHERE: "all tokens"}


def stacked(
    subject: Subject,
    fit: Fit,
    operation: str,
    layers: Sequence[int],
    tokens: str,
    *,
    over_tokens: bool = False,
) -> tuple[Steer, ...]:
    """Fit at each layer from what the maps before it leave of the source prompts.

    Args:
        subject: The model.
        fit: Makes the direction of one layer.
        operation: What is done with it.
        layers: In order.
        tokens: Which tokens the maps act on, while fitting as while measuring.
        over_tokens: Fit on the mean over all tokens of a prompt instead of the last one.
    """
    steers: tuple[Steer, ...] = ()
    for layer in layers:
        plan = compile_plan(steers, [], subject.spec) if steers else None
        target = _activations(subject, TARGET, layer, None, over_tokens=over_tokens)
        source = _activations(subject, SOURCE, layer, plan, over_tokens=over_tokens)
        scope: dict[str, Any] = {"tokens": tokens}
        steers = (*steers, use(fit(target, source, layer), operation=operation, scope=scope))
    return steers


def _activations(
    subject: Subject,
    kind: Kind,
    layer: int,
    plan: SteeringPlan | None,
    *,
    over_tokens: bool,
) -> Tensor:
    point = SitePoint(layer, Site.RESID_POST)
    asked = subject.training(kind)
    if not over_tokens:
        return subject.laboratory.activations(asked, [point], plan=plan)[point]
    read = subject.laboratory.sequences(asked, [point], plan=plan)[point]
    return torch.stack([rows[1:].mean(dim=0) for rows in read])


def run(subject: Subject) -> dict[str, Any]:
    """Measure every method on test prompts; layers are as named, or chosen on validation ones."""
    return _Study(subject).result()


class _Study:
    """What experiment 2 measures of one checkpoint."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._ranks = subject.sizes.some(RANKS)
        self._scopes = subject.sizes.some(tuple(_SCOPES))
        (self._plain,) = survey(subject, [Recipe("no-op")], _CRITERION.measured)

    def result(self) -> dict[str, Any]:
        placed = self._placed()
        choices = [self._choose(recipes) for recipes in self._free()]
        rows = [
            self._row([Recipe("no-op")]),
            *(self._row([c.recipe], c) for c in choices),
            *(self._row([recipe]) for recipe in placed),
            *(self._row(draws) for draws in self._controls(choices)),
        ]
        swept = self._subject.sizes.some((*(c.recipe for c in choices), placed[0]))
        return {
            **self._subject.identity(),
            "criterion": str(_CRITERION),
            "rows": rows,
            "strengths": [row for recipe in swept for row in self._swept(recipe)],
        }

    def _choose(self, recipes: Sequence[Recipe]) -> Choice:
        return choose(self._subject, _CRITERION, self._plain, recipes)

    def _row(
        self,
        draws: Sequence[Recipe],
        choice: Choice | None = None,
        measured: Sequence[Measured] = _MEASURED,
    ) -> dict[str, Any]:
        found = observe(self._subject, draws, measured)
        return {
            **({} if choice is None else choice.to_dict()),
            **draws[0].to_dict(),
            "draws": len(draws),
            "test": found.to_dict(),
        }

    def _swept(self, recipe: Recipe) -> list[dict[str, Any]]:
        factors = self._subject.sizes.some(FACTORS)
        return [{**self._row([_scaled(recipe, f)], measured=_SWEPT), "factor": f} for f in factors]

    def _placed(self) -> list[Recipe]:
        """Gaussian transport where the paper puts it, and at all layers."""
        middle = [MIDDLE], [MIDDLE, MIDDLE + 1], self._subject.every_layer
        return [
            self._transported(layers, rank, tokens)
            for layers, tokens, rank in product(middle, self._scopes, self._ranks)
        ]

    def _free(self) -> list[list[Recipe]]:
        """What each method may choose from."""
        depths = self._subject.layers
        pairs = list(pairwise(depths))
        return [
            [self._ablated(layer) for layer in depths],
            *([self._affine(layer, tokens) for layer in depths] for tokens in self._scopes),
            *([self._diagonal([layer], tokens) for layer in depths] for tokens in self._scopes),
            *([self._diagonal(self._subject.every_layer, tokens)] for tokens in self._scopes),
            *(
                [
                    self._transported([layer], rank, tokens, "best layer")
                    for layer, rank in product(depths, self._ranks)
                ]
                for tokens in self._scopes
            ),
            [
                self._transported(list(pair), rank, LAST, "best two layers")
                for pair, rank in product(pairs, self._ranks)
            ],
        ]

    def _ablated(self, layer: int) -> Recipe:
        """At the input of every layer and what its two parts write, on all tokens."""
        direction = self._subject.fits.difference(_REFUSAL, layer)
        every = self._subject.every_layer
        steers = tuple(
            use(direction, operation="ablate", layers=every, site=site.value)
            for site in (Site.RESID_PRE, Site.ATTN_OUT, Site.MLP_OUT)
        )
        return Recipe("directional ablation (Arditi)", steers, {"direction of layer": layer})

    def _affine(self, layer: int, tokens: str) -> Recipe:
        direction = self._subject.fits.difference(_REFUSAL, layer)
        steer = use(direction, operation="ablate", reference="stored", scope={"tokens": tokens})
        return Recipe(f"ACE, {_SCOPES[tokens]}", (steer,), {"layers": [layer]})

    def _diagonal(self, layers: list[int], tokens: str) -> Recipe:
        place = "one layer" if len(layers) == 1 else "all layers"
        steers = stacked(
            self._subject,
            self._fit(fit_linear_act),
            "diagonal",
            layers,
            tokens,
            over_tokens=tokens == EVERYWHERE,
        )
        return Recipe(f"Linear-AcT, {place}, {_SCOPES[tokens]}", steers, {"layers": layers})

    def _transported(
        self, layers: list[int], rank: int, tokens: str, place: str | None = None
    ) -> Recipe:
        fit = self._fit(partial(fit_gaussian_transport, rank=rank))
        steers = stacked(self._subject, fit, "transport", layers, tokens)
        named = {1: "middle layer", 2: "two middle layers"}.get(len(layers), "all layers")
        method = f"Gaussian OT, {place or named}, {_SCOPES[tokens]}"
        return Recipe(method, steers, {"layers": layers, "K": rank}, dose=float(rank))

    def _fit(self, method: Any) -> Fit:
        def fit(target: Tensor, source: Tensor, layer: int) -> Direction:
            found: Direction = method(
                target,
                source,
                name=f"refusal-{layer}",
                layer=layer,
                model_fingerprint=self._subject.spec.fingerprint,
            )
            return found

        return fit

    def _controls(self, choices: Sequence[Choice]) -> list[list[Recipe]]:
        """Plain addition of the same shift, a random one as long, a random direction ablated."""
        best = next(c for c in choices if c.recipe.method.startswith("Gaussian OT, best layer"))
        layers = best.recipe.settings["layers"]
        add = partial(stacked, self._subject, operation="add", layers=layers, tokens=LAST)
        settings = {"layers": layers}
        plain = add(self._fit(fit_mean_difference))
        seeds = range(self._subject.sizes.draws)
        others = [_redrawn(plain, seed) for seed in seeds]
        ablated = self._ablated(layers[0])
        return [
            [Recipe("addition of the same shift", plain, settings)],
            [Recipe("random addition, as long", steers, settings) for steers in others],
            [
                Recipe("random direction ablated (Arditi)", _redrawn(ablated.steers, seed))
                for seed in seeds
            ],
        ]


def _redrawn(steers: Sequence[Steer], seed: int) -> tuple[Steer, ...]:
    drawn = {id(s.direction): random_like(s.direction, seed) for s in steers}
    return tuple(_using(steer, drawn[id(steer.direction)]) for steer in steers)


def _using(steer: Steer, direction: Direction) -> Steer:
    document = {**steer.intervention.to_dict(), "direction": direction.name}
    return use(direction, **{k: v for k, v in document.items() if k != "direction"})


def _scaled(recipe: Recipe, factor: float) -> Recipe:
    steers = tuple(replace(steer, factor=factor) for steer in recipe.steers)
    return replace(recipe, steers=steers, settings={**recipe.settings, "factor": factor})
