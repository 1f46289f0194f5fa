from __future__ import annotations

import numpy as np

from llm_run.core.engine.block_pool import BlockPool


def test_10000_random_operations_lose_no_block():
    generator = np.random.default_rng(0)
    pool, held = BlockPool(37, 4), []
    texts = [generator.integers(0, 5, 30).tolist() for _ in range(6)]
    for _ in range(10_000):
        action = generator.integers(4)
        if action == 0 and (block := pool.allocate()) is not None:
            held.append([block])
        elif action == 1 and held:
            pool.release(held.pop(int(generator.integers(len(held)))))
        elif action == 2:
            found = pool.find(texts[int(generator.integers(6))][: int(generator.integers(1, 31))])
            if found:
                held.append(found)
        elif action == 3 and pool.num_free >= 7:
            text = texts[int(generator.integers(6))][: int(generator.integers(1, 29))]
            blocks = [pool.allocate() for _ in range(pool.blocks_for(len(text)))]
            pool.remember(blocks, text, 0)
            held.append(blocks)
        pool.check()
    for blocks in held:
        pool.release(blocks)
    pool.check()
    assert pool.num_free == 37


def test_the_last_token_of_a_prompt_is_never_found():
    pool = BlockPool(4, 4)
    blocks = [pool.allocate(), pool.allocate()]
    pool.remember(blocks, list(range(8)), 0)
    assert pool.find(list(range(8))) == blocks[:1]
    assert pool.find([*range(8), 1]) == blocks


def test_a_block_is_found_by_all_that_came_before_it_and_by_its_salt():
    pool = BlockPool(4, 2)
    blocks = [pool.allocate(), pool.allocate()]
    pool.remember(blocks, [1, 2, 3, 4], 0, b"a")
    assert pool.find([9, 9, 3, 4, 5], b"a") == []
    assert pool.find([1, 2, 3, 4, 5], b"b") == []
    assert pool.find([1, 2, 3, 4, 5], b"a") == blocks


def test_freed_blocks_stay_findable_until_the_oldest_is_needed():
    pool = BlockPool(2, 2)
    first, second = pool.allocate(), pool.allocate()
    pool.remember([first], [1, 2], 0)
    pool.remember([second], [3, 4], 0)
    pool.release([first])
    pool.release([second])
    assert pool.allocate() == first
    assert pool.find([1, 2, 5]) == []
    assert pool.find([3, 4, 5]) == [second]
    assert pool.allocate() is None
