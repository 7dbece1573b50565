"""Jobs and analyses."""

from __future__ import annotations

from typing import Any, Final

from .chats import MONITOR
from .stored import LAST, Case

__all__ = ["WORK"]

_JOBS: Final = "/v1/steering/jobs"


def _texts(start: int, count: int) -> list[str]:
    return [f"{chr(97 + index)}? number {start + index}" for index in range(count)]


_SETS: Final = {"positive": _texts(0, 26), "negative": _texts(100, 26)}
_PAIRS: Final = [
    {"positive": [{"role": "user", "content": positive}], "negative": negative}
    for positive, negative in zip(_SETS["positive"], _SETS["negative"], strict=True)
]
_FITS: Final[dict[str, dict[str, Any]]] = {
    "mean_difference": {
        "behaviour_tokens": ["a", 98],
        "max_kl": 0.5,
        "min_induce": 0.0,
        "exclude_sinks": True,
        "scope": {"tokens": "all"},
        "selection": "effect",
        "strength": 1.0,
    },
    "mean_centring": {"sequential": True},
    "pair_pca": {"centring": "differences"},
    "pca": {"rank": 2},
    "probe": {"l2": 1.0, "balance": True, "max_iterations": 100},
    "leace": {"shrinkage": True},
    "gaussian_transport": {
        "rank": 2,
        "shrinkage": 0.5,
        "max_stretch": 2.0,
        "complement_shift": 0.5,
        "selection": "log_odds",
    },
    "linear_act": {"variant": "gaussian", "min_std": 0.01},
    "null_space": {"target": "a-vector", "null_ratio": 0.1, "ridge": 0.1},
    "angular_plane": {"unit_samples": True},
    "iti_heads": {"top_k": 2, "validation": 0.3, "l2": 1.0, "seed": 0},
}
_LAYERS: Final = {"mean_centring": [1, 2], "angular_plane": [0, 1, 2], "iti_heads": [0, 1, 2, 3]}


def _fit(method: str, options: dict[str, Any]) -> Case:
    document = {
        "kind": "fit",
        "name": "fitted",
        "method": method,
        "layers": _LAYERS.get(method, [1]),
        "data": {"pairs": _PAIRS} if method == "pair_pca" else _SETS,
        "options": options,
    }
    return Case(f"fit: {method}", _JOBS, document, below=("options",))


_THOUGHT: Final = [
    {"role": "system", "content": "Think."},
    {"role": "user", "content": "How?"},
    {"role": "assistant", "content": "<think>so and so</think>like this"},
]
_QUESTION: Final = [{"role": "user", "content": "How?"}]
_CLIFF: Final[dict[str, Any]] = {
    "conversations": [_THOUGHT],
    "chat_template_kwargs": {"enable_thinking": False},
    "probe": {"direction": "end-probe", "layer": LAST, "site": "final"},
    "thinking_portion": 0.5,
    "trim": 1,
    "points": 5,
    "padding": "none",
    "curves": True,
}
_HEADS: Final[dict[str, Any]] = {
    "prompts": [_QUESTION, "What?"],
    "probe": "end-probe",
    "method": "causal",
    "fold": None,
    "factor": 0.001,
    "percent": 50.0,
    "gamma": 0.0,
    "seed": 1,
    "check": True,
    "profile": "fewer-heads",
    "requires": ["restricted"],
}

WORK: Final = (
    Case(
        "fit: everything",
        _JOBS,
        {
            "kind": "fit",
            "name": "fitted",
            "method": "pair_pca",
            "site": "resid_post",
            "layers": {"select": [1, 2]},
            "data": {
                "pairs": _PAIRS,
                "neutral": ["Hello there"],
                "system_prompt": "Be kind.",
                "chat_template_kwargs": {"enable_thinking": False},
                "token": "last",
                "validation": 0.25,
            },
            "options": {},
            "seed": 1,
            "requires": ["restricted"],
        },
    ),
    Case(
        "fit: validation of its own",
        _JOBS,
        {
            "kind": "fit",
            "name": "fitted",
            "layers": {"from": 0.2, "to": 0.8},
            "data": {
                **_SETS,
                "token": -1,
                "validation": {"positive": _texts(200, 5), "negative": _texts(300, 5)},
            },
        },
        skip=("kind", "name"),
    ),
    *(_fit(method, options) for method, options in _FITS.items()),
    Case(
        "sweep",
        _JOBS,
        {
            "kind": "sweep",
            "intervention": {"operation": "add", "direction": "a-vector", "unit": "raw"},
            "strengths": [0.0, 1.0],
            "data": {"prompts": ["What?"], "neutral": [_QUESTION]},
            "behaviour_tokens": ["a"],
            "requires": ["restricted"],
        },
    ),
    Case(
        "cliff_probe",
        _JOBS,
        {
            "kind": "cliff_probe",
            "name": "an-end-probe",
            "data": {
                side: [[_QUESTION[0] | {"content": text}, _THOUGHT[2]] for text in texts]
                for side, texts in _SETS.items()
            }
            | {"validation": 0.25},
            "layer": LAST,
            "site": "final",
            "l2": 1.0,
            "seed": 1,
            "requires": ["restricted"],
        },
    ),
    Case("cliff job", _JOBS, {"kind": "cliff", **_CLIFF, "requires": []}),
    Case("heads job", _JOBS, {"kind": "heads", **_HEADS}),
    Case(
        "analyze trace",
        "/v1/steering/analyze/trace",
        {
            "messages": [{"role": "user", "content": "hello"}],
            "readouts": [MONITOR],
            "max_tokens": 2,
            "steering": {"profile": "cheerful", "strength": 0.5, "compose": "add"},
        },
    ),
    Case(
        "analyze score",
        "/v1/steering/analyze/score",
        {"prompt": [104, 105], "continuation": "there", "steering": {"profile": "cheerful"}},
    ),
    Case(
        "analyze cliff",
        "/v1/steering/analyze/cliff",
        {**_CLIFF, "steering": {"profile": "cheerful"}},
    ),
    Case("analyze heads", "/v1/steering/analyze/heads", _HEADS),
)
