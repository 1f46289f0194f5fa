"""Peak memory of one rank, from shapes alone, by what it is spent on.

Everything is float32. What a block keeps for its backward pass is counted tensor by tensor (``activations.py``). Tests
and ``benchmarks/plan_memory.py`` compare the sums with the memory of real runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..adapters.settings import trained_lora
from ..config.option import TRAINING
from ..parallel.plan import ParallelPlan
from ..parallel.units import BUCKET_BYTES
from ..run import Run
from .activations import FLOAT, StepActivations
from .coded import DECODING, CodedPart, coded_part
from .layout import RankShare

LIBRARIES = 60_000_000
"""Bytes of what a task imports besides Paddle."""
HEAP_RESERVE = 0.08
"""Share of its peak that the heap holds besides, in small gaps, where it is kept between steps."""
WRITTEN = 3
"""Copies of the tensor that is being saved: as it is, as it is laid out in the file, and read back."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A time of the run, and what is in memory then, in bytes by what it is."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def peak_of(run: Run, share: RankShare, plan: ParallelPlan, base: int) -> Phase:
    """Return the phase of a run in which a rank needs most.

    Args:
        run: the checked request.
        share: what the rank has of the model.
        plan: of the ranks.
        base: bytes of the process with Paddle and without a model.
    """
    return max(phases(run, share, plan, base), key=lambda phase: phase.total)


def phases(run: Run, share: RankShare, plan: ParallelPlan, base: int) -> list[Phase]:
    """Return the phases of a run that may be a rank's peak; see ``peak_of``."""
    program = {"Python and Paddle": base + LIBRARIES}
    if run.config.task not in TRAINING:
        weights = {"weights": FLOAT * share.computed}
        if run.config.task == "export":
            weights["weights of the graph"] = FLOAT * share.computed  # the two are compared
        return [
            Phase("computing", program | weights | _decoding(run, plan)),
            # Weights are read one tensor at a time: the largest is as in the file, transposed, and in the model.
            Phase("loading", program | weights | {"the tensor that is read": 2 * FLOAT * share.largest}),
        ]
    coded = coded_part(run, share, plan)
    reference = FLOAT * _reference(run, share)
    held = program | {"weights": FLOAT * share.kept - coded.saved + reference}
    if coded.codes:
        held |= {"a matrix as numbers": DECODING * coded.largest}
    held |= {"optimizer": 2 * FLOAT * share.updated}
    step = StepActivations.of(run, share, plan)
    gradients, moving = _gradients(share), _moving(share, plan)
    # With one micro-batch there are no gradients yet while its loss is computed.
    before = gradients if run.config.training.gradient_accumulation_steps > 1 else 0
    found = [
        Phase(
            "the loss of a micro-batch",
            held | {"gradients": FLOAT * before, "activations": step.all, "logits": step.logits, "in transit": moving},
        ),
        Phase(
            "the end of a backward pass",
            held | {"gradients": FLOAT * gradients, "activations": step.last_block, "in transit": moving},
        ),
    ]
    if run.config.training.save_rehearsal:
        read = {"the tensor that is read back": WRITTEN * FLOAT * share.largest}
        found.append(Phase("the rehearsal of saving", held | read))
    if share.is_frozen:
        found.append(Phase("the building of the model", program | {"weights": _at_first(run, share, coded)}))
    written = {"the tensor that is written": WRITTEN * FLOAT * share.largest}
    found.append(Phase("the writing of the result", held | written))
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


def _at_first(run: Run, share: RankShare, coded: CodedPart) -> int:
    """Return the bytes of a frozen model as it is built: before its matrices are codes, or ranks let go of rows."""
    lora = trained_lora(run)
    if coded.begins_as_numbers or (lora is not None and lora.reads_matrices and not coded.codes):
        return FLOAT * share.computed
    return FLOAT * (share.computed if coded.codes else share.kept) - coded.saved


def _gradients(share: RankShare) -> int:
    """Return the values of all gradients that a rank has when a backward pass is over."""
    if share.units and share.reduces_early:
        return share.updated
    return sum(map(math.prod, share.trained.values()))


def _moving(share: RankShare, plan: ParallelPlan) -> int:
    """Return the bytes of parameters and gradients that are being gathered or reduced."""
    replicas = plan.dp * plan.sharding * plan.sep
    if replicas == 1:
        return 0
    if not share.units:
        return min(BUCKET_BYTES, FLOAT * sum(map(math.prod, share.trained.values())))
    reduced = max(unit.values for unit in share.units)
    if not share.keeps_rows:
        return FLOAT * reduced
    # A block's parameters, and as much again while they are put together; a large matrix is gathered in its place.
    gathered = (*share.units, *share.frozen_units)
    others = sum(unit.values for unit in gathered if unit.kind == "others")
    block = sum(
        max((unit.values for unit in units if unit.kind == "block"), default=0)
        for units in (share.units, share.frozen_units)
    )
    return FLOAT * (others + max(2 * block, *(unit.values for unit in gathered)) + reduced)


def _reference(run: Run, share: RankShare) -> int:
    """Return the values of the model that preferences are measured against."""
    if run.config.task != "dpo" or share.is_frozen:
        return 0
    from ..trainer.preference_loss import PreferenceLoss

    values = share.updated if share.keeps_rows else share.computed
    return values if PreferenceLoss.from_options(run.config.training).needs_reference else 0


def _decoding(run: Run, plan: ParallelPlan) -> dict[str, int]:
    model, options = run.model_config, run.config.decoding
    if run.config.task in ("convert", "export"):
        return {}
    length = min(run.config.data.src_length + options.max_new_tokens, model.max_positions)
    # Without a size the engine answers as many as its cache holds; one row is the least that it takes.
    rows = (options.batch_size or 1) if run.config.task == "generate" else 1
    if options.decode_strategy == "beam_search":
        rows *= options.num_beams
    heads = max(1, model.num_kv_heads // plan.mp)
    cache = 2 * model.num_layers * heads * model.head_dim * length * rows
    prompt = rows * run.config.data.src_length * (3 * model.ffn_size // plan.mp + 4 * model.hidden_size)
    return {
        "keys and values": FLOAT * cache,
        "activations": FLOAT * prompt,
        "logits": FLOAT * 2 * rows * model.vocab_size,
    }
