"""Attention with linear biases: how much each head dislikes distance."""

from __future__ import annotations

import math

import numpy as np


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Return the bias per token of distance for each head, float32 [N].

    A power of two gets the geometric series 2^(-8/N), 2^(-16/N), ...; any other number gets the series of the next
    lower power of two, then every other slope of the next higher one.

    Source: Press et al. 2021, arXiv:2108.12409, section 3 and its reference code.
    """
    below = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * head / below) for head in range(1, below + 1)]
    between = [2 ** (-4 * head / below) for head in range(1, 2 * below, 2)]
    return np.array((slopes + between)[:num_heads], dtype=np.float32)
