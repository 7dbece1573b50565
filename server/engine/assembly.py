"""Assembles the parts of an engine around a loaded model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import torch

from steering.hooks import install_hooks
from steering.runtime import SteeringRuntime

from .attention import ScheduledSequence
from .core import EngineCore
from .cpu import fuse_blocks
from .graphs import CudaGraphs, DecodeGraphs
from .kv_cache import KVCacheManager
from .model_runner import ModelRunner
from .sampler import Sampler
from .scheduler import PromptLookup, RuntimeSlots, Scheduler, SchedulerLimits, SpeedMeter
from .step_log import StepLog

if TYPE_CHECKING:
    from torch import Tensor

    from steering.hooks import SiteRuntime
    from steering.sites import SitePoint

    from .engine import EngineConfig
    from .graphs import GraphBackend
    from .loading import LoadedModel

_log = structlog.get_logger(__name__)

_MAX_SEED: Final = 2**63 - 1


def assemble(loaded: LoadedModel, backend: GraphBackend | None = None) -> EngineCore:
    """The core of an engine over `loaded`; installs the steering hooks, once and for all.

    Args:
        loaded: The model.
        backend: Captures decode steps; None means as the configuration says.
    """
    config, info, layout = loaded.config, loaded.info, loaded.layout
    steps = StepLog()
    loaded.attention.report_progress(steps.beat)
    runtime = SteeringRuntime(layout.num_layers, layout.layer_devices, config.max_live_edits)
    install_hooks(layout, _HeartbeatRuntime(runtime, steps))
    blocks = [layer.block for layer in layout.layers]
    is_fused = fuse_blocks(blocks, runtime.acts_inside, partial(_few_logits, loaded))
    _log.info("blocks_fused" if is_fused else "blocks_not_fused", num_blocks=len(blocks))
    kv_cache = KVCacheManager(
        info.num_kv_blocks, info.block_size, enable_prefix_cache=config.enable_prefix_cache
    )
    limits = SchedulerLimits(
        max_model_len=info.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_queued_requests=config.max_queued_requests,
        max_queued_tokens=config.max_queued_tokens,
    )
    lookup = PromptLookup(config.prompt_lookup_tokens) if config.prompt_lookup_tokens else None
    return EngineCore(
        Scheduler(limits, kv_cache, RuntimeSlots(runtime), lookup),
        ModelRunner(
            loaded.model,
            loaded.attention,
            runtime,
            loaded.device,
            _graphs(loaded, runtime, backend or _graph_backend(loaded)),
        ),
        Sampler(loaded.tokenizer.end_token_ids, steps.beat),
        loaded.tokenizer,
        runtime,
        vocab_size=info.vocab_size,
        draw_seed=_seeds(config),
        steps=steps,
        meter=SpeedMeter(info.spec.hidden_size, config.max_chunk_seconds),
    )


def _graph_backend(loaded: LoadedModel) -> GraphBackend | None:
    is_wanted = loaded.config.cuda_graphs == "auto" and loaded.device.type == "cuda"
    return CudaGraphs(loaded.device) if is_wanted else None


def _graphs(
    loaded: LoadedModel, runtime: SteeringRuntime, backend: GraphBackend | None
) -> DecodeGraphs | None:
    if backend is None:
        return None
    limit = loaded.info.max_model_len
    return DecodeGraphs(loaded.model, loaded.attention, runtime, loaded.device, backend, limit)


@torch.inference_mode()
def _few_logits(loaded: LoadedModel) -> Tensor:
    """Logits [5, V] of a few tokens of one sequence: four together, as a prompt, then one alone."""
    token_ids = torch.arange(5, device=loaded.device) % loaded.info.vocab_size
    blocks = range(-(-len(token_ids) // loaded.info.block_size))
    rows = []
    for start, stop in ((0, 4), (4, 5)):
        loaded.attention.begin_step([ScheduledSequence(blocks, start, stop - start)])
        positions = torch.arange(start, stop, device=loaded.device)[None]
        ids = token_ids[None, start:stop]
        rows.append(loaded.model(input_ids=ids, position_ids=positions, use_cache=False).logits[0])
    return torch.cat(rows)


class _HeartbeatRuntime:
    """Wraps a runtime so that every site edited is a sign of progress: about seven a layer."""

    def __init__(self, runtime: SiteRuntime, steps: StepLog) -> None:
        self._runtime = runtime
        self._steps = steps

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        """Note progress, then edit as the runtime does."""
        self._steps.beat()
        return self._runtime.edit(point, hidden)


def _seeds(config: EngineConfig) -> Iterator[int]:
    source = random.SystemRandom() if config.seed is None else random.Random(config.seed)
    while True:
        yield source.randint(0, _MAX_SEED)
