"""What every side of decode.py is asked to do; imports nothing that a peer's environment may lack."""

from __future__ import annotations

import statistics
import time
from typing import Protocol

SHAPES = {
    "270m": dict(
        vocab_size=32000, hidden_size=1024, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=16,
        intermediate_size=2816, max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=False,
    ),
    "smollm2-135m": dict(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0,
        tie_word_embeddings=True,
    ),
}  # fmt: skip
"""``config.json`` of two llamas; weights are random, which costs what learnt ones cost."""
PROMPT, BATCH_PROMPT = 512, 64
BATCH = 16
CONTEXTS = (128, 512, 2048)
STEPS = 16
MOST_TOKENS = max(CONTEXTS[-1] + len(CONTEXTS) * STEPS, BATCH * (BATCH_PROMPT + STEPS))


class Model(Protocol):
    """One side: some sequences, to which tokens are appended."""

    def reset(self, num_sequences: int) -> None:
        """Forget all, and begin so many sequences."""

    def feed(self, tokens: list[list[int]]) -> None:
        """Append tokens to each sequence and compute the logits of its last one."""


def measure(model: Model) -> dict[str, float]:
    """Return tokens per second: of a prompt, of single tokens behind contexts, and of a batch."""
    model.reset(1)
    result = {"prefill 512": PROMPT / seconds(model, [list(range(1, PROMPT + 1))])}
    model.reset(1)
    length = 0
    for context in CONTEXTS:
        while length < context:
            count = min(PROMPT, context - length)
            model.feed([list(range(1, count + 1))])
            length += count
        result[f"decode at {context}"] = 1 / statistics.median(seconds(model, [[7]]) for _ in range(STEPS))
        length += STEPS
    model.reset(BATCH)
    model.feed([list(range(1, BATCH_PROMPT + 1)) for _ in range(BATCH)])
    result[f"batch of {BATCH}"] = BATCH / statistics.median(seconds(model, [[7]] * BATCH) for _ in range(STEPS))
    return result


def seconds(model: Model, tokens: list[list[int]]) -> float:
    start = time.perf_counter()
    model.feed(tokens)
    return time.perf_counter() - start
