"""The matrices that ``make_gptq.py`` and the test of GPTQ draw alike."""

from __future__ import annotations

import numpy as np

CASES = {
    "rows": (32, 96, -1, False),
    "rows_ordered": (32, 96, -1, True),
    "groups": (32, 128, 32, False),
    "groups_ordered": (32, 128, 32, True),
    "wide": (24, 320, 64, True),
}
"""Outputs, inputs, group size, whether columns are ordered by their inputs."""
DAMPING = 0.01
UNSEEN = 5
"""The input that is always 0."""


def drawn(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [in, out], and inputs [400, in] that move together and differ in size."""
    size_out, size_in, _, _ = CASES[name]
    random = np.random.default_rng(list(CASES).index(name))
    weight = random.normal(0, 0.05, [size_in, size_out]).astype(np.float32)
    rows = random.normal(size=[400, 12]) @ random.normal(size=[12, size_in])
    rows = (rows + 0.3 * random.normal(size=rows.shape)) * np.exp(0.7 * random.normal(size=size_in))
    rows[:, UNSEEN] = 0.0
    return weight, rows.astype(np.float32)
