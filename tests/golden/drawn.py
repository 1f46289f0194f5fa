"""Weights that two programs can draw alike: from a seed and the names, with NumPy's PCG64, whose stream is fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def draw(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Return float32 arrays, drawn in the order of the sorted names: norms around 1, biases and matrices around 0."""
    random = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        noise = random.standard_normal(tuple(shapes[name])) * 0.2
        is_norm = len(shapes[name]) == 1 and not name.endswith("bias")
        weights[name] = (noise + 1.0 if is_norm else noise).astype(np.float32)
    return weights
