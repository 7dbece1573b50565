"""Assembles the parts of an engine around a loaded model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from steering.hooks import install_hooks
from steering.runtime import SteeringRuntime

from .core import EngineCore
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
