"""Peak memory of one process, from shapes alone, by what it is spent on.

Everything is float32. What a block keeps for its backward pass is counted tensor by tensor on the network that all
families share in outline: norm, attention, norm, gated feed-forward. A test compares the sum with the memory of a
real run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config.option import TRAINING
from ..ops.select import choices
from ..registry.facts import ModelConfig
from ..run import Run
from .parameters import ParameterCount

FLOAT = 4
CHUNK_TOKENS = 1024
"""Of ``linear_cross_entropy``: tokens whose logits exist at the same time."""
LIBRARIES = 60_000_000
"""Bytes of what a task imports besides Paddle."""
HEAP_RESERVE = 0.05
"""Share of its peak that the heap holds besides, in small gaps, where it is kept between steps."""
PLAIN_SCORES = 4
"""S x S matrices a head that plain attention keeps or makes: scores, with bias, softmax, gradient."""
PLAIN_NORM = 3
"""Hidden states more that each plain norm keeps: its square, scaled input, and result before the weight."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A time of the run, and what is in memory then, in bytes by what it is."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def phases(run: Run, count: ParameterCount, base: int) -> list[Phase]:
    """Return the phases of a run that may be its peak.

    Args:
        run: the checked request.
        count: of the model's parameters.
        base: bytes of the process with Paddle and without a model.
    """
    program = {"Python and Paddle": base + LIBRARIES}
    weights = {"weights": FLOAT * (count.total + (count.trained if count.is_frozen else 0))}
    if run.config.task not in TRAINING:
        return [
            Phase("computing", program | weights | _decoding(run)),
            Phase("loading", program | weights | _reading(count)),
        ]
    optimizer = {"optimizer": 2 * FLOAT * count.trained}
    gradients = {"gradients": FLOAT * count.trained}
    found = [Phase("a training step", program | weights | optimizer | gradients | _step(run, count))]
    if run.config.training.save_rehearsal:
        read = {"optimizer, read back": 2 * FLOAT * count.trained}
        found.append(Phase("the rehearsal of saving", program | weights | optimizer | read))
    return [Phase(phase.name, phase.parts | {"heap in reserve": int(HEAP_RESERVE * phase.total)}) for phase in found]


def machine_memory() -> int:
    """Return the bytes that this machine or container has; 0 where it does not say."""
    limits = []
    try:
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        pass
    try:
        first = Path("/proc/meminfo").read_text().split("\n", 1)[0]
        limits.append(int(first.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    return min(limits, default=0)


def _step(run: Run, count: ParameterCount) -> dict[str, int]:
    """Return what one micro-batch needs besides parameters and their like."""
    training, model = run.config.training, run.model_config
    tokens = training.per_device_train_batch_size * run.config.data.max_length
    block = block_floats(model, run.config.data.max_length)
    if training.recompute and training.recompute_granularity == "full":
        kept = model.num_layers * model.hidden_size + block
    else:
        kept = model.num_layers * block
    backward = 3 * model.ffn_size + 4 * model.hidden_size  # gradients inside the block that is at work
    chunk = min(CHUNK_TOKENS, tokens) * model.vocab_size
    head = 0 if count.is_frozen else model.vocab_size * model.hidden_size  # its gradient
    ends = 4 * model.hidden_size * tokens  # embedding, final norm, and the gradient of the hidden states
    return {
        "activations": FLOAT * (tokens * (kept + backward) + ends),
        "logits of a chunk": FLOAT * (2 * chunk + head),
    }


def block_floats(model: ModelConfig, length: int) -> int:
    """Return the numbers that one block keeps for its backward pass, for each token of rows of ``length``."""
    native = {choice.op for choice in choices() if choice.variant == "native"}
    query, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    kept = 4 * model.hidden_size + 2 * query + 2 * kv + 3 * model.ffn_size
    if "attention" not in native:
        kept += PLAIN_SCORES * model.num_heads * length
    if "norm" not in native:
        kept += 2 * PLAIN_NORM * model.hidden_size
    if "rotary" not in native:
        kept += 2 * (query + kv)
    if "swiglu" not in native:
        kept += model.ffn_size
    return kept


def _decoding(run: Run) -> dict[str, int]:
    model, options = run.model_config, run.config.decoding
    if run.config.task == "convert":
        return {}
    length = min(run.config.data.src_length + options.max_new_tokens, model.max_positions)
    # Without a size the engine answers as many as its cache holds; one row is the least that it takes.
    rows = (options.batch_size or 1) if run.config.task == "generate" else 1
    if options.decode_strategy == "beam_search":
        rows *= options.num_beams
    cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim * length * rows
    prompt = rows * run.config.data.src_length * (3 * model.ffn_size + 4 * model.hidden_size)
    return {
        "keys and values": FLOAT * cache,
        "activations": FLOAT * prompt,
        "logits": FLOAT * 2 * rows * model.vocab_size,
    }


def _reading(count: ParameterCount) -> dict[str, int]:
    """Weights are read one tensor at a time: the largest exists as in the file, transposed, and in the model."""
    return {"the tensor that is read": 2 * FLOAT * count.largest}
