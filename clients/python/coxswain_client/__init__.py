"""A typed client of a Coxswain server, for plain code and for asyncio."""

from __future__ import annotations

from .client import AsyncCoxswain, Coxswain
from .errors import (
    APIConnectionError,
    APIStatusError,
    APIStreamError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InsufficientStorageError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServiceUnavailableError,
    SteeringClientError,
    UnprocessableError,
    UnsupportedMediaError,
)
from .models.generation import ChatChunk, ChatCompletion, ChatMessage, Completion
from .models.jobs import Job, JobEvent
from .models.registry import Alias, Direction, PlanReport, Profile
from .models.server import AuditEvent, Key, Model, NewKey
from .models.steering import AppliedSteering, Gate, Intervention, Monitor, SteeringOptions

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APIStreamError",
    "APITimeoutError",
    "Alias",
    "AppliedSteering",
    "AsyncCoxswain",
    "AuditEvent",
    "AuthenticationError",
    "BadRequestError",
    "ChatChunk",
    "ChatCompletion",
    "ChatMessage",
    "Completion",
    "ConflictError",
    "Coxswain",
    "Direction",
    "Gate",
    "InsufficientStorageError",
    "Intervention",
    "Job",
    "JobEvent",
    "Key",
    "Model",
    "Monitor",
    "NewKey",
    "NotFoundError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PlanReport",
    "Profile",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerError",
    "ServiceUnavailableError",
    "SteeringClientError",
    "SteeringOptions",
    "UnprocessableError",
    "UnsupportedMediaError",
]
