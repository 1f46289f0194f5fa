from __future__ import annotations

import random

import numpy as np
import paddle

from llm_run.core.trainer.randomness import seed_all


def draw(seed: int, position: int | None) -> list[float]:
    seed_all(seed, position)
    return [*paddle.rand([2]).tolist(), float(np.random.rand()), random.random()]


def test_the_same_seed_and_position_draw_the_same_numbers_from_all_generators() -> None:
    first = draw(1, 8)
    draw(1, 9)
    assert draw(1, 8) == first


def test_seeds_positions_and_weights_have_streams_of_their_own() -> None:
    streams = [draw(seed, position) for seed in (1, 2) for position in (None, 0, 1, 7)]
    for column in zip(*streams, strict=True):
        assert len(set(column)) == len(streams)
