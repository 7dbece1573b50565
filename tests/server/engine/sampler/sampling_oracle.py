"""The sampler once more, in numpy float64, one row at a time, written from the documentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engine.request import Request

Row = NDArray[np.float64]


def edited(logits: Row, request: Request, end_token_ids: frozenset[int]) -> Row:
    params, output = request.spec.sampling, request.output_token_ids
    logits = logits.astype(np.float64).copy()
    for token in {*request.spec.prompt_token_ids, *output}:
        penalty = params.repetition_penalty
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    for token in set(output):
        logits[token] -= params.frequency_penalty * output.count(token) + params.presence_penalty
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    if len(output) < params.min_tokens:
        logits[[*end_token_ids, *params.stop_token_ids]] = -np.inf
    return logits


def distribution(logits: Row, request: Request, end_token_ids: frozenset[int]) -> Row:
    """What a row with a temperature is drawn from."""
    params = request.spec.sampling
    logits = edited(logits, request, end_token_ids)
    p = np.exp((logits - logits.max()) / params.temperature)
    p /= p.sum()
    p[p < params.min_p * p.max()] = 0.0
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    if params.top_k > 0:
        p[order[params.top_k :]] = 0.0
        p /= p.sum()
    kept, mass = [], 0.0
    for token in order:
        if mass >= params.top_p:
            break
        kept.append(token)
        mass += p[token]
    nucleus = np.zeros_like(p)
    nucleus[kept] = p[kept]
    return nucleus / nucleus.sum()


def log_softmax(logits: Row) -> Row:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
