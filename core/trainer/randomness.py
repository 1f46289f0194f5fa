"""Random numbers of training, as a pure function of seed and sample position."""

from __future__ import annotations

import random

import numpy as np
import paddle


def seed_all(seed: int, position: int | None = None, share: int = 0) -> None:
    """Seed Python's, NumPy's and Paddle's global generators.

    Called once with the seed alone before weights are drawn, and before every micro-batch with the global position
    of its first sample. Dropout is therefore the same whichever step a run was resumed at, and whichever rank the
    micro-batch falls to; no generator state has to be stored.

    Args:
        seed: the user's ``--seed``.
        position: samples before this micro-batch since the start of training; ``None`` for the weights.
        share: of the rows, where ranks share them: each drops other entries, since it has other tokens and heads.
    """
    entropy = [seed] if position is None else [seed, position + 1, *([share] if share else [])]
    word = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(word)
    np.random.seed(word)
    paddle.seed(word)
