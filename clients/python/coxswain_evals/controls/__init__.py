"""The controls of treatments: random directions of equal norm, addition of equal dose."""

from __future__ import annotations

from .planning import NO_OP, plan_arms

__all__ = ["NO_OP", "plan_arms"]
