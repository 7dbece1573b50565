"""Chats and texts: sampling, and every form of steering."""

from __future__ import annotations

from typing import Any, Final

from .spoil import Place
from .stored import Case

__all__ = ["ADD", "CHATS", "MONITOR"]

_SCOPE: Final[dict[str, Any]] = {
    "tokens": ["last_prompt", "generated"],
    "windows": [[0, 4], [6, 9]],
    "generated_windows": [[0, 4]],
    "prompt_indices": [0, -1],
    "regions": ["assistant"],
    "exclude": {
        "tokens": "last_prompt",
        "windows": [[2, 3]],
        "generated_windows": [[1, 2]],
        "prompt_indices": [1],
        "regions": ["thinking"],
    },
}
_REQUEST_GATE: Final[dict[str, Any]] = {
    "per": "request",
    "direction": "a-vector",
    "threshold": 0.5,
    "opens": "above",
    "measure": "cosine",
    "layer": 1,
    "site": "resid_post",
    "token": "last",
}
_TOKEN_GATE: Final[dict[str, Any]] = {
    "per": "token",
    "direction": "a-probe",
    "threshold": 0.5,
    "opens": "below",
    "measure": "probability",
    "site": "resid_post",
    "steepness": 2.0,
}
_RAMP: Final = {"kind": "ramp", "start": 0.0, "end": 1.0, "tokens": 4}
_DECAY: Final = {"kind": "decay", "factor": 0.5}

ADD: Final[dict[str, Any]] = {
    "operation": "add",
    "direction": "a-vector",
    "layers": [1, 2],
    "site": "resid_post",
    "strength": 1.5,
    "unit": "resid",
    "restore_norm": True,
    "distribute": True,
    "scope": {"tokens": "all"},
    "schedule": {"kind": "constant"},
}
_GATED: Final[dict[str, Any]] = {
    "operation": "add",
    "direction": "a-vector",
    "scope": {"tokens": "generated"},
}
_OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    "ablate": {"direction": "a-vector@1", "reference": 0.5},
    "ablate to the stored reference": {"direction": "a-vector", "reference": "stored"},
    "set": {"direction": "a-vector", "value": 1.0},
    "clamp": {"direction": "a-vector", "minimum": 0.0, "maximum": 1.0},
    "transport": {"direction": "a-transport", "mean_strength": 1.0, "shape_strength": 0.5},
    "diagonal": {"direction": "a-diagonal"},
    "rotate": {"direction": "a-plane", "angle": 30.0},
    "rotate_to": {"direction": "a-plane", "angle": 30.0},
    "scale_heads": {"direction": "a-heads"},
    "rank_one": {"direction": "attn-vector"},
}
_OWN: Final = ("value", "minimum", "maximum", "reference", "angle", "mean_strength")
MONITOR: Final = {"direction": "a-probe", "layer": 1, "site": "resid_post"}

_CHAT: Final[dict[str, Any]] = {
    "model": "echo",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": "yes?", "reasoning_content": "a greeting"},
        {"role": "user", "content": "go on"},
    ],
    "max_tokens": 4,
}
_SAMPLING: Final[dict[str, Any]] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"97": -1.0},
    "seed": 7,
    "stop": ["never"],
    "stop_token_ids": [10],
    "ignore_eos": False,
    "min_tokens": 0,
    "n": 2,
    "return_token_ids": True,
}
_IGNORED: Final[dict[str, Any]] = {
    "user": "me",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "safety_identifier": "me",
    "prompt_cache_key": "k",
    "best_of": 1,
    "bad_words": [],
    "suffix": None,
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "none",
    "response_format": {"type": "text"},
    "guided_json": None,
    "structured_outputs": None,
    "lora_path": None,
}
_CHAT_ONLY: Final[dict[str, Any]] = {
    "max_completion_tokens": 4,
    "logprobs": True,
    "top_logprobs": 2,
    "prompt_logprobs": 1,
    "add_generation_prompt": True,
    "continue_final_message": False,
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "audio": None,
    "chat_template": "default",
    "chat_template_kwargs": {"enable_thinking": False, "date_string": "today"},
    "reasoning_effort": "none",
    "reasoning_format": "parsed",
    "include_reasoning": True,
    "verbosity": None,
    "prediction": None,
    "web_search_options": None,
}


def _steered(name: str, intervention: dict[str, Any], *inside: str, **options: Any) -> Case:
    document = {**_CHAT, "steering": {"interventions": [intervention]}}
    place: Place = ("steering", "interventions", 0, *inside)
    return Case(f"chat: {name}", "/v1/chat/completions", document, below=place, **options)


_STEERED: Final = (
    Case("chat: sampling", "/v1/chat/completions", {**_CHAT, **_SAMPLING}, skip=("content",)),
    Case("chat: its own fields", "/v1/chat/completions", {**_CHAT, **_CHAT_ONLY}),
    Case(
        "chat: a stream",
        "/v1/chat/completions",
        {**_CHAT, "stream": True, "stream_options": {"include_usage": True}},
        skip=("messages", "model"),
    ),
    Case(
        "chat: ignored",
        "/v1/chat/completions",
        {**_CHAT, **_IGNORED},
        skip=("messages", "model", "max_tokens"),
    ),
    Case(
        "chat: vllm_xargs",
        "/v1/chat/completions",
        {**_CHAT, "vllm_xargs": {"steering": '{"profile": "cheerful"}'}},
        below=("vllm_xargs",),
    ),
    Case(
        "chat: steering",
        "/v1/chat/completions",
        {
            **_CHAT,
            "steering": {
                "profile": "cheerful",
                "strength": 1.0,
                "ignore_max_strength": False,
                "interventions": [],
                "monitors": [MONITOR],
                "compose": "replace",
                "compare": True,
                "prompt_tokens": 5,
            },
        },
        below=("steering",),
    ),
    _steered("add", ADD, skip=("scope", "schedule"), beside=_OWN),
    _steered("a range of layers", {**_GATED, "layers": {"from": 0.2, "to": 0.8}}, "layers"),
    _steered("scope", {**_GATED, "scope": _SCOPE}, "scope"),
    _steered("ramp", {**_GATED, "schedule": _RAMP}, "schedule"),
    _steered("decay", {**_GATED, "schedule": _DECAY}, "schedule"),
    _steered("a gate per request", {**_GATED, "gate": _REQUEST_GATE}, "gate"),
    _steered("a gate per token", {**_GATED, "gate": _TOKEN_GATE}, "gate"),
    *(
        _steered(name, {"operation": name.partition(" ")[0], **own}, beside=_OWN)
        for name, own in _OPERATIONS.items()
    ),
)

_TEXTS: Final = (
    Case(
        "completions",
        "/v1/completions",
        {
            "model": "echo",
            "prompt": ["hello", "there"],
            "max_tokens": 4,
            "echo": True,
            "logprobs": 2,
            "temperature": 0.5,
            "steering": {"profile": "cheerful", "prompt_tokens": [2, 3]},
        },
    ),
    Case(
        "completions: ids",
        "/v1/completions",
        {"model": "echo", "prompt": [[1, 2], [3]], "max_tokens": 4},
        below=("prompt",),
    ),
    Case(
        "tokenize: a text",
        "/v1/tokenize",
        {
            "model": "echo",
            "prompt": "hello",
            "add_special_tokens": True,
            "return_token_strs": True,
        },
    ),
    Case(
        "tokenize: a chat",
        "/v1/tokenize",
        {
            "messages": [{"role": "user", "content": "hello"}],
            "add_generation_prompt": True,
            "continue_final_message": False,
        },
    ),
    Case("detokenize", "/v1/detokenize", {"model": "echo", "tokens": [104, 105]}),
)

CHATS: Final = (*_STEERED, *_TEXTS)
"""Documents of the OpenAI routes."""
