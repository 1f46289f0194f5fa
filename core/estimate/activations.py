"""What one micro-batch keeps for its backward pass on one rank, tensor by tensor.

Counted on the network that all families share in outline: norm, attention, norm, gated feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ops.select import choices
from ..parallel.plan import ParallelPlan
from ..registry.facts import ModelConfig
from ..run import Run
from .layout import RankShare

FLOAT, BYTE = 4, 1
NOTHING = "nothing"
GRANULARITIES = (NOTHING, "core_attn", "full_attn", "full")
"""What the backward pass may compute again, from what keeps most to what keeps least."""
CHUNK_TOKENS = 1024
"""Of ``linear_cross_entropy``: tokens whose logits exist at the same time."""
LOGITS, SPLIT_LOGITS = 2, 5
"""Arrays of logits that are held at once: with their gradient; where ranks have slices of them, with what is left of
each step of the loss."""
PLAIN_SCORES = 4
"""S x S matrices a head that plain attention keeps or makes: scores, with bias, softmax, gradient."""
PLAIN_NORM = 3
"""Hidden states more that each plain norm keeps: its square, scaled input, and result before the weight."""


@dataclass(frozen=True, slots=True)
class StepActivations:
    """Bytes besides parameters and their like."""

    all: int
    """Of all micro-batches that are under way when the loss of one is computed."""
    last_block: int
    """When all but one block's are gone."""
    logits: int
    """Of a chunk of tokens, with the gradient of the head; 0 where another stage has the head."""

    @classmethod
    def of(cls, run: Run, share: RankShare, plan: ParallelPlan, again: str | None = None) -> StepActivations:
        """Count for one rank.

        Args:
            run: trains.
            share: what the rank has of the model.
            plan: of the ranks.
            again: what is computed again in the backward pass, one of ``GRANULARITIES``; by default what the run says.
        """
        training, model = run.config.training, run.model_config
        if again is None:
            again = training.recompute_granularity if training.recompute else NOTHING
        tokens = training.per_device_train_batch_size * run.config.data.max_length // plan.sep
        block = block_floats(model, run.config.data.max_length, plan)
        hidden = model.hidden_size // (plan.mp if plan.sequence_parallel else 1)
        kept = hidden if again == "full" else block_floats(model, run.config.data.max_length, plan, again)
        # Gradients inside the block that is at work.
        work = block + 3 * model.ffn_size // plan.mp + 4 * model.hidden_size
        ends = 4 * hidden * tokens  # embedding, final norm, and the gradient of the hidden states
        under_way = blocks_under_way(share, plan, training.gradient_accumulation_steps)
        return cls(
            all=FLOAT * (tokens * (kept * under_way + work - (kept if again != "full" else 0)) + ends),
            last_block=FLOAT * (tokens * work + ends),
            logits=_logits(share, plan, model, tokens) if share.coordinates["pp"] == plan.pp - 1 else 0,
        )


def blocks_under_way(share: RankShare, plan: ParallelPlan, micro_batches: int) -> int:
    """Return how many blocks' activations a rank holds at once: of a pipeline stage, those of several micro-batches.

    Source: Narayanan et al. 2021, arXiv:2104.04473, section 2.2: passes that are ahead, and the one at work.
    """
    if plan.pp == 1:
        return len(share.blocks)
    behind = plan.pp - share.coordinates["pp"] - 1
    ahead = behind if plan.virtual_pp == 1 else 2 * behind + (plan.virtual_pp - 1) * plan.pp
    passes = min(ahead + 1, micro_batches * plan.virtual_pp)
    return passes * max(map(len, share.sections))


def block_floats(model: ModelConfig, length: int, plan: ParallelPlan, again: str = NOTHING) -> int:
    """Return the numbers that one block keeps for its backward pass, for each token of rows of ``length``.

    Args:
        model: whose block it is.
        length: of rows.
        plan: of the ranks.
        again: what is computed again instead: nothing, or the attention or its core.
    """
    native = {choice.op for choice in choices() if choice.variant == "native"}
    query, kv = model.num_heads * model.head_dim // plan.mp, model.num_kv_heads * model.head_dim // plan.mp
    hidden = model.hidden_size // (plan.mp if plan.sequence_parallel else 1)
    ffn = model.ffn_size // plan.mp
    attention = 2 * query + 2 * kv
    kept = 4 * hidden + 3 * ffn
    if plan.sequence_parallel:
        kept += 2 * model.hidden_size  # all tokens, where matrices read them
    if plan.sep > 1:
        attention *= 2  # before and behind the exchange
    if "attention" not in native and again != "core_attn":
        attention += PLAIN_SCORES * model.num_heads // (plan.mp * plan.sep) * length
    if "norm" not in native:
        kept += 2 * PLAIN_NORM * hidden
    if "rotary" not in native:
        attention += 2 * (query + kv)
    if "swiglu" not in native:
        kept += ffn
    return kept if again == "full_attn" else kept + attention


def _logits(share: RankShare, plan: ParallelPlan, model: ModelConfig, tokens: int) -> int:
    """Return the bytes of a chunk's logits, and of the gradient of the head, which a chunk adds to."""
    heads = [
        shape for name, shape in share.model.items() if len(shape) == 2 and model.vocab_size in share.parts[name].shape
    ]
    vocabulary = max(map(max, heads), default=model.vocab_size)
    arrays = SPLIT_LOGITS if plan.mp > 1 else LOGITS
    gradient = 0 if share.is_frozen else vocabulary * model.hidden_size * (1 if tokens <= CHUNK_TOKENS else 2)
    return FLOAT * (arrays * min(CHUNK_TOKENS, tokens) * vocabulary + gradient)
