"""The settings of the process, from its environment and command line, read once at start."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .engine.engine import EngineConfig

ENV_PREFIX = "COXSWAIN_"


class Settings(BaseSettings):
    """Process-wide settings; each is `COXSWAIN_<NAME>` in the environment.

    Only `cli` and `app.py` read them; everything else receives values built from them.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", allow_inf_nan=False
    )

    # Where it listens
    host: str = Field(
        default="127.0.0.1", description="Address to bind; other than loopback needs a key."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    trusted_hosts: list[str] = Field(
        default=[],
        description="Names in Host accepted beside loopback ones, and in Origin; empty on another "
        "address: any Host.",
    )
    max_connections: int = Field(default=1024, ge=1, description="Open connections; more get 503.")

    # What it serves
    model: str | None = Field(
        default=None,
        description="smollm2, organism, a checkpoint's folder, a .gguf file, or a hub id "
        "(owner/name); none: smollm2 where it is installed, else organism.",
    )
    served_name: str | None = Field(
        default=None,
        description="Name of the model; none: its own, its folder's or its file's "
        "(the organism's: coxswain-chat).",
    )
    adapter: Path | None = Field(
        default=None, description="Folder of a LoRA adapter, merged into the model (needs peft)."
    )
    data_dir: Path = Field(
        default=Path("data"), description="Database, artifacts, and models made from GGUF files."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; none: SQLite under data_dir."
    )
    artifacts_url: str | None = Field(
        default=None,
        description="s3://bucket/prefix, gs://, az:// or file:///; none: a folder in data_dir.",
    )
    default_profile: str | None = Field(
        default=None,
        description="Profile of requests that choose none, as `name` or `name@version`.",
    )
    generation_config: Literal["model", "none"] = Field(
        default="model",
        description="Sampling of requests that do not say: as the model's generation_config.json "
        "has it; none: temperature 1 and no limit.",
    )
    load_demo: bool = Field(
        default=True, description="Create the demo profiles that fit the model."
    )

    # Engine
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:<i>.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Data type of weights and activations; auto: the checkpoint's."
    )
    device_map: str = Field(default="none", description="none, or a strategy of accelerate.")
    decode_weights: Literal["auto", "off", "float16"] = Field(
        default="auto",
        description="Weights for steps of few tokens on a CPU; auto: what is measured faster.",
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads of one operation; 0: physical cores."
    )
    max_model_len: int = Field(
        default=0, ge=0, description="Prompt plus answer in tokens; 0: model's."
    )
    max_num_seqs: int = Field(default=256, ge=1, description="Requests running at once.")
    max_num_batched_tokens: int = Field(default=2048, ge=1, description="Tokens in one step.")
    max_chunk_seconds: float = Field(
        default=0.5,
        ge=0,
        description="Time prompts may add to a step that streams wait for; 0: any.",
    )
    max_queued_requests: int = Field(
        default=1024, ge=1, description="Requests waiting; more get 429."
    )
    max_queued_tokens: int = Field(
        default=1_000_000, ge=1, description="Prompt tokens waiting; more get 429."
    )
    max_live_edits: int = Field(
        default=1024, ge=1, description="Distinct interventions live at once."
    )
    block_size: int = Field(default=16, ge=1, description="Tokens in one block of the KV cache.")
    kv_cache_bytes: int = Field(
        default=0, ge=0, description="Memory of the KV cache; 0: a free share."
    )
    prefix_cache: bool = Field(default=True, description="Share keys and values of equal prefixes.")
    prompt_lookup_tokens: int = Field(
        default=8,
        ge=0,
        le=64,
        description="Tokens guessed from a request's own text and verified in one step; 0: none.",
    )
    stream_queue_size: int = Field(
        default=1024,
        ge=1,
        description="Outputs a slow reader may be behind before its request fails.",
    )
    step_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Time without progress in a step before it counts as hung."
    )
    cuda_graphs: Literal["auto", "off"] = Field(
        default="auto", description="auto: capture and replay decode steps on a CUDA device."
    )
    seed: int | None = Field(
        default=None, description="Of seeds drawn for requests without; none: random."
    )

    # Chats
    chat_template: str | None = Field(
        default=None,
        description="Name of one of the model's templates, or a file of Jinja (.jinja, .j2, .txt); "
        "none: the one called default.",
    )
    thinking_markers: tuple[str, str] | None = Field(
        default=None,
        description="Tokens that open and close a thought; none: those of known families.",
    )
    reasoning_format: Literal["parsed", "raw", "hidden"] = Field(
        default="parsed",
        description="Thoughts of chats that do not say: parsed from the answer, raw in it, or "
        "hidden.",
    )

    # Requests
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024, description="Size of a JSON body.")
    max_upload_bytes: int = Field(
        default=64 * 2**20, ge=1024, description="Size of the file of an uploaded direction."
    )
    max_choices: int = Field(default=16, ge=1, description="Choices of one prompt (n).")
    body_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Time to send a request's body."
    )
    send_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Time a reader may take a chunk."
    )
    keep_alive_seconds: float = Field(
        default=15.0, gt=0, description="Silence before an SSE comment."
    )
    drain_timeout_seconds: float = Field(
        default=30.0, ge=0, description="Time running requests have to finish after SIGTERM."
    )

    # Jobs
    max_running_jobs: int = Field(
        default=1, ge=1, description="Jobs running at once beside the chats."
    )
    max_queued_jobs: int = Field(default=64, ge=1, description="Jobs waiting; more get 429.")
    job_threads: int = Field(
        default=1, ge=1, le=1024, description="CPU threads of one operation of a job's fit."
    )
    job_retention_days: float | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="Days an ended job is kept, until `coxswain store collect`; none: for good.",
    )

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Level."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="One JSON object, or text."
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def models_dir(self) -> Path:
        """Folder of the checkpoints made from GGUF files."""
        return self.data_dir / "models"

    def engine_config(self, folder: Path, name: str) -> EngineConfig:
        """The part of the settings the engine is built from.

        Args:
            folder: The checkpoint's.
            name: What it is served as where `served_name` is not set, but for the adapter.
        """
        if self.adapter is not None:
            name = f"{name}+{self.adapter.resolve().name}"
        return EngineConfig(
            model=str(folder),
            served_name=self.served_name or name,
            adapter=None if self.adapter is None else str(self.adapter),
            device=self.device,
            dtype=self.dtype,
            device_map=self.device_map,
            decode_weights=self.decode_weights,
            num_threads=self.threads,
            generation_config=self.generation_config,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_chunk_seconds=self.max_chunk_seconds,
            max_queued_requests=self.max_queued_requests,
            max_queued_tokens=self.max_queued_tokens,
            max_live_edits=self.max_live_edits,
            block_size=self.block_size,
            kv_cache_bytes=self.kv_cache_bytes,
            enable_prefix_cache=self.prefix_cache,
            prompt_lookup_tokens=self.prompt_lookup_tokens,
            stream_queue_size=self.stream_queue_size,
            step_timeout_seconds=self.step_timeout_seconds,
            cuda_graphs=self.cuda_graphs,
            seed=self.seed,
            chat_template=self.chat_template,
            thinking_markers=self.thinking_markers,
        )
