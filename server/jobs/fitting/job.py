"""The job `fit`: from two sets of examples to a stored direction with its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.jobs.context import JobContext
from server.jobs.examples.examples import DEFAULT_VALIDATION, MIN_TRAIN, MIN_VALIDATION
from server.jobs.examples.token_choice import TokenKind
from server.jobs.kind import JobKind
from steering.fit import METHODS

from .options import JOB_OPTIONS
from .request import SELECT, FitRequest
from .run import FitRun

__all__ = ["FIT"]


async def _run(request: Mapping[str, Any], context: JobContext) -> dict[str, Any]:
    parsed = await context.compute(FitRequest.parse, request, context.engine, context.directions)
    return await FitRun(parsed, context).result()


def _methods() -> dict[str, Any]:
    return {
        name: {
            "summary": method.summary,
            "kind": method.kind.value,
            "operation": method.operation and method.operation.value,
            "min_samples": method.min_samples,
            "is_paired": method.is_paired,
            "options": {
                option.name: {
                    "type": option.type,
                    "default": option.default,
                    **({} if option.range is None else {"expected": f"a number {option.range}"}),
                }
                for option in method.options.values()
            },
        }
        for name, method in METHODS.items()
    }


FIT: Final = JobKind(
    name="fit",
    summary="Fit a direction from two sets of example prompts and store it with its receipt.",
    parse=FitRequest.parse,
    run=_run,
    options={
        "methods": _methods(),
        "options": list(JOB_OPTIONS),
        "layers": SELECT,
        "token": [kind.value for kind in TokenKind if kind is not TokenKind.INDEX],
        "validation": DEFAULT_VALIDATION,
        "min_train": MIN_TRAIN,
        "min_validation": MIN_VALIDATION,
    },
)
