"""`GET /v1/capabilities`: what can be asked here, and why something cannot."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter

from server.api.deps import CallerDep, Services, ServicesDep, operation
from server.api.schemas.operations import Capabilities
from server.auth.permissions import Permission
from server.engine.outputs import EngineInfo
from server.engine.sampling import MAX_LOGPROBS, SamplingDefaults
from server.registry.drafting import MAX_INTERVENTIONS
from server.resolver.choice import Compose
from steering.directions import DirectionKind
from steering.documents import (
    DEFAULT_MAX_STRENGTH,
    GateToken,
    Measure,
    Opens,
    Operation,
    Per,
    Region,
    ScheduleKind,
    StrengthUnit,
    Tokens,
)
from steering.model_spec import ModelSpec
from steering.sites import READ_ONLY_SITES, Site

router = APIRouter(tags=["Operations"])

_FAMILIES: Final = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"),
    *("olmo2", "gpt2", "gpt_neox", "mixtral", "qwen3_moe"),
)
_ABSENT: Final = {
    "tools": "tool calls are not built",
    "response_format": "structured output is not built",
    "steering.compare in streams": "ask for a comparison without stream",
}


@router.get(
    "/v1/capabilities",
    response_model=Capabilities,
    response_model_exclude_unset=True,
    openapi_extra=operation(Permission.READ),
)
async def capabilities(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Model, sites, operations, families and limits, and the reason for what is absent."""
    info = services.engine.info()
    return {
        "object": "capabilities",
        "model": _model(info, services.sampling),
        "sites": [_site(site, info.spec) for site in Site],
        "operations": [item.value for item in Operation],
        "direction_kinds": [item.value for item in DirectionKind],
        "strength_units": [item.value for item in StrengthUnit],
        "gates": {
            "per": [item.value for item in Per],
            "measures": [item.value for item in Measure],
            "opens": [item.value for item in Opens],
            "tokens": [item.value for item in GateToken],
        },
        "schedules": [item.value for item in ScheduleKind],
        "scopes": {
            "tokens": [item.value for item in Tokens],
            "regions": [str(item.name).lower() for item in Region if item],
        },
        "compose": [item.value for item in Compose],
        "families": list(_FAMILIES),
        "jobs": [
            {"kind": kind.name, "summary": kind.summary, "options": dict(kind.options)}
            for kind in services.jobs.kinds.values()
        ],
        "limits": _limits(info, services),
        "key": {"name": caller.name, "scopes": sorted(caller.permissions)},
        "not_available": _ABSENT,
    }


def _model(info: EngineInfo, sampling: SamplingDefaults) -> dict[str, Any]:
    spec = info.spec
    return {
        "name": info.model_name,
        "family": spec.family,
        "fingerprint": spec.fingerprint,
        "num_layers": spec.num_layers,
        "hidden_size": spec.hidden_size,
        "num_heads": spec.num_heads,
        "head_dim": spec.head_dim,
        "vocab_size": info.vocab_size,
        "dtype": info.dtype,
        "device": info.device,
        "sampling": asdict(sampling),
    }


def _site(site: Site, spec: ModelSpec) -> dict[str, Any]:
    norms = {
        str(layer): norm for (layer, at), norm in sorted(spec.resid_norms.items()) if at is site
    }
    return {
        "site": site.value,
        "width": spec.width(site),
        "is_available": site not in spec.unavailable_sites,
        "is_editable": site not in spec.unavailable_sites and site not in READ_ONLY_SITES,
        "reason": spec.unavailable_sites.get(site)
        or ("it can only be read" if site in READ_ONLY_SITES else None),
        "resid_norms": norms,
    }


def _limits(info: EngineInfo, services: Services) -> dict[str, Any]:
    limits = services.limits
    return {
        "max_model_len": info.max_model_len,
        "max_num_seqs": info.max_num_seqs,
        "max_num_batched_tokens": info.max_num_batched_tokens,
        "max_live_edits": info.max_live_edits,
        "max_interventions": MAX_INTERVENTIONS,
        "max_choices": limits.max_choices,
        "max_prompts": limits.max_prompts,
        "max_messages": limits.max_messages,
        "max_logprobs": MAX_LOGPROBS,
        "max_body_bytes": limits.max_body_bytes,
        "max_chat_bytes": limits.chat.max_bytes,
        "max_upload_bytes": limits.max_upload_bytes,
        "max_json_upload_bytes": limits.max_json_upload_bytes,
        "max_upload_tensors": services.uploader.bounds.max_tensors,
        "default_max_strength": DEFAULT_MAX_STRENGTH,
    }
