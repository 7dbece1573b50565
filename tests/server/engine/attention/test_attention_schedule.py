from __future__ import annotations

import numpy as np

from server.engine.attention.schedule import (
    ScheduledSequence,
    SlotRun,
    runs_of,
    slots_to_clear,
    slots_to_write,
)


def test_slots_follow_the_block_table() -> None:
    sequences = [ScheduledSequence([7, 2, 5], 3, 6), ScheduledSequence([1], 0, 1)]
    assert slots_to_write(sequences, 4).tolist() == [31, 8, 9, 10, 11, 20, 4]


def test_the_tail_of_a_fresh_block_is_cleared_once() -> None:
    table = [7, 2, 5]
    cleared = [
        slots_to_clear([ScheduledSequence(table, position, 1)], 4).tolist() for position in range(9)
    ]
    expected = [[29, 30, 31], [], [], [], [9, 10, 11], [], [], [], [21, 22, 23]]
    assert cleared == expected


def test_a_chunk_clears_behind_its_last_token_only() -> None:
    assert slots_to_clear([ScheduledSequence([7, 2, 5], 1, 8)], 4).tolist() == [21, 22, 23]
    assert slots_to_clear([ScheduledSequence([7, 2], 1, 7)], 4).tolist() == []
    assert slots_to_clear([ScheduledSequence([7, 2], 5, 2)], 4).tolist() == []


def test_slots_in_a_row_are_one_run() -> None:
    slots = np.array([31, 8, 9, 10, 11, 20, 4])
    assert runs_of(slots) == [
        SlotRun(0, 31, 1),
        SlotRun(1, 8, 4),
        SlotRun(5, 20, 1),
        SlotRun(6, 4, 1),
    ]
    assert runs_of(np.arange(5)) == [SlotRun(0, 0, 5)]
    assert runs_of(np.array([], dtype=np.int64)) == []
