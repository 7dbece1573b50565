"""The owner of live steering: which edits are on the device, what acts in a step, what acted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.hooks import hooked_point
from steering.plan import PlannedIntervention, SteeringPlan
from steering.sites import Site, SitePoint

from .lane_step import GateLog
from .readouts import PointReader, Readouts
from .static_step import StaticGains, StaticSteering
from .static_tables import StaticTables
from .step import StepEdits, StepRow, gain_matrix, prepare
from .tables import PackedTables, pack

_Mask = NDArray[np.bool_]
_Gains = NDArray[np.float32]

_OPEN_ABOVE: Final = 0.5  # value of a soft gate at its threshold
_AROUND_BLOCKS: Final = frozenset({Site.EMBED, Site.RESID_PRE, Site.RESID_POST, Site.FINAL})


class StepOutcome:
    """Tokens of one step by row of the batch; the first question about gates waits for the device.

    To be asked after the forward.
    """

    def __init__(
        self,
        gains: _Gains,
        tables: PackedTables,
        log: GateLog | None = None,
        edited: NDArray[np.int64] | None = None,
    ) -> None:
        """Take what a step was prepared from.

        Args:
            gains: [T, columns] before the gates of tokens.
            tables: Whose columns these are.
            log: Filled by the forward; None where no token has a gate.
            edited: Rows of the batch that the log's rows are; None means all of them.
        """
        self._gains = gains
        self._tables = tables
        self._log = log
        self._edited = edited

    @cached_property
    def steered(self) -> _Mask:
        """[T] whether some intervention acted with a gain other than zero."""
        acts = self._gains != 0
        columns, values = self._values
        acts[:, columns] &= values != 0
        steered: _Mask = acts.any(axis=1)
        return steered

    def opened(self, plan: SteeringPlan, start: int, stop: int) -> tuple[_Mask | None, ...]:
        """Per intervention of a plan on rows [start, stop): where it was due and its gate open.

        None for interventions whose tokens have no gates. A soft gate counts as open where it is
        more than half open, which is beyond its threshold.
        """
        columns = self._tables.columns_of(plan)
        return tuple(
            self._opened(int(column), slice(start, stop)) if item.has_token_gate else None
            for item, column in zip(plan.interventions, columns, strict=True)
        )

    def _opened(self, column: int, rows: slice) -> _Mask:
        due: _Mask = self._gains[rows, column] != 0
        columns, values = self._values
        place = int(np.searchsorted(columns, column))
        if place == len(columns) or columns[place] != column:
            return np.zeros_like(due)  # acted on no token of the step
        return due & (values[rows, place] > _OPEN_ABOVE)

    @cached_property
    def _values(self) -> tuple[NDArray[np.int64], _Gains]:
        """Columns [n] with gates, ascending, and their values on the rows of the batch, [T, n]."""
        if self._log is None:
            return np.zeros(0, dtype=np.int64), np.zeros((len(self._gains), 0), dtype=np.float32)
        if self._edited is None:
            return self._log.values(len(self._gains))
        columns, values = self._log.values(len(self._edited))
        spread = np.zeros((len(self._gains), len(columns)), dtype=np.float32)
        spread[self._edited] = values
        return columns, spread


@dataclass(slots=True)
class _Live:
    intervention: PlannedIntervention
    num_users: int


@dataclass(frozen=True, eq=False)
class PreparedStep:
    """The gains of a step, and what is made of them once somebody asks.

    In decoding a step is mostly like the one before: the same requests, one token each, under gains
    that no longer change. Then `rows_key` is equal, and gains, selections, uploads and the gathered
    rows that selections keep all serve again. Where gains may change they are computed anew, and
    the edits still serve where the gains came out equal.

    Attributes:
        tables: The tables as they were packed.
        rows_key: Plan and number of tokens of each row of the batch; None where gains may change.
        gains: [T, columns]; no columns where no plan has an intervention.
    """

    tables: PackedTables
    rows_key: list[tuple[SteeringPlan | None, int]] | None
    gains: _Gains

    @cached_property
    def edits(self) -> StepEdits | None:
        """What the hooks do, uploaded when first asked for; None where no gain is not zero."""
        return prepare(self.gains, self.tables) if self.gains.shape[1] else None

    @cached_property
    def static(self) -> StaticGains:
        """The same for a captured step; uploads nothing."""
        tables = self.tables if self.gains.shape[1] else PackedTables((), {})
        return StaticGains(self.gains, tables)

    def take_over(self, other: PreparedStep) -> None:
        """Use what was already made of equal gains over the same tables."""
        for name in ("edits", "static"):
            if name in vars(other):
                vars(self)[name] = vars(other)[name]

    def outcome(self, log: GateLog | None, edited: NDArray[np.int64] | None) -> StepOutcome:
        """What becomes of each token under these gains; see `StepOutcome`."""
        return StepOutcome(self.gains, self.tables, log, edited)


@dataclass(frozen=True, eq=False)
class _Acts:
    """Where hooks act in a step; while requests decode that is so for step after step.

    Attributes:
        edits: What is edited.
        read: Where something is read.
        by_hook: By the point of a hook the points it realises, in order: whether it is read, and
            what edits it in few operations, if anything does.
        inside: Layers inside whose blocks something is read or edited.
    """

    edits: StepEdits | None
    read: frozenset[SitePoint]
    by_hook: dict[SitePoint, list[tuple[SitePoint, bool, Callable[[Tensor], Tensor] | None]]]
    inside: frozenset[int]


def _acts(edits: StepEdits | None, read: frozenset[SitePoint]) -> _Acts:
    edited = frozenset() if edits is None else edits.points
    found = _Acts(edits, read, {}, frozenset(p.layer for p in read | edited if _is_inside(p)))
    # Two points may share a hook (`resid_post[l]`, `resid_pre[l + 1]`): the earlier acts first.
    for point in sorted(read | edited, key=lambda point: point.rank):
        shortcut = None if edits is None else edits.shortcut(point)
        found.by_hook.setdefault(hooked_point(point), []).append((point, point in read, shortcut))
    return found


def _is_inside(point: SitePoint) -> bool:
    return point.site not in _AROUND_BLOCKS


class SteeringRuntime:
    """Tables and step state behind the hooks of one model. Not thread safe: one owner.

    A plan's interventions are brought in by `acquire` and may leave after `release`; those no
    request uses stay while there is room, so that a profile asked for again costs nothing.
    """

    def __init__(
        self, num_layers: int, devices: Mapping[int, torch.device], max_live_edits: int
    ) -> None:
        """Start empty.

        Args:
            num_layers: Layers of the model.
            devices: Device on which each layer's activations are.
            max_live_edits: Most distinct interventions at once.
        """
        self._devices = {
            SitePoint(layer, site): device for layer, device in devices.items() for site in Site
        }
        for layer in range(1, num_layers):
            point = SitePoint(layer, Site.RESID_PRE)
            self._devices[point] = devices[hooked_point(point).layer]
        self.max_live_edits = max_live_edits
        self._live: dict[bytes, _Live] = {}
        self._tables = PackedTables((), {})
        self._edits: StepEdits | None = None
        self._log = GateLog()
        self._readouts: PointReader | None = None
        self._act_at: _Acts | None = None
        self._last_acts: _Acts | None = None
        self._last: PreparedStep | None = None
        self._static_tables = StaticTables()

    @property
    def num_live_edits(self) -> int:
        """Interventions some request uses."""
        return sum(live.num_users > 0 for live in self._live.values())

    def can_admit(self, plan: SteeringPlan) -> bool:
        """Whether the plan fits beside those in use."""
        new = sum(
            item.key not in self._live or not self._live[item.key].num_users
            for item in plan.interventions
        )
        return self.num_live_edits + new <= self.max_live_edits

    def acquire(self, plan: SteeringPlan) -> None:
        """Bring a plan's interventions in; each `acquire` needs one `release`."""
        assert self.can_admit(plan), "acquire without can_admit"
        for item in plan.interventions:
            self._live.setdefault(item.key, _Live(item, 0)).num_users += 1
        self._forget_unused()

    def release(self, plan: SteeringPlan) -> None:
        """Give up one use of a plan's interventions."""
        for item in plan.interventions:
            self._live[item.key].num_users -= 1

    def begin_step(self, rows: Sequence[StepRow], readouts: Readouts | None = None) -> StepOutcome:
        """Prepare the tables and gains of a step; uploads, and never reads back.

        Args:
            rows: The batch, in token order; plans must have been acquired.
            readouts: What to read, or None.

        Returns:
            What became of each token of the batch, to be asked after the forward.
        """
        return self.begin(self.prepare(rows), readouts)

    def prepare(self, rows: Sequence[StepRow]) -> PreparedStep:
        """The gains of a step, on the host; nothing is uploaded and nothing begins.

        Args:
            rows: The batch, in token order; plans must have been acquired.
        """
        if not any(row.plan is not None and row.plan.interventions for row in rows):
            num_tokens = sum(row.stop - row.start for row in rows)
            gains = np.zeros((num_tokens, 0), dtype=np.float32)
            return PreparedStep(self._tables, None, gains)
        return self._prepared(rows)

    def begin(self, step: PreparedStep, readouts: Readouts | None = None) -> StepOutcome:
        """Have the hooks act by a step just prepared; as `begin_step`."""
        edits, log = step.edits, GateLog()
        self._act(edits, log, readouts)
        if edits is None or not edits.has_gates:
            return step.outcome(None, None)
        return step.outcome(log, edits.edited)

    def static_steering(self, gains: StaticGains, num_tokens: int) -> StaticSteering:
        """The steering of a captured step of `num_tokens`, in the shape of `gains`."""
        self._adopt(gains)
        return StaticSteering(gains.shape, num_tokens, self._static_tables)

    def load_static(self, steering: StaticSteering, gains: StaticGains) -> bool:
        """Have the next run of a captured step act by `gains`, once its buffers are uploaded.

        Returns:
            False where the step must be captured anew, as tables it reads have moved.
        """
        self._adopt(gains)
        if not self.is_current(steering):
            return False
        steering.load(gains)
        return True

    def is_current(self, steering: StaticSteering) -> bool:
        """Whether the tables that a captured step reads are where they were."""
        return not steering.tensors or steering.generation == self._static_tables.generation

    def begin_static(self, steering: StaticSteering, log: GateLog, readouts: PointReader) -> None:
        """Have the hooks act over the buffers of a step that is being captured.

        To be called in the run that is captured, and ended by `end_step`.

        Args:
            steering: What acts.
            log: Takes the values of gates; `steering.noted` sorts them.
            readouts: Keeps what is read.
        """
        self._act(steering.edits(), log, readouts)

    def end_step(self) -> None:
        """Forget the step, so that a forward outside one is unsteered."""
        self._edits = None
        self._readouts = None
        self._act_at = None

    def acts_inside(self, layer: int) -> bool:
        """Whether this step reads or edits a site inside the block of a layer, not at its ends."""
        return self._act_at is not None and layer in self._act_at.inside

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        """Read and edit the activation a hook at `point` sees.

        Args:
            point: Where the hook is; after block l, edits of `resid_pre[l + 1]` follow those of
                `resid_post[l]`.
            hidden: [..., d], any float dtype; not mutated.

        Returns:
            A tensor like `hidden`, or `hidden` itself where nothing is live.
        """
        if self._act_at is None:
            return hidden
        for logical, is_read, shortcut in self._act_at.by_hook.get(point, ()):
            if self._readouts is not None and is_read:
                self._readouts.read(logical, hidden.flatten(0, -2))
            if shortcut is not None:
                hidden = shortcut(hidden)
            elif self._edits is not None:
                hidden = self._edits.apply(logical, hidden, self._log)
        return hidden

    def _adopt(self, gains: StaticGains) -> None:
        if gains.shape.lanes:  # else the tables that are held serve the next steered step
            self._static_tables.adopt(gains.tables)

    def _act(self, edits: StepEdits | None, log: GateLog, readouts: PointReader | None) -> None:
        self._edits, self._log, self._readouts = edits, log, readouts
        read = frozenset() if readouts is None else readouts.points
        last = self._last_acts
        if last is None or last.edits is not edits or last.read != read:
            self._last_acts = last = _acts(edits, read)
        self._act_at = last

    def _ensure_packed(self, rows: Sequence[StepRow]) -> None:
        needed = {item.key for row in rows if row.plan for item in row.plan.interventions}
        if self._tables.holds(needed):
            return
        self._tables = pack([live.intervention for live in self._live.values()], self._devices)

    def _prepared(self, rows: Sequence[StepRow]) -> PreparedStep:
        """This step's; that of the last step when nothing changed, as in decoding."""
        last, rows_key = self._last, _rows_key(rows)
        # Tables and plans compare by identity. The key holds the plans, so no id is used again.
        if last and rows_key and (last.tables, last.rows_key) == (self._tables, rows_key):
            return last
        self._ensure_packed(rows)
        gains = gain_matrix(rows, self._tables)
        step = PreparedStep(self._tables, rows_key, gains)
        if last and last.tables is self._tables and np.array_equal(last.gains, gains):
            step.take_over(last)
        self._last = step
        return step

    def _forget_unused(self) -> None:
        excess = len(self._live) - self.max_live_edits
        unused = [key for key, live in self._live.items() if not live.num_users]
        for key in unused[: max(excess, 0)]:
            del self._live[key]


def _rows_key(rows: Sequence[StepRow]) -> list[tuple[SteeringPlan | None, int]] | None:
    found = []
    for row in rows:
        if row.plan is not None and not row.plan.has_final_gains(row.start, row.context):
            return None
        found.append((row.plan, row.stop - row.start))
    return found
