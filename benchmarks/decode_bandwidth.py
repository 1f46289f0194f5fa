"""How much of the memory's bandwidth decoding reaches: steps of one answer, and reading alone, in turns.

python benchmarks/decode_bandwidth.py [--shape 270m] [--kinds float32 int4 ...] [--turns 20]

A step for one sequence reads all matrices once, and the keys and values of the context. PyTorch's sum of a gigabyte, by
as many threads, reads and does next to nothing besides: that is what the memory gives. On a machine that is shared both
change from second to second, so that each turn is short and has a ratio of its own; the median is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

from decode import OURS, Ours
from decode_work import SHAPES, seconds
from turns import Side, serve

CONTEXT, STEPS, READS, SIZE = 128, 8, 3, 1 << 30


def decode(shape: str, kind: str) -> None:
    """Answer each turn with the bytes that a second of decoding reads."""
    model = Ours(shape, kind)
    size = model.bytes_read(CONTEXT)

    def turn() -> float:
        model.reset(1)
        model.feed([list(range(1, CONTEXT + 1))])
        return size / statistics.median(seconds(model, [[7]]) for _ in range(STEPS))

    serve(turn)


def read() -> None:
    """Answer each turn with the bytes that a second of reading reads."""
    import torch

    numbers = torch.zeros(SIZE // 8, dtype=torch.int64)

    def turn() -> float:
        times = []
        for _ in range(READS):
            start = time.perf_counter()
            numbers.sum()
            times.append(time.perf_counter() - start)
        return SIZE / statistics.median(times)

    serve(turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="270m")
    parser.add_argument("--kinds", nargs="+", choices=OURS, default=["float32"])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        read() if arguments.side == "read" else decode(arguments.shape, arguments.side)
        return
    for kind in arguments.kinds:
        compare(arguments.shape, kind, arguments.turns)


def compare(shape: str, kind: str, turns: int) -> None:
    """Print the medians of both sides and of their ratios."""
    sides = [Side(["--side", name, "--shape", shape], is_paddle=name != "read") for name in (kind, "read")]
    rates = [[side.work()[1] for side in sides] for _ in range(turns + 1)][1:]
    for side in sides:
        side.stop()
    ours, memory = (statistics.median(pair[i] for pair in rates) / 1e9 for i in range(2))
    share = statistics.median(pair[0] / pair[1] for pair in rates)
    print(
        f"{shape} {kind}, {CONTEXT} tokens: {ours:.1f} GB/s; reading alone {memory:.1f} GB/s; {share:.0%}", flush=True
    )


if __name__ == "__main__":
    main()
