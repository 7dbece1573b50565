"""Directions that controls need: made of a stored one, stored beside it, found again by content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from coxswain_client.client import AsyncCoxswain
from coxswain_client.models.registry import Direction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

_TAG: Final = "evaluation-control"
_MAX_NAME: Final = 64
# Tensors whose rows are vectors of the activation space. `reference` is none of them: it is a place
# that activations have, and stays, so that a random ablation removes what deviates from it.
_ROWS: Final = {
    "vector": ("vector",),
    "basis": ("basis",),
    "plane": ("basis",),
    "transport": ("basis", "map", "shift"),
}
_COORDINATES: Final = {"diagonal": ("scale", "shift"), "heads": ("scale",)}


class ControlDirections:
    """The directions of the server, and those made of them; each is fetched and stored once."""

    def __init__(self, client: AsyncCoxswain) -> None:
        self._client = client
        self._tensors: dict[str, dict[str, NDArray[np.float32]]] = {}
        self._stored: dict[str, Direction] = {}

    async def get(self, reference: str) -> Direction:
        """A stored direction, without its tensors."""
        if reference not in self._stored:
            self._stored[reference] = await self._client.directions.get(reference)
        return self._stored[reference]

    async def tensors(self, reference: str) -> dict[str, NDArray[np.float32]]:
        """The tensors of a stored direction, as float32."""
        if reference not in self._tensors:
            file = await self._client.directions.tensors(reference)
            self._tensors[reference] = read_tensors(file)
        return self._tensors[reference]

    async def random(self, reference: str, seed: int) -> str:
        """A random direction with the norms and angles of a stored one, as `name@version`."""
        source = await self.get(reference)
        made = turned(await self.tensors(reference), source.kind, seed)
        name = _name(f"random-{seed}-of-{source.name}-{source.version}")
        told = {"method": "random isometry", "of": reference, "seed": seed}
        return await self._store(source, source.kind, made, name, told)

    async def shift(self, reference: str) -> str:
        """The constant shift of a transport map or diagonal as a vector to be added."""
        source = await self.get(reference)
        made = {
            name.replace("shift", "vector", 1): tensor
            for name, tensor in await self._shifts(reference)
        }
        name = _name(f"shift-of-{source.name}-{source.version}")
        return await self._store(
            source, "vector", made, name, {"method": "constant shift", "of": reference}
        )

    async def has_shift(self, reference: str) -> bool:
        """Whether a direction has a constant shift at every layer, none of them 0."""
        return all(tensor.any() for _, tensor in await self._shifts(reference))

    async def _shifts(self, reference: str) -> list[tuple[str, NDArray[np.float32]]]:
        tensors = await self.tensors(reference)
        return [item for item in tensors.items() if item[0].split(".")[0] == "shift"]

    async def _store(
        self,
        source: Direction,
        kind: str,
        tensors: Mapping[str, Any],
        name: str,
        provenance: dict[str, Any],
    ) -> str:
        """Stored under `name`, for those who may use the source.

        The same bytes again are the same version.
        """
        stored = await self._client.directions.upload(
            write_tensors(tensors),
            filename="control.safetensors",
            name=name,
            kind=kind,
            site=source.site,
            layers=source.layers,
            requires=source.requires,
            tags=[_TAG],
            provenance=provenance,
        )
        return f"{stored.name}@{stored.version}"


def _name(wanted: str) -> str:
    if len(wanted) <= _MAX_NAME:
        return wanted
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]
    return f"{wanted[: _MAX_NAME - 9]}-{digest}"


def turned(tensors: Tensors, kind: str, seed: int) -> dict[str, NDArray[np.float32]]:
    """The tensors under a random isometry, equal for equal seeds.

    Rows S [n, d] of all layers are turned together: S = L Q with orthonormal Q, and the result is
    L F with F uniform among orthonormal frames. Every norm and every angle between rows stays,
    within and across layers; where the rows lie in the space is uniformly random. Tensors that act
    by coordinate (`diagonal`, `heads`) get their coordinates in a random order instead.

    Args:
        tensors: float32 by name; `.<layer>` may end a name.
        kind: Kind of the direction.
        seed: Seed of numpy's generator.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    result = {name: np.array(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    if kind in _COORDINATES:
        return _shuffled(result, _COORDINATES[kind], rng)
    names = sorted(name for name in result if name.split(".")[0] in _ROWS[kind])
    rows = np.concatenate([np.atleast_2d(result[name]) for name in names]).astype(np.float64)
    orthonormal, triangle = np.linalg.qr(rows.T)
    frame, signs = np.linalg.qr(rng.standard_normal(orthonormal.shape))
    frame = frame * np.where(np.diag(signs) < 0, -1.0, 1.0)
    moved = (frame @ triangle).T.astype(np.float32)
    start = 0
    for name in names:
        count = np.atleast_2d(result[name]).shape[0]
        result[name] = moved[start : start + count].reshape(result[name].shape)
        start += count
    return result


def _shuffled(tensors: dict[str, Any], bases: tuple[str, ...], rng: Any) -> dict[str, Any]:
    names = sorted(name for name in tensors if name.split(".")[0] in bases)
    order = rng.permutation(tensors[names[0]].shape[-1])
    return {name: t[order] if name in names else t for name, t in tensors.items()}


def read_tensors(file: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file with F32, F16 or BF16, as float32."""
    import numpy as np
    import safetensors

    found = {}
    for name, entry in safetensors.deserialize(file):  # type: ignore[no-untyped-call]
        data = bytes(entry["data"])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        found[name] = values.astype(np.float32).reshape(entry["shape"])
    return found


def write_tensors(tensors: Tensors) -> bytes:
    """A safetensors file with the tensors."""
    import numpy as np
    from safetensors.numpy import save

    # `save` writes the memory of a view as it lies, not as it is read.
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
