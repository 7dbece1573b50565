"""Interventions at the outputs of all write matrices: safety injections and their controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Final

import torch

from lab.demo.demo import use
from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.plan import Steer
from steering.sites import Site, SitePoint

WRITE_SITES: Final = (Site.ATTN_OUT, Site.MLP_OUT)
"""Where the matrices that write to the residual stream put out, but for the embedding."""


def injected(direction: Direction, alpha: float, layers: list[int]) -> tuple[Steer, ...]:
    """W' = W + alpha s w^T at every matrix: ROSI as published."""
    return tuple(
        use(direction, operation="rank_one", layers=layers, site=site.value, strength=alpha)
        for site in WRITE_SITES
    )


def signed(
    direction: Direction, alpha: float, signs: Mapping[SitePoint, float]
) -> tuple[Steer, ...]:
    """The same with alpha times a sign of each matrix's own."""
    found = []
    for site, sign in product(WRITE_SITES, (-1.0, 1.0)):
        layers = [p.layer for p, own in signs.items() if p.site is site and own == sign]
        if layers:
            strength = sign * alpha
            found.append(
                use(
                    direction,
                    operation="rank_one",
                    layers=layers,
                    site=site.value,
                    strength=strength,
                )
            )
    return tuple(found)


def amplified(direction: Direction, alpha: float, layers: list[int]) -> tuple[Steer, ...]:
    """W' = (I + alpha s s^T) W at every matrix: an ablation of negative strength."""
    return tuple(
        use(direction, operation="ablate", layers=layers, site=site.value, strength=-alpha)
        for site in WRITE_SITES
    )


def pushed(direction: Direction, lengths: Mapping[SitePoint, float]) -> tuple[Steer, ...]:
    """A constant multiple of the unit direction added to every token at each matrix."""
    vector = direction.at(direction.layers[0])["vector"]
    unit = vector / vector.norm()
    found = []
    for site in WRITE_SITES:
        own = {p.layer: n for p, n in lengths.items() if p.site is site and abs(n) > MIN_NORM}
        if not own:
            continue
        constant = Direction(
            name=f"{direction.name}-{site.value}",
            kind=DirectionKind.VECTOR,
            site=site,
            layers=tuple(sorted(own)),
            tensors={f"vector.{layer}": unit * length for layer, length in own.items()},
            model_fingerprint=direction.model_fingerprint,
        )
        found.append(use(constant, operation="add"))
    return tuple(found)


def random_like(direction: Direction, seed: int) -> Direction:
    """A direction of the same shape and lengths whose vectors point anywhere."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in direction.tensors.items():
        if name.split(".")[0] == "vector":
            drawn = torch.randn(tensor.shape, generator=generator)
            tensors[name] = drawn / drawn.norm() * tensor.norm()
    return replace(direction, name=f"random-{seed}", tensors=tensors)
