"""float32 matrix products through Paddle against PyTorch, at the sizes of a small model's training step.

python benchmarks/gemm.py [--rounds 15]

The two take turns, in processes of their own, each with the environment that suits it. Needs torch.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
from turns import Side, serve

SIZES = [(2048, 512, 512), (2048, 512, 1408), (2048, 1408, 512), (1024, 512, 8192), (1024, 1024, 1024)]
"""Rows, inner size, columns."""


def product(side: str, rows: int, inner: int, columns: int) -> Callable[[], object]:
    random = np.random.default_rng(0)
    left, right = (random.standard_normal(shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
    if side == "paddle":
        import paddle

        a, b = paddle.to_tensor(left), paddle.to_tensor(right)
        return lambda: paddle.matmul(a, b)
    import torch

    x, y = torch.tensor(left), torch.tensor(right)
    return lambda: torch.matmul(x, y)


def work(side: str) -> Callable[[], float]:
    """Return a piece of work: the next size, a few times, for about a tenth of a second; its result is GFLOP/s."""
    products = itertools.cycle([(size, product(side, *size)) for size in SIZES])

    def multiply() -> float:
        (rows, inner, columns), once = next(products)
        flops = 2.0 * rows * inner * columns
        count = max(1, round(1e10 / flops))
        start = time.perf_counter()
        for _ in range(count):
            once()
        return flops * count / (time.perf_counter() - start) / 1e9

    return multiply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", choices=("paddle", "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(work(arguments.side))
        return
    sides = [Side(["--side", name], is_paddle=name == "paddle") for name in ("paddle", "torch")]
    turns = [[side.work()[1] for side in sides] for _ in range(len(SIZES) * (arguments.rounds + 1))][len(SIZES) :]
    for side in sides:
        side.stop()
    for index, (rows, inner, columns) in enumerate(SIZES):
        ours, theirs = (statistics.median(column) for column in zip(*turns[index :: len(SIZES)], strict=True))
        ratio = statistics.median(mine / other for mine, other in turns[index :: len(SIZES)])
        shape = f"{rows} x {inner} x {columns}"
        print(f"{shape:20} paddle {ours:6.1f}  torch {theirs:6.1f} GFLOP/s  ratio {ratio:.2f}")
    print(f"median ratio of all turns {statistics.median(mine / other for mine, other in turns):.2f}")


if __name__ == "__main__":
    main()
