from __future__ import annotations

import pytest

from server.engine.kv_cache import KVCacheManager
from server.engine.request import Request
from steering.documents import Region, Scope
from tests.server.engine.make_request import ScopedPlan, make_request

PROMPT = range(14)  # three full blocks of four, and a half


def make_cache(num_blocks: int = 32, *, enable_prefix_cache: bool = True) -> KVCacheManager:
    return KVCacheManager(num_blocks, 4, enable_prefix_cache=enable_prefix_cache)


def run(cache: KVCacheManager, request: Request, *, reads_cache: bool = True) -> int:
    """Admit, compute and commit every known token, and end; how many came from the cache."""
    assert cache.admit(request, reads_cache=reads_cache)
    num_cached = request.num_computed_tokens
    request.num_computed_tokens = request.num_tokens
    cache.commit(request, request.num_tokens)
    cache.check_integrity([request])
    cache.free(request)
    cache.check_integrity([])
    return num_cached


def test_an_equal_prefix_is_found_block_by_block() -> None:
    cache = make_cache()
    assert run(cache, make_request(PROMPT)) == 0
    assert run(cache, make_request(PROMPT)) == 12
    assert run(cache, make_request([*range(9), 99, 98, 97, 96])) == 8
    assert run(cache, make_request([99, *range(1, 14)])) == 0
    assert (cache.num_queries, cache.num_hits) == (14 + 14 + 13 + 14, 20)


@pytest.mark.parametrize(("num_tokens", "num_cached"), [(12, 8), (13, 12), (4, 0), (5, 4)])
def test_the_last_token_is_always_computed(num_tokens: int, num_cached: int) -> None:
    cache = make_cache()
    run(cache, make_request(PROMPT))
    assert run(cache, make_request(range(num_tokens))) == num_cached


def test_a_full_hit_recomputes_into_a_private_block() -> None:
    cache = make_cache()
    first, second = make_request(range(8)), make_request(range(8))
    cache.admit(first)
    cache.commit(first, 8)
    cache.admit(second)
    assert second.block_table[0] == first.block_table[0]
    assert second.block_table[1] != first.block_table[1]
    assert cache.pool.ref_count(first.block_table[0]) == 2


def test_nothing_is_found_before_its_commit() -> None:
    cache = make_cache()
    first = make_request(PROMPT)
    cache.admit(first)
    second = make_request(PROMPT)
    cache.admit(second)
    assert second.num_computed_tokens == 0
    cache.commit(first, 7)
    third = make_request(PROMPT)
    cache.admit(third)
    assert third.num_computed_tokens == 4
    cache.check_integrity([first, second, third])


def test_discarded_blocks_are_never_found() -> None:
    cache = make_cache()
    failed = make_request(PROMPT)
    cache.admit(failed)
    cache.commit(failed, 8)
    cache.free(failed, discard=True)
    assert run(cache, make_request(PROMPT)) == 0


def test_salts_do_not_share() -> None:
    cache = make_cache()
    run(cache, make_request(PROMPT, cache_salt=b"a"))
    assert run(cache, make_request(PROMPT, cache_salt=b"b")) == 0
    assert run(cache, make_request(PROMPT)) == 0
    assert run(cache, make_request(PROMPT, cache_salt=b"a")) == 12


def scope(**selector: object) -> Scope:
    return Scope.from_dict(selector)


def test_steering_shares_only_what_it_leaves_alone() -> None:
    cache = make_cache()
    run(cache, make_request(PROMPT))
    steered = ScopedPlan("a", scope(windows=[[6, 7]]))
    assert run(cache, make_request(PROMPT, plan=steered)) == 4, "blocks before the window"
    assert run(cache, make_request(PROMPT, plan=steered)) == 12
    assert run(cache, make_request(PROMPT, plan=ScopedPlan("b", steered.scope))) == 4
    assert run(cache, make_request(PROMPT, plan=ScopedPlan("a", scope(tokens="generated")))) == 12


def test_the_last_prompt_token_is_another_in_a_longer_prompt() -> None:
    cache = make_cache()
    plan = ScopedPlan("a", scope(tokens="last_prompt"))
    run(cache, make_request(range(8), plan=plan))
    assert run(cache, make_request(range(14), plan=plan)) == 4
    moved = make_request(range(14), plan=plan, steering_prompt_tokens=8)
    assert run(cache, moved) == 8


def test_generated_tokens_become_prompt_under_the_same_gains_only() -> None:
    cache = make_cache()
    plan = ScopedPlan("a", scope(tokens="generated"))
    first = make_request(range(6), plan=plan)
    first.output_token_ids = [6, 7, 8, 9]
    run(cache, first)
    next_turn = make_request(range(14), plan=plan)
    assert run(cache, next_turn) == 4, "position 6 was steered as generated, now it is prompt"
    everywhere = ScopedPlan("a", scope(tokens="all"))
    again = make_request(range(30, 36), plan=everywhere)
    again.output_token_ids = [36, 37, 38, 39]
    run(cache, again)
    assert run(cache, make_request(range(30, 44), plan=everywhere)) == 8


def test_regions_decide_what_is_shared() -> None:
    cache = make_cache()
    plan = ScopedPlan("a", scope(regions=["thinking"]))
    thinking, answering = make_request(PROMPT, plan=plan), make_request(PROMPT, plan=plan)
    thinking.regions = bytearray([0] * 6 + [Region.ASSISTANT | Region.THINKING] * 8)
    answering.regions = bytearray([0] * 6 + [Region.ASSISTANT | Region.ANSWER] * 8)
    run(cache, thinking)
    assert run(cache, answering) == 4


def test_without_reading_the_cache_still_learns() -> None:
    cache = make_cache()
    run(cache, make_request(PROMPT))
    assert run(cache, make_request(PROMPT), reads_cache=False) == 0
    assert cache.num_queries == 14
    assert run(cache, make_request(PROMPT)) == 12


def test_a_disabled_cache_finds_nothing() -> None:
    cache = make_cache(enable_prefix_cache=False)
    run(cache, make_request(PROMPT))
    assert run(cache, make_request(PROMPT)) == 0
    assert cache.num_queries == 0


def test_admission_without_room_changes_nothing() -> None:
    cache = make_cache(num_blocks=4)
    holder = make_request(4)
    cache.admit(holder)
    refused = make_request(PROMPT)
    assert not cache.admit(refused)
    assert (refused.block_table, refused.num_computed_tokens) == ([], 0)
    assert not cache.grow(holder, 17)
    assert cache.grow(holder, 16)
    assert cache.usage_ratio == 1.0
    cache.check_integrity([holder, refused])


def test_revived_blocks_count_as_needed() -> None:
    cache = make_cache(num_blocks=4)
    run(cache, make_request(PROMPT))
    holder = make_request(4)
    cache.admit(holder)
    assert not cache.admit(make_request(PROMPT), num_spare_blocks=0)


def test_a_sequence_stays_contiguous_beside_others() -> None:
    cache = make_cache(num_blocks=64)
    requests = [make_request(6, max_tokens=20) for _ in range(8)]
    for request in requests:
        cache.admit(request)
    for length in range(7, 26):
        for request in requests:
            assert cache.grow(request, length)
    for request in requests:
        first = request.block_table[0]
        assert request.block_table == list(range(first, first + 7))


def test_free_twice_is_harmless() -> None:
    cache = make_cache()
    request = make_request(PROMPT)
    cache.admit(request)
    cache.free(request)
    cache.free(request)
    cache.check_integrity([])
