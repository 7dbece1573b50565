"""Directions, profiles and a loader for the store's tests."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from server.store import SYSTEM, DirectionRecord, ProfileRecord, SaveResult, Store
from steering.directions import Direction, DirectionKind
from steering.documents import Profile, ProfileDocument
from steering.sites import Site

WIDTH = 8


def direction(
    name: str = "refusal",
    seed: int = 0,
    *,
    layers: tuple[int, ...] = (2,),
    width: int = WIDTH,
    **fields: Any,
) -> Direction:
    """A vector of its own for every seed."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(width, generator=generator)
    values = {"kind": DirectionKind.VECTOR, "site": Site.RESID_POST, **fields}
    return Direction(name=name, layers=layers, tensors={"vector": vector}, **values)


def blob(value: Direction) -> bytes:
    return save_safetensors(dict(value.tensors))


def load(content: bytes, record: DirectionRecord) -> Direction:
    return Direction(
        name=record.name,
        kind=record.kind,
        site=record.site,
        layers=record.layers,
        tensors=load_safetensors(content),
        version=record.version,
    )


def put(store: Store, value: Direction) -> SaveResult[DirectionRecord]:
    return store.directions.put(value, blob(value), by=SYSTEM)


def profile(name: str = "careful", *uses: str, **fields: Any) -> Profile:
    """A profile that adds each direction of `uses` in turn."""
    steps = [{"operation": "add", "direction": use, "strength": 2.0} for use in uses]
    return ProfileDocument.from_dict({"interventions": steps, **fields}).named(name)


def publish(store: Store, name: str = "careful", *uses: str, **fields: Any) -> ProfileRecord:
    return store.profiles.save(profile(name, *uses, **fields), by=SYSTEM, publish=True).record
