"""What is done to the logits of one row before a token is drawn; NumPy, one function each.

Each takes float32 [V], changes it in place or not, and returns it; a token that must not be drawn gets -inf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOP_P_CANDIDATES = 512
"""Tokens looked at first for top-p: they nearly always hold the probability, and sorting them is cheap."""


def forbid(logits_V: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Rule out the given tokens (stop tokens before the shortest answer is reached)."""
    logits_V[[token for token in ids if token < len(logits_V)]] = -np.inf
    return logits_V


def penalize_repetition(logits_V: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Make tokens that were seen less likely: positive logits are divided by ``penalty``, negative ones multiplied.

    Args:
        logits_V: float32.
        seen: int64, ids of the prompt and of the answer so far, each once.
        penalty: above 1 discourages, below 1 encourages.

    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1.
    """
    values = logits_V[seen]
    logits_V[seen] = np.where(values > 0, values / np.float32(penalty), values * np.float32(penalty))
    return logits_V


def penalize_counts(logits_V: np.ndarray, counts: Mapping[int, int], presence: float, frequency: float) -> np.ndarray:
    """Make tokens of the answer less likely: once for being there, and again for each time.

    Source: OpenAI, API reference, "Frequency and presence penalties".
    """
    ids = np.fromiter(counts.keys(), dtype=np.int64, count=len(counts))
    times = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
    logits_V[ids] -= np.float32(presence) + np.float32(frequency) * times
    return logits_V


def add_bias(logits_V: np.ndarray, biases: Mapping[int, float]) -> np.ndarray:
    """Add to the logits of single tokens."""
    for token, bias in biases.items():
        if token < len(logits_V):
            logits_V[token] += np.float32(bias)
    return logits_V


def keep_top_k(logits_V: np.ndarray, k: int) -> np.ndarray:
    """Rule out all but the ``k`` likeliest tokens, and those that are as likely as the last of them.

    Source: Fan et al. 2018, arXiv:1805.04833, section 5.4.
    """
    if k < len(logits_V):
        threshold = np.partition(logits_V, -k)[-k]
        logits_V[logits_V < threshold] = -np.inf
    return logits_V


def keep_top_p(logits_V: np.ndarray, p: float) -> np.ndarray:
    """Keep the fewest likeliest tokens whose probabilities sum to ``p`` or more, at least one.

    Source: Holtzman et al. 2019, arXiv:1904.09751, section 3.1.
    """
    if p >= 1.0:
        return logits_V
    weights_V = np.exp(logits_V - logits_V.max())
    total = weights_V.sum(dtype=np.float64)
    for count in (TOP_P_CANDIDATES, len(logits_V)):
        if count < len(logits_V):
            ids = np.argpartition(logits_V, -count)[-count:]
        else:
            ids = np.arange(len(logits_V))
        ids = ids[np.argsort(-logits_V[ids], kind="stable")]
        mass = np.cumsum(weights_V[ids], dtype=np.float64)
        if mass[-1] >= p * total or len(ids) == len(logits_V):
            break
    likelier = mass - weights_V[ids]
    kept = ids[likelier < p * total] if p > 0.0 else ids[:1]
    kept_logits = logits_V[kept]
    logits_V[:] = -np.inf
    logits_V[kept] = kept_logits
    return logits_V


def keep_min_p(logits_V: np.ndarray, min_p: float) -> np.ndarray:
    """Rule out tokens less likely than ``min_p`` times the likeliest one.

    Source: Nguyen et al. 2024, arXiv:2407.01082, section 3.
    """
    if min_p > 0.0:
        logits_V[logits_V < logits_V.max() + np.float32(np.log(min_p))] = -np.inf
    return logits_V
