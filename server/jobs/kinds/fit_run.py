"""One fit: read, fit, measure, choose, measure again, store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from server.jobs.context import JobContext, Progress
from server.measure.fitting.activations import FitActivations, read_all, read_prompts
from server.measure.fitting.candidates import FittedCandidate, choose, fit_at, fit_candidate
from server.measure.fitting.effects import (
    FitEffects,
    derive_behaviour_tokens,
    dose_resid_norms,
    reading_vector,
)
from server.measure.fitting.options import SelectionRule
from server.measure.fitting.request import FitRequest
from server.measure.fitting.scan import Variant
from server.measure.instrument import Instrument
from server.measure.sinks import Sinks, find_sinks
from steering.directions import Direction
from steering.documents import PositionContext, Scope
from steering.errors import FitError
from steering.fit import (
    Interval,
    Receipt,
    Selection,
    bootstrap_cosine,
    bootstrap_separation,
    combine_layers,
    select_by_separation,
)
from steering.sites import SitePoint


@dataclass(frozen=True, eq=False, slots=True)
class _Fitted:
    """The direction to store and how it came about.

    Attributes:
        direction: The direction.
        ordinals: Which of the positions read each layer's tensors are from.
        options: Of the method, with which it was fitted.
        base: Scores of the unedited model, of those that candidates were compared by.
        candidates: Everything that was fitted.
        selection: How the direction was chosen; None where nothing was to choose.
        notes: What is to be said about it.
    """

    direction: Direction
    ordinals: Mapping[int, int]
    options: Mapping[str, Any]
    base: Mapping[str, float] = field(default_factory=dict)
    candidates: Sequence[FittedCandidate] = ()
    selection: Selection | None = None
    notes: tuple[str, ...] = ()


class FitRun:
    """Carries out one request.

    The scores of candidates are remembered, so that a resumed job measures none twice. Activations
    are too large to be remembered and are read again.
    """

    def __init__(self, request: FitRequest, context: JobContext) -> None:
        self._request = request
        self._context = context
        self._spec = context.spec
        self._progress = Progress(context)
        self._instrument = Instrument(
            context.engine,
            name=context.job_id,
            on_batch=self._progress.on_batch,
            compute=context.compute,
        )
        self._effects: FitEffects
        self._sinks: Sinks | None = None

    async def result(self) -> dict[str, Any]:
        """Fit and store the direction; returns `{"direction": "name@1", "receipt": {...}}`.

        Raises:
            SteeringError: The data do not support the fit, or no candidate qualifies.
            EngineError: The engine failed.
            StoreError: The direction cannot be stored.
        """
        request = self._request
        await self._progress.begin(0.0, 0.4, "reading activations", num_calls=4)
        points = [SitePoint(layer, request.site) for layer in request.layers]
        activations = await read_all(self._instrument, request.data, points)
        tokens = await self._behaviour_tokens()
        scope = await self._scope()
        self._effects = FitEffects(self._instrument, request, self._spec, tokens, scope)
        fitted = await self._fitted(activations)
        receipt = await self._receipt(fitted, activations, tokens)
        direction = fitted.direction
        provenance = {**direction.provenance, "receipt": receipt}
        await self._progress.begin(0.98, 1.0, "storing the direction")
        reference = await self._context.save_direction(replace(direction, provenance=provenance))
        return {"direction": reference, "receipt": receipt}

    async def _behaviour_tokens(self) -> tuple[int, ...]:
        options = self._request.options
        needed = self._request.is_selecting and options.rule.reads_answers
        if not needed or options.behaviour_tokens is not None:
            return options.behaviour_tokens or ()
        remembered = await self._context.recall("behaviour_tokens")
        if remembered is None:
            remembered = await derive_behaviour_tokens(
                self._instrument, self._request.data, options.rule
            )
            await self._context.remember("behaviour_tokens", list(remembered))
        return tuple(remembered)

    async def _scope(self) -> Scope:
        """Return the tokens on which edits are measured: those asked for, without the sinks.

        Raises:
            FitError: Nothing is left.
        """
        request, options = self._request, self._request.options
        if request.method.operation is None or not options.exclude_sinks:
            return options.scope
        validation = request.data.validation
        served = (*validation.positive.served, *validation.negative.served)
        found = await find_sinks(self._instrument, served, self._spec.num_layers)
        scope = found.outside(options.scope)
        context, length = PositionContext(len(served[0])), len(served[0])
        if (
            options.scope.mask(0, length, context).any()
            and not scope.mask(0, length, context).any()
        ):
            raise FitError(
                f"options.scope is {options.scope.to_dict()}, whose tokens are attention sinks "
                f"(positions {list(found.positions)}); expected others, or options.exclude_sinks "
                "false",
                param="options.scope",
            )
        self._sinks = found
        return scope

    async def _fitted(self, activations: FitActivations) -> _Fitted:
        request = self._request
        own = request.options.method
        if request.method.spans_layers:
            sides = (
                {layer: rows[:, 0] for layer, rows in side.items()}
                for side in (activations.train.positive, activations.train.negative)
            )
            direction = await self._context.compute(fit_at, request, self._spec, *sides)
            return _Fitted(direction, dict.fromkeys(direction.layers, 0), own)
        candidates = await self._candidates(activations)
        if request.is_selecting:
            return await self._selected(candidates)
        by_layer, notes = self._best_positions(candidates)
        if request.options.is_sequential:
            found = [by_layer[layer] for layer in sorted(by_layer)]
            await self._progress.begin(0.85, 0.88, "refitting later layers")
            directions = await self._sequential(found, activations)
        else:
            directions = [found.direction for found in by_layer.values()]
            if len(directions) > 1 and request.method.is_sequential:
                notes.append(
                    "layers were fitted independently; together they count the shift more than "
                    "once (options.sequential refits later ones)"
                )
        direction = directions[0]
        if len(directions) > 1:
            direction = combine_layers(directions, name=request.name)
        ordinals = {layer: found.ordinal for layer, found in by_layer.items()}
        return _Fitted(direction, ordinals, own, candidates=candidates, notes=tuple(notes))

    async def _selected(self, candidates: Sequence[FittedCandidate]) -> _Fitted:
        rule = self._request.options.rule
        base = await self._effects.base(rule)
        chosen, selection = choose(candidates, self._request, self._spec, base)
        notes: tuple[str, ...] = ()
        bypass = selection.chosen.bypass
        if rule is SelectionRule.EFFECT and bypass is not None and bypass >= base["bypass"]:
            notes = (
                f"ablating the direction does not make the behaviour less likely (bypass "
                f"{bypass:.3g}, unedited {base['bypass']:.3g})",
            )
        ordinals = dict.fromkeys(chosen.direction.layers, chosen.ordinal)
        options = chosen.variant.options
        return _Fitted(chosen.direction, ordinals, options, base, candidates, selection, notes)

    async def _candidates(self, activations: FitActivations) -> list[FittedCandidate]:
        request = self._request
        rule = request.options.rule if request.is_selecting else SelectionRule.SEPARATION
        places = [
            (layers, ordinal, variant)
            for start in range(len(request.layers))
            for ordinal in range(len(request.data.positions))
            for variant in request.options.scan.variants
            if len(layers := request.layers[start : start + variant.num_layers])
            == variant.num_layers
        ]
        found = []
        for number, place in enumerate(places):
            part = 0.45 / len(places)
            start = 0.4 + part * number
            message = f"measuring candidate {number + 1} of {len(places)}"
            await self._progress.begin(start, start + part, message, num_calls=4)
            candidate = await self._candidate(activations, *place)
            found.append(candidate.with_scores(await self._scores(candidate, rule)))
        return found

    async def _candidate(
        self, activations: FitActivations, layers: Sequence[int], ordinal: int, variant: Variant
    ) -> FittedCandidate:
        """Fit one variant at one position, later layers with the earlier ones active."""
        fitted = [
            await self._context.compute(
                fit_candidate, self._request, self._spec, activations, layer, ordinal, variant
            )
            for layer in layers
        ]
        if len(fitted) == 1:
            return fitted[0]
        directions = await self._sequential(fitted, activations)
        return replace(fitted[0], direction=combine_layers(directions, name=self._request.name))

    async def _scores(self, candidate: FittedCandidate, rule: SelectionRule) -> dict[str, float]:
        if not rule.reads_answers:
            return {}
        key = f"scores {candidate.scores.layer} {candidate.ordinal}"
        if candidate.variant.differs:
            key += f" {json.dumps(candidate.variant.differs)}"
        remembered: dict[str, float] | None = await self._context.recall(key)
        if remembered is None:
            remembered = await self._effects.scores(candidate.direction, rule)
            await self._context.remember(key, remembered)
        return remembered

    def _best_positions(
        self, candidates: Sequence[FittedCandidate]
    ) -> tuple[dict[int, FittedCandidate], list[str]]:
        """Return for each layer the position that separates best, and notes that say why."""
        chosen, notes = {}, []
        for layer in self._request.layers:
            here = [found for found in candidates if found.scores.layer == layer]
            chosen[layer] = here[0]
            if len(here) > 1:
                scores = [found.scores for found in here]
                selection = select_by_separation(scores)
                chosen[layer] = here[scores.index(selection.chosen)]
                notes.append(f"{selection.chosen}: {'; '.join(selection.reasons)}")
        return chosen, notes

    async def _sequential(
        self, fitted: Sequence[FittedCandidate], activations: FitActivations
    ) -> list[Direction]:
        """Fit each layer after the first while the earlier layers' directions act.

        `fitted` has a candidate of each layer, ascending. The edits move the negative prompts, so
        these are read again under them. The positive ones are where they should arrive, and stay as
        they were read.
        """
        request = self._request
        directions = [fitted[0].direction]
        for candidate in fitted[1:]:
            layer, ordinal = candidate.scores.layer, candidate.ordinal
            active = directions[0]
            if len(directions) > 1:
                active = combine_layers(directions, name=request.name)
            moved = await read_prompts(
                self._instrument,
                request.data.train.negative.read,
                [SitePoint(layer, request.site)],
                is_mean=request.data.is_mean,
                plan=self._effects.plan(active),
            )
            positive, _ = activations.train.at(layer, ordinal)
            directions.append(
                await self._context.compute(
                    fit_at,
                    request,
                    self._spec,
                    {layer: positive},
                    {layer: moved[layer][:, ordinal]},
                    candidate.variant,
                )
            )
        return directions

    async def _receipt(
        self, fitted: _Fitted, activations: FitActivations, tokens: tuple[int, ...]
    ) -> dict[str, Any]:
        request, direction = self._request, fitted.direction
        await self._progress.begin(0.88, 0.98, "measuring damage", num_calls=5)
        damage = await self._effects.damage(direction)
        train = activations.train
        side = train.positive if self._effects.moves_positive else train.negative
        moved = {layer: side[layer][:, ordinal] for layer, ordinal in fitted.ordinals.items()}
        options = {**request.options.document(), **fitted.options}
        options |= request.options.vectors
        if tokens:
            options["behaviour_tokens"] = list(tokens)
        notes = [*request.data.notes, *fitted.notes]
        if damage is not None:
            notes.append(
                f"damage is measured on {self._effects.unchanged_prompts[0]} prompts: KL of the "
                "first answer token, perplexity of the unedited model's own answers"
            )
        if request.data.summary.system_prompt_sha256 is not None:
            notes.append("the system prompt was there while extracting only")
        if self._sinks is not None and self._sinks.positions:
            notes.append(
                f"edits were measured without the attention sinks at positions "
                f"{list(self._sinks.positions)}; serve it with scope "
                f"{json.dumps(self._effects.scope.to_dict())}"
            )
        return Receipt(
            method=request.method.name,
            options=options,
            data=request.data.summary,
            scope=self._effects.scope.to_dict(),
            sinks=None if self._sinks is None else self._sinks.document(),
            selection=fitted.selection,
            base=fitted.base,
            candidates=tuple(found.scores for found in fitted.candidates),
            separation=await self._context.compute(self._separation, fitted, activations),
            dose_resid_norms=dose_resid_norms(direction, request.method, moved, self._spec),
            damage=damage,
            notes=tuple(notes),
        ).to_dict()

    def _separation(self, fitted: _Fitted, activations: FitActivations) -> dict[str, Interval]:
        """Return bootstrap intervals by name, or by `name.layer` where there are several layers."""
        found: dict[str, Interval] = {}
        seed = self._request.seed
        for layer in fitted.direction.layers:
            ordinal = fitted.ordinals[layer]
            train = activations.train.at(layer, ordinal)
            vector = reading_vector(fitted.direction, layer, *train)
            scores = bootstrap_separation(
                vector, *activations.validation.at(layer, ordinal), seed=seed
            )
            scores["cosine"] = bootstrap_cosine(*train, seed=seed)
            suffix = f".{layer}" if len(fitted.direction.layers) > 1 else ""
            found |= {f"{name}{suffix}": interval for name, interval in scores.items()}
        return found
