"""The routes, one module for each noun of the interface."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from . import (
    aliases,
    audit,
    capabilities,
    chat,
    cliff,
    completions,
    directions,
    heads,
    health,
    jobs,
    keys,
    models,
    profiles,
    score,
    tokenize,
    trace,
)

__all__ = ["ROUTERS"]

ROUTERS: Final[tuple[APIRouter, ...]] = (
    *(chat.router, completions.router, models.router, tokenize.router),
    *(directions.router, profiles.router, aliases.router, jobs.router),
    *(keys.router, audit.router),
    *(trace.router, score.router, cliff.router, heads.router),
    *(health.router, capabilities.router),
)
"""Every route but those that show the document of all of them."""
