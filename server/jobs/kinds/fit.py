"""The job `fit`, and what capabilities say of it."""

from __future__ import annotations

from typing import Any

from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.examples.examples import DEFAULT_VALIDATION, MIN_TRAIN, MIN_VALIDATION
from server.measure.examples.prompts import TokenKind
from server.measure.fitting.options import JOB_OPTIONS
from server.measure.fitting.request import SELECT, FitJob, FitRequest
from steering.fit import METHODS, Method

from .fit_run import FitRun


async def _run(request: FitRequest, context: JobContext) -> dict[str, Any]:
    return await FitRun(request, context).result()


def _methods() -> dict[str, Any]:
    return {
        name: {
            "summary": method.summary,
            "kind": method.kind.value,
            "operation": method.operation and method.operation.value,
            "min_samples": method.min_samples,
            "is_paired": method.is_paired,
            "options": _options(method),
        }
        for name, method in METHODS.items()
    }


def _options(method: Method) -> dict[str, Any]:
    types, ranges = method.options.types(), method.options.ranges()
    return {
        name: {
            "type": types[name],
            "default": field.default,
            **({"expected": ranges[name]} if name in ranges else {}),
        }
        for name, field in method.options.model_fields.items()
    }


FIT = JobKind(
    name="fit",
    summary="Fit a direction from two sets of example prompts and store it with its receipt.",
    request=FitJob,
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
