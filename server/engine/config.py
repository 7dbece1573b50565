"""How the engine is set up; values, resolved once at load."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EngineConfig"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits and placement.

    Attributes:
        model: Path of a checkpoint in Hugging Face format.
        served_name: Name under which it is served; None means the folder's name.
        device: `auto`, `cpu`, `cuda` or `cuda:<i>`.
        dtype: `auto` (the checkpoint's), `float32`, `bfloat16` or `float16`.
        device_map: `none`, or a strategy of accelerate such as `auto` or `balanced`.
        num_threads: Threads of one torch operation on the CPU; 0 means physical cores.
        pack_weights: On the CPU, keep a second copy of linear weights in the layout its kernels
            prefer, where a quarter of the free memory holds it.
        max_model_len: Longest prompt plus answer in tokens; 0 means the model's own limit.
        max_num_seqs: Most requests running at once.
        max_num_batched_tokens: Most tokens in one step.
        max_chunk_seconds: Longest that chunks of prompts may hold up a step which other requests
            wait for, twice that where none does; steps are sized by measured speed. 0 sets
            no limit beside `max_num_batched_tokens`.
        max_queued_requests: Most requests waiting.
        max_queued_tokens: Most prompt tokens waiting.
        max_live_edits: Most distinct interventions live at once over all requests.
        block_size: Tokens in one cache block.
        kv_cache_bytes: Memory for keys and values; 0 means a share of what is free.
        enable_prefix_cache: Reuse keys and values of equal prefixes under equal steering.
        stream_queue_size: Outputs a slow reader may be behind before its request is failed.
        step_timeout_seconds: Longest time without progress, within a step or between steps, before
            the engine counts as hung; that a step is long means nothing.
        seed: Of the seeds drawn for requests that give none; None draws from the system.
    """

    model: str
    served_name: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    device_map: str = "none"
    num_threads: int = 0
    pack_weights: bool = True
    max_model_len: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_chunk_seconds: float = 0.5
    max_queued_requests: int = 1024
    max_queued_tokens: int = 1_000_000
    max_live_edits: int = 1024
    block_size: int = 16
    kv_cache_bytes: int = 0
    enable_prefix_cache: bool = True
    stream_queue_size: int = 1024
    step_timeout_seconds: float = 30.0
    seed: int | None = None
