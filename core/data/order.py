"""The global order of samples: a function of seed and epoch, whatever the ranks and workers."""

from __future__ import annotations

import functools

import numpy as np


def generator(seed: int, *stream: int) -> np.random.RandomState:
    """Return a random generator for one stream of numbers of one seed.

    ``RandomState`` is the generator whose numbers NumPy promises never to change, so that an old run's order can be
    found again.
    """
    return np.random.RandomState([seed % 2**32, *(number % 2**32 for number in stream)])


@functools.lru_cache(maxsize=4)
def epoch_permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of ``size`` samples in one pass over the data: int64 [size], read-only."""
    order = generator(seed, epoch).permutation(size)
    order.flags.writeable = False
    return order


def shuffled_place(position: int, size: int, seed: int) -> int:
    """Return which of ``size`` samples stands at a global position that runs on over epochs."""
    epoch, place = divmod(position, size)
    return int(epoch_permutation(size, seed, epoch)[place])
