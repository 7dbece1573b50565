"""Decode steps that are captured once and replayed."""

from __future__ import annotations

from .capture import CudaGraphs, Graph, GraphBackend
from .decode_graphs import DecodeGraphs
from .static_decode import DecodeBatch

__all__ = ["CudaGraphs", "DecodeBatch", "DecodeGraphs", "Graph", "GraphBackend"]
