from __future__ import annotations

import random

import numpy as np
import pytest

from server.engine.kv_cache.block_pool import BlockPool


def take_run(pool: BlockPool, length: int) -> list[int]:
    start, found = pool.find_run(length)
    return [pool.take(block) for block in range(start, start + found)]


def test_runs_begin_at_the_lowest_blank_block() -> None:
    pool = BlockPool(8)
    first = take_run(pool, 3)
    assert (first, take_run(pool, 2)) == ([0, 1, 2], [3, 4])
    pool.release(first)
    assert take_run(pool, 2) == [0, 1]


def test_a_run_shrinks_to_what_is_left() -> None:
    pool = BlockPool(8)
    blocks = take_run(pool, 8)
    pool.release([blocks[2], blocks[3], blocks[6]])
    assert pool.find_run(4) == (2, 2)
    assert pool.find_run(3) == (2, 1), "halved, not searched exhaustively"


def test_one_block_is_taken_in_least_recently_used_order() -> None:
    pool = BlockPool(6)
    blocks = take_run(pool, 6)
    for block in blocks:
        pool.cache(block, b"%d" % block)
    order = [4, 1, 5, 0, 3, 2]
    for block in order:
        pool.release([block])
    assert [take_run(pool, 1)[0] for _ in order] == order


def test_a_used_again_block_is_recent() -> None:
    pool = BlockPool(2)
    take_run(pool, 2)
    pool.cache(0, b"a")
    pool.cache(1, b"b")
    pool.release([0])
    pool.release([1])
    pool.hold(0)
    pool.release([0])
    assert take_run(pool, 1) == [1]


def test_the_deepest_block_of_a_sequence_is_evicted_first() -> None:
    pool = BlockPool(3)
    for block in take_run(pool, 3):
        pool.cache(block, b"%d" % block)
    pool.release([0, 1, 2])
    assert [take_run(pool, 1)[0] for _ in range(3)] == [2, 1, 0]


def test_blank_blocks_are_taken_before_cached_ones() -> None:
    pool = BlockPool(3)
    take_run(pool, 3)
    pool.cache(0, b"a")
    pool.release([0, 1, 2])
    take_run(pool, 2)
    assert pool.find(b"a") == 0
    take_run(pool, 1)
    assert pool.find(b"a") is None


def test_reservations_are_kept_until_nothing_else_is_left() -> None:
    pool = BlockPool(6)
    pool.take(0)
    pool.reserve(1, 4)
    assert take_run(pool, 3) == [4], "a shorter run elsewhere comes before a reserved one"
    assert take_run(pool, 1) == [5]
    assert not pool.is_adjacent_free(1, reserved_stop=0)
    assert pool.is_adjacent_free(1, reserved_stop=4)
    assert take_run(pool, 2) == [1], "reserved, but the only ones left"
    pool.unreserve(1, 4)
    assert pool.is_adjacent_free(2, reserved_stop=0)
    pool.check_integrity([[0], [4], [5], [1]])


def test_of_equal_blocks_the_first_is_found() -> None:
    pool = BlockPool(2)
    take_run(pool, 2)
    pool.cache(1, b"same")
    pool.cache(0, b"same")
    assert pool.find(b"same") == 1
    pool.release([0])
    pool.release([1])
    assert pool.find(b"same") == 1
    assert pool.take(0) == 0
    assert pool.find(b"same") == 1


def test_clear_and_discard_leave_nothing_to_find() -> None:
    pool = BlockPool(3)
    take_run(pool, 3)
    for block in range(3):
        pool.cache(block, b"%d" % block)
    pool.release([2], discard=True)
    assert [pool.find(b"%d" % block) for block in range(3)] == [0, 1, None]
    pool.release([1])
    pool.clear()
    assert [pool.find(b"%d" % block) for block in range(3)] == [None, None, None]
    pool.check_integrity([[0]])


def test_integrity_notices_a_lost_block() -> None:
    pool = BlockPool(2)
    pool.take(0)
    with pytest.raises(AssertionError, match="reference counts"):
        pool.check_integrity([])


@pytest.mark.parametrize("seed", range(5))
def test_the_best_run_is_that_of_an_exhaustive_search(seed: int) -> None:
    rng = random.Random(seed)
    pool = BlockPool(24)
    held = take_run(pool, 24)
    for block in held:
        if rng.random() < 0.6:
            pool.cache(block, b"%d" % block)
    rng.shuffle(held)
    for block in held[:18]:
        pool.release([block])
    ranks = pool._ranks
    for length in range(1, 9):
        windows = [ranks[start : start + length].max() for start in range(24 - length + 1)]
        start, found = pool.find_run(length)
        assert (found == length) == (min(windows) < np.iinfo(np.int64).max >> 2)
        if found == length:
            assert start == int(np.argmin(windows))
