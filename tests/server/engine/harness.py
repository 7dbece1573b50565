"""An engine over a tiny model of a real family, stepped by hand, and the bare model beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from server.engine.assembly import assemble
from server.engine.core import EngineCore
from server.engine.engine import EngineConfig
from server.engine.errors import EngineError
from server.engine.loading import LoadedModel, load
from server.engine.outputs import RequestOutput
from server.engine.request import GenerationRequest, Request
from server.engine.sampler import SampledRow
from server.engine.sampling import SamplingParams
from steering.plan import SteeringPlan
from steering.sites import SitePoint
from tests.models import save_tiny, tiny_tokenizer

__all__ = [
    "EngineHarness",
    "RecordingSink",
    "Traffic",
    "bare_logits",
    "load_tiny",
    "load_tiny_model",
]


def load_tiny(family: str, path: Path, **settings: Any) -> LoadedModel:
    """Load a tiny checkpoint of `family` through the real loader."""
    save_tiny(family, path)
    return _load(path, **settings)


def load_tiny_model(model: PreTrainedModel, path: Path, **settings: Any) -> LoadedModel:
    """The same of any tiny model, which is written to `path` first."""
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return _load(path, **settings)


def _load(path: Path, **settings: Any) -> LoadedModel:
    defaults: dict[str, Any] = {
        "model": str(path),
        "device": "cpu",
        "num_threads": 1,
        "block_size": 4,
        "max_model_len": 64,
        "kv_cache_bytes": 1 << 20,
        "max_chunk_seconds": 0.0,  # steps then depend on no clock
        "seed": 0,
    }
    return load(EngineConfig(**defaults | settings))


@dataclass
class RecordingSink:
    """Keeps everything a request was told."""

    outputs: list[RequestOutput] = field(default_factory=list)
    errors: list[EngineError] = field(default_factory=list)
    activations: Mapping[SitePoint, Tensor] = field(default_factory=dict)

    def emit(self, output: RequestOutput) -> None:
        self.outputs.append(output)

    def captured(self, activations: Mapping[SitePoint, Tensor]) -> None:
        self.activations = activations

    def fail(self, error: EngineError) -> None:
        self.errors.append(error)

    @property
    def token_ids(self) -> list[int]:
        return [token for output in self.outputs for token in output.token_ids]

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def has_ended(self) -> bool:
        finished = sum(output.finish_reason is not None for output in self.outputs)
        assert finished + len(self.errors) <= 1, "a request ended twice"
        return finished + len(self.errors) == 1


@dataclass(frozen=True)
class Traffic:
    """A request of a trace: when it arrives, and when it is cancelled, counted in steps."""

    request: GenerationRequest
    arrives: int = 0
    cancelled: int | None = None


class EngineHarness:
    """Steps an engine by hand and keeps the logits of every sampled token."""

    _ids = itertools.count()

    def __init__(self, loaded: LoadedModel, **changes: Any) -> None:
        """Assemble over `loaded`; `changes` replace fields of its configuration.

        `backend` among them captures decode steps.
        """
        backend = changes.pop("backend", None)
        self.loaded = loaded
        _remove_hooks(loaded.model)
        loaded.attention.clear()
        blocks = changes.pop("num_kv_blocks", loaded.info.num_kv_blocks)
        info = replace(loaded.info, num_kv_blocks=min(blocks, loaded.info.num_kv_blocks))
        config = replace(loaded.config, **changes)
        self.core: EngineCore = assemble(replace(loaded, config=config, info=info), backend)
        self.logits: dict[str, list[Tensor]] = {}
        self._requests: dict[str, Request] = {}
        self._keep_logits()

    @property
    def scheduler(self) -> Any:
        return self.core._scheduler

    def request(
        self,
        prompt: Sequence[int],
        plan: SteeringPlan | None = None,
        request_id: str | None = None,
        **sampling: Any,
    ) -> GenerationRequest:
        """A greedy request that ignores end tokens, unless told otherwise."""
        defaults = {"temperature": 0.0, "max_tokens": 6, "ignore_eos": True}
        return GenerationRequest(
            request_id=request_id or f"r{next(self._ids)}",
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(**{**defaults, **sampling}),
            plan=plan,
        )

    def run(
        self, *traffic: GenerationRequest | Traffic, each_step: Callable[[], None] | None = None
    ) -> list[RecordingSink]:
        """Run requests to their end and return what each was told."""
        trace = [item if isinstance(item, Traffic) else Traffic(item) for item in traffic]
        sinks = [RecordingSink() for _ in trace]
        last = max(max(item.arrives, item.cancelled or 0) for item in trace)
        step = 0
        while step <= last or self.core.has_work:
            for item, sink in zip(trace, sinks, strict=True):
                if item.arrives == step:
                    self.core.add(item.request, sink)
                if item.cancelled == step:
                    self.core.abort(item.request.request_id)
            if self.core.has_work:
                self.core.step()
                self._drop_refused()
                scheduler = self.scheduler
                scheduler.kv_cache.check_integrity(scheduler.requests())
            if each_step is not None:
                each_step()
            step += 1
            assert step < 5000, "the engine does not come to an end"
        assert all(sink.has_ended for sink in sinks)
        return sinks

    def _keep_logits(self) -> None:
        sampler = self.core._sampler
        original = sampler.sample

        def sample(logits: Tensor, rows: Sequence[SampledRow]) -> Any:
            for logit_row, row in zip(logits, rows, strict=True):
                kept = self.logits.setdefault(row.request.request_id, [])
                del kept[row.output_index :]  # of drafts that were refused
                kept.append(logit_row.clone())
                self._requests[row.request.request_id] = row.request
            return original(logits, rows)

        sampler.sample = sample  # type: ignore[method-assign]

    def _drop_refused(self) -> None:
        for request_id, request in self._requests.items():
            del self.logits[request_id][len(request.output_token_ids) :]


def _remove_hooks(model: nn.Module) -> None:
    """Of an engine before, that is; hooks that loading installs are part of the model."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            ours = [key for key, hook in hooks.items() if hook.__module__ == "steering.hooks"]
            for key in ours:
                del hooks[key]


def bare_logits(model: nn.Module, token_ids: Sequence[int]) -> Tensor:
    """Logits [T, V] of the plain Hugging Face model on one sequence."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(token_ids)]), use_cache=False).logits[0]
