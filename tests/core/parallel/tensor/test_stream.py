"""Random numbers that ranks share, and those that they do not."""

from __future__ import annotations

import paddle
from paddle import nn

from llm_run.core.parallel.tensor.stream import RankStream


def drawn(index: int, *, training: bool = True, seed: int = 3) -> list[list[float]]:
    """Return what a rank draws before, inside and behind its own stream."""
    stream = RankStream(index)
    paddle.seed(seed)
    found = [paddle.rand([3]).tolist()]
    stream.enter(training=training)
    found.append(paddle.rand([3 + index]).tolist()[:3])
    stream.leave()
    return [*found, paddle.rand([3]).tolist()]


def test_inside_ranks_draw_different_numbers_and_outside_the_same() -> None:
    first, second = drawn(0), drawn(1)
    assert first[0] == second[0] and first[2] == second[2]
    assert not set(first[1]) & set(second[1])


def test_a_stream_is_a_function_of_the_shared_one() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1)[1] != drawn(1, seed=4)[1]


def test_each_entrance_begins_another_stream() -> None:
    stream, found = RankStream(0), []
    paddle.seed(3)
    for _ in range(2):
        stream.enter(training=True)
        found.append(paddle.rand([3]).tolist())
        stream.leave()
    assert found[0] != found[1]


def test_nothing_is_drawn_outside_of_training() -> None:
    paddle.seed(3)
    plain = [paddle.rand([3]).tolist() for _ in range(3)]
    assert drawn(0, training=False) == plain


def test_the_shared_stream_comes_back_where_a_layer_fails() -> None:
    class Failing(nn.Layer):
        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            paddle.rand([5])
            raise ValueError

    layer, stream = Failing(), RankStream(1)
    stream.around(layer)
    paddle.seed(3)
    try:
        layer(paddle.ones([1]))
    except ValueError:
        after = paddle.rand([3]).tolist()
    paddle.seed(3)
    paddle.randint(0, 10, [1])
    assert after == paddle.rand([3]).tolist()
