"""What the routes for operators and tools answer: models, capabilities, health."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.auth.permissions import Permission
from server.resolver.choice import Compose
from steering.directions import DirectionKind
from steering.documents import (
    GateToken,
    Measure,
    Opens,
    Operation,
    Per,
    ScheduleKind,
    StrengthUnit,
    Tokens,
)
from steering.sites import Site

_MODEL: Final[dict[str, Any]] = {
    "id": "coxswain-chat:cheerful",
    "object": "model",
    "created": 1764442800,
    "owned_by": "coxswain",
    "root": "coxswain-chat",
    "parent": "coxswain-chat",
    "max_model_len": 1024,
    "description": "Answers cheerfully.",
    "steering": {"profile": "cheerful", "version": 1},
}


class _SteeringOfModel(BaseModel):
    profile: str
    version: int


class Model(BaseModel):
    """The model, or the model under a profile, which then has a description and `steering`."""

    model_config = ConfigDict(json_schema_extra={"example": _MODEL})

    id: str = Field(description="What a request's `model` may be.")
    object: Literal["model"]
    created: int = Field(description="Unix seconds.")
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int
    description: str | None = None
    steering: _SteeringOfModel | None = None


class ModelList(BaseModel):
    """Every model there is, none left out."""

    object: Literal["list"]
    data: list[Model]


class _SamplingDefaults(BaseModel):
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    max_tokens: int | None


class _ServedModel(BaseModel):
    name: str
    family: str
    fingerprint: str
    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    vocab_size: int
    dtype: str
    device: str
    sampling: _SamplingDefaults = Field(
        description="Of requests that do not say; null leaves OpenAI's default."
    )


class _SiteOfModel(BaseModel):
    site: Site
    width: int
    is_available: bool
    is_editable: bool
    reason: str | None = Field(description="Why it is not available, or not editable.")
    resid_norms: dict[str, float] = Field(description="Mean residual norm by layer.")


class _GateChoices(BaseModel):
    per: list[Per]
    measures: list[Measure]
    opens: list[Opens]
    tokens: list[GateToken]


class _TokenScopes(BaseModel):
    tokens: list[Tokens]
    regions: list[Literal["assistant", "thinking", "answer"]]


class _JobKind(BaseModel):
    kind: str
    summary: str
    options: dict[str, Any]


class _ServerLimits(BaseModel):
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_live_edits: int
    max_interventions: int
    max_choices: int
    max_prompts: int
    max_messages: int
    max_logprobs: int
    max_body_bytes: int
    max_chat_bytes: int
    max_upload_bytes: int
    max_json_upload_bytes: int
    max_upload_tensors: int
    default_max_strength: float


class _KeyInUse(BaseModel):
    name: str | None
    scopes: list[Permission | str]


class Capabilities(BaseModel):
    """What can be asked here, and why something cannot."""

    object: Literal["capabilities"]
    model: _ServedModel
    sites: list[_SiteOfModel]
    operations: list[Operation]
    direction_kinds: list[DirectionKind]
    strength_units: list[StrengthUnit]
    gates: _GateChoices
    schedules: list[ScheduleKind]
    scopes: _TokenScopes
    compose: list[Compose]
    families: list[str]
    jobs: list[_JobKind]
    limits: _ServerLimits
    key: _KeyInUse
    not_available: dict[str, str] = Field(description="What is not offered, and why.")


class Health(BaseModel):
    """Well; anything else is a failure with status 503."""

    status: Literal["live", "ready"]
