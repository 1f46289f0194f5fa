"""One training sample, a batch of them, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORED = -100
"""Label of a token that is not learnt."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A row before padding: token t is asked to predict ``labels[t]``, which is already the next token."""

    ids: np.ndarray
    """int64 [S]."""
    labels: np.ndarray
    """int64 [S], shifted by one; ``IGNORED`` where nothing is learnt."""
    segments: np.ndarray
    """int32 [S], 1 for the first packed record of the row, 2 for the second, …"""
    prefix: np.ndarray
    """bool [S], True for prompt tokens (used by prefix language models only)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows of equal length."""

    ids_BS: np.ndarray
    labels_BS: np.ndarray
    segments_BS: np.ndarray
    """0 marks padding."""
    prefix_BS: np.ndarray
    positions: np.ndarray
    """From ``ModelConfig.positions``: [B, S] or [B, 2, S]."""

    @property
    def num_supervised(self) -> int:
        """Tokens that count in the loss."""
        return int((self.labels_BS != IGNORED).sum())


class SampleSource(Protocol):
    """Training or evaluation samples in their global order, which depends on seed and data only."""

    epoch_size: int
    """Samples in one pass over the data."""
    fingerprint: str
    """Changes when files, order, seed or rendering change; stored in checkpoints."""

    def sample(self, position: int) -> Sample:
        """Return the sample at a global position, counted from the start of training and running on over epochs.

        A pure function of ``position``: any rank or worker may ask for any position, in O(1).
        """
