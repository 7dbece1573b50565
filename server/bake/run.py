"""Baking: from options to a checkpoint folder, or to a report of what one would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from server.engine.engine import EngineConfig
from server.engine.loading import LoadedModel, check_checkpoint, load, reading
from steering.documents import Operation
from steering.model_spec import ModelSpec
from steering.plan import SteeringPlan, compile_plan
from steering.sites import Site, SitePoint
from steering.weights import (
    CheckpointFiles,
    GainedEdit,
    Survival,
    TiedEmbeddingsError,
    UntiedEmbedding,
    WeightEditError,
    WeightEdits,
    WeightNorms,
    WriteTensor,
    check_foldable,
    check_output,
    copy_metadata,
    edits_by_point,
    locate_write_tensors,
    output_folder,
    refuse_centred,
    survey,
    write_weights,
)

from .mean_output import MeanOutput, calibration_prompts, measure_mean_outputs, read_prompts
from .options import BakeOperation, BakeOptions
from .report import BakeReport, PointReport, write_card
from .source import BakeSource, direction_source, profile_source, read_direction

if TYPE_CHECKING:
    from server.store import Store

_Edits = Mapping[SitePoint, Sequence[GainedEdit]]


def bake(options: BakeOptions, store: Store | None = None) -> BakeReport:
    """Bake into `options.out`, or tell what would happen where that is None.

    Loads the model once on the CPU as for serving, which checks that the steering fits it and
    measures its outputs. Weights are then edited from the files, one tensor at a time.

    Args:
        options: What is asked for.
        store: Holds the profiles; needed where one is baked.

    Raises:
        WeightEditError: It cannot be baked as asked; nothing is written.
        SteeringError: The steering does not fit the model.
        EngineError: The model cannot be loaded.
        StoreError: There is no such profile.
    """
    if options.out is not None:
        check_output(options.out, options.model, replace=options.force)
    sourced = _source(options, store)
    lines = None if options.prompts is None else read_prompts(options.prompts)
    with reading(str(options.model)):
        check_checkpoint(options.model).refuse_quantised()
    loaded = load(_engine_config(options))
    files = CheckpointFiles(options.model)
    spec = loaded.spec
    source = sourced(spec.num_layers)
    plan = _plan(source, spec)
    edits: _Edits = edits_by_point(plan, _biased(loaded))
    _refuse_biased_experts(loaded, edits)
    prompts = calibration_prompts(loaded, lines)
    outputs = measure_mean_outputs(loaded, list(edits), prompts)
    tensors = locate_write_tensors(loaded.model, loaded.layout, files, edits)
    untied = _untied(options, loaded, tensors)
    del loaded  # from here on, the files alone
    edits = _with_strength(options, edits, outputs, files, tensors)
    norms = survey(files, tensors, edits)
    refuse_centred({point: norms[point] for point in _rank_one_points(plan)})
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    baked = WeightEdits(files, tensors, edits, dtype, untied)
    if options.out is None:
        survived = baked.dry_run() if options.has_strength else {}
        return _report(options, source, baked, outputs, norms, survived)
    with output_folder(options.out, options.model, replace=options.force) as folder:
        survived = write_weights(baked, folder)
        left_out = copy_metadata(baked, folder)
        if left_out:
            note = f"not copied: {', '.join(left_out)}"
            source = replace(source, notes=(*source.notes, note))
        report = _report(options, source, baked, outputs, norms, survived)
        write_card(folder, source, spec, baked, report)
    return report


def _engine_config(options: BakeOptions) -> EngineConfig:
    return EngineConfig(
        str(options.model),
        device="cpu",
        pack_weights=False,
        max_num_seqs=1,
        max_chunk_seconds=0.0,  # what is measured must not depend on the machine's speed
    )


def _source(options: BakeOptions, store: Store | None) -> Callable[[int], BakeSource]:
    """Read what is baked before the model is loaded.

    Returns a function of the model's number of layers, on which a direction's places depend.
    """
    if options.direction is not None:
        return partial(direction_source, options, read_direction(options.direction))
    assert options.profile is not None, "checked by BakeOptions"
    assert store is not None, "a profile without its store"
    return partial(_same, profile_source(options.profile, store))


def _same(source: BakeSource, num_layers: int) -> BakeSource:
    del num_layers  # a profile names its layers
    return source


def _plan(source: BakeSource, spec: ModelSpec) -> SteeringPlan:
    """Compile the steering, having refused what weights cannot hold, such as gates and scopes."""
    for index, steer in enumerate(source.steers):
        site = steer.intervention.site or steer.direction.site
        check_foldable(steer.intervention, site, path=f"interventions[{index}].")
    if not source.steers:
        raise WeightEditError(f"{source.label} has no interventions", param="profile")
    return compile_plan(source.steers, [], spec)


def _biased(loaded: LoadedModel) -> frozenset[SitePoint]:
    """Return the points whose whole output comes from one matrix with a bias."""
    matrices = loaded.layout.write_matrices
    points = [matrix.point for matrix in matrices]
    return frozenset(
        matrix.point
        for matrix in matrices
        if matrix.bias is not None and points.count(matrix.point) == 1
    )


def _refuse_biased_experts(loaded: LoadedModel, edits: _Edits) -> None:
    for point, mean in loaded.spec.write_bias_means.items():
        if mean is None and point in edits:
            raise WeightEditError(
                f"the experts at {point.site.value!r} of layer {point.layer} have a bias each, "
                "which cannot be baked; edit 'attn_out', or serve the steering instead",
                param="model",
            )


def _untied(
    options: BakeOptions, loaded: LoadedModel, tensors: Sequence[WriteTensor]
) -> UntiedEmbedding | None:
    embeddings = [write.name for write in tensors if write.point.site is Site.EMBED]
    model: Any = loaded.model
    head = model.get_output_embeddings()
    if not embeddings or head.weight is not loaded.layout.embed.weight:
        if options.untie:
            raise WeightEditError(
                "untie is given, but no tied embedding is edited; leave it out", param="untie"
            )
        return None
    if not options.untie:
        raise TiedEmbeddingsError(
            "the embedding is tied to the unembedding, so that editing the one would edit the "
            "other; give --untie to keep the unembedding as a matrix of its own, or leave the "
            "embedding as it is",
            param="embeddings",
        )
    path = next(name for name, module in model.named_modules() if module is head)
    return UntiedEmbedding(embeddings[0], f"{path}.weight")


def _with_strength(
    options: BakeOptions,
    edits: _Edits,
    outputs: Mapping[SitePoint, MeanOutput],
    files: CheckpointFiles,
    tensors: Sequence[WriteTensor],
) -> _Edits:
    """Scale the edits of a direction, compiled with strength 1, by the strength asked for."""
    if options.profile is not None:
        return edits
    factors = dict.fromkeys(edits, 1.0 if options.alpha is None else options.alpha)
    if options.relative is not None:
        unit = survey(files, tensors, edits)
        if options.operation in (BakeOperation.RANK_ONE, BakeOperation.RANK_ONE_CALIBRATED):
            refuse_centred(unit)
        factors = {p: _factor(options.relative, p, norms) for p, norms in unit.items()}
    if options.operation is BakeOperation.RANK_ONE_CALIBRATED:
        factors = {p: f if outputs[p].mean > 0 else -f for p, f in factors.items()}
    return {
        point: [replace(item, gain=item.gain * factors[point]) for item in found]
        for point, found in edits.items()
    }


def _factor(relative: float, point: SitePoint, unit: WeightNorms) -> float:
    if not unit.update:
        raise WeightEditError(
            f"the weights at {point.site.value!r} of layer {point.layer} write nothing along the "
            "direction, so no alpha reaches a relative change; give alpha",
            param="relative",
        )
    return relative / unit.relative_update


def _rank_one_points(plan: SteeringPlan) -> set[SitePoint]:
    return {
        planned.point
        for item in plan.interventions
        if item.intervention.operation is Operation.RANK_ONE
        for planned in item.edits
    }


def _report(
    options: BakeOptions,
    source: BakeSource,
    baked: WeightEdits,
    outputs: Mapping[SitePoint, MeanOutput],
    norms: Mapping[SitePoint, WeightNorms],
    survived: Mapping[SitePoint, Survival],
) -> BakeReport:
    points = [
        PointReport(
            point=point,
            tensors=tuple(write.name for write in baked.tensors if write.point == point),
            output=outputs[point],
            norms=norms[point],
            gains=tuple(item.gain for item in baked.edits[point]),
            survival=survived.get(point),
        )
        for point in sorted(baked.edits, key=lambda point: (point.layer, point.site))
    ]
    return BakeReport(
        label=source.label,
        requires=source.requires,
        notes=source.notes,
        points=points,
        has_strength=options.has_strength,
        prompts="built-in" if options.prompts is None else options.prompts.name,
    )
