"""What each rank needs where a model is quantized: one block in floats, the integers of blocks that are done, and the
hidden states of the data.

Of SmolLM2-135M (GPTQ and WINT8, one process) it says 0.95 and 0.99 GB where the runs took 1.04 and 1.07.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..parallel.plan import AXES
from ..parallel.slices import Part
from ..quant.calibration import MOST_EVALUATION_BATCHES
from ..quant.groups import LayerGroup, groups_of_block
from ..quant.head import WEIGHT as HEAD_WEIGHT
from ..quant.methods import Awq, Gptq, RoundToNearest
from ..quant.plan import choose_method, num_calibration_batches
from ..quant.score import CHUNK_TOKENS
from ..quant.w8a8 import ERROR_ROWS, SEARCH_ROWS, W8A8
from .activations import FLOAT
from .layout import Layout, RankShare
from .memory import LIBRARIES, WRITTEN, Phase

if TYPE_CHECKING:
    from ..parallel.plan import ParallelPlan
    from ..quant.methods import Method
    from ..run import Run
    from .shapes import ModelShapes, Shapes

SOLVING = 47
"""Bytes for each entry of the Hessian while GPTQ inverts it, in float64 for the most part (measured: 4 of it, and 42.7
besides, with 3072 inputs)."""
ADDING = 20
"""Bytes for each entry of a Hessian while a batch is added to it: the sum and the batch in float64, and in float32."""
ROUNDING = 8
"""Arrays of the size of a matrix while it is rounded."""
COMPARED = 4
"""Arrays of logits that are held at once, before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizingRank:
    """What one rank does of the work."""

    share: RankShare
    """The blocks that it keeps, and on rank 0 what lies around them, as shapes of floats."""
    held_bytes: int
    """Of the integers and floats of these."""
    peak: Phase


class QuantizingLayout:
    """A model and its data dealt out to the ranks that quantize it."""

    def __init__(self, run: Run, shapes: ModelShapes, plan: ParallelPlan, *, base: int) -> None:
        """Read the numbers of a run; ``base`` are the bytes of the process with Paddle and without a model.

        Raises:
            RefusedError: the group size does not divide the layers.
        """
        self.run, self.plan, self.base, self.model = run, plan, base, shapes.model
        self.groups = groups_of_block(run.family.quantizable_layers(run.model_config) or (), 0)
        self.method = choose_method(run, [self._shape(group.first)[0] for group in self.groups])
        self.block = {name: shape for name, shape in self.model.items() if name.startswith("blocks.0.")}
        self.around = {name: shape for name, shape in self.model.items() if not name.startswith("blocks.")}
        if run.config.quant.quantize_lm_head and HEAD_WEIGHT not in self.around:  # it gets a head of its own
            self.around[HEAD_WEIGHT] = run.model_config.hidden_size, run.model_config.vocab_size
        self._whole = Layout(shapes, replace(plan, mp=1)).rank(0)

    def rank(self, rank: int) -> QuantizingRank:
        """Return what a rank does."""
        size = self.plan.mp
        blocks = tuple(range(rank, self.run.model_config.num_layers, size))
        kept = {name: shape for name, shape in self.model.items() if _block(name) in blocks}
        held = len(blocks) * self._integers()
        if rank == 0:
            kept, held = kept | self.around, held + _bytes(self.around)
        groups = {axis: self.plan.group_of(rank, axis) for axis in AXES if self.plan.degree(axis) > 1}
        share = replace(
            self._whole, rank=rank, coordinates=self.plan.coordinates(rank), groups=groups, sections=(blocks,),
            model=kept, trained=kept, parts={name: Part.whole(shape) for name, shape in kept.items()},
        )  # fmt: skip
        phases = self._phases(rank, len(blocks))
        return QuantizingRank(share=share, held_bytes=held, peak=max(phases, key=lambda phase: phase.total))

    def _phases(self, rank: int, num_blocks: int) -> list[Phase]:
        program = {"Python and Paddle": self.base + LIBRARIES}
        head = {name: shape for name, shape in self.around.items() if name == HEAD_WEIGHT}
        around, integers = _bytes(self.around), num_blocks * self._integers()
        largest = FLOAT * max(map(math.prod, self.model.values()))
        compared, learnt = self._states()
        reads, states = {"the tensor that is read": 2 * largest}, {"hidden states of the data, at most": compared}
        before = around - (_bytes(head) if self.plan.mp > 1 else 0)
        logits = COMPARED * FLOAT * CHUNK_TOKENS * self.run.model_config.vocab_size
        all_states = {"hidden states of the data, at most": compared + learnt}
        phases = [
            Phase("the embedding of the data", program | {"embedding and head": before} | reads | all_states),
            Phase(
                "the last block",
                program | {"embedding and head": around if self.plan.mp == 1 else 0, "integers": integers}
                | all_states | {"a block in floats": _bytes(self.block), "what the method needs": self._work()},
            ),
            Phase(
                "the comparison",
                program | {"embedding and head": around, "integers": integers, "logits": logits} | states,
            ),
        ]  # fmt: skip
        if rank == 0:
            writes = {"the tensor that is written": WRITTEN * largest}
            phases.append(Phase("the writing", program | {"embedding and head": around, "integers": integers} | writes))
        return phases

    def _states(self) -> tuple[int, int]:
        """Return the bytes of the hidden states of evaluation and of calibration, before and behind a block each."""
        training, limit = self.run.config.training, self.run.config.training.max_evaluate_steps
        compared = MOST_EVALUATION_BATCHES if limit < 0 else max(1, limit)
        learnt = num_calibration_batches(self.method, self.run)
        row = 2 * FLOAT * self.run.config.data.max_length * self.run.model_config.hidden_size
        return (
            -(-compared // self.plan.mp) * training.per_device_eval_batch_size * row,
            -(-learnt // self.plan.mp) * training.per_device_train_batch_size * row,
        )

    def _integers(self) -> int:
        """Return the bytes of a block that is done."""
        linears = [name for group in self.groups for name in group.linears]
        bits, groups, scale = _codes(self.method)
        found = _bytes(
            {name: shape for name, shape in self.block.items() if name.removesuffix(".weight") not in linears}
        )
        for name in linears:
            inputs, outputs = self._shape(name)
            found += bits * inputs * outputs // 8 + scale * outputs * (1 if groups == -1 else inputs // groups)
        return found

    def _work(self) -> int:
        """Return the bytes that the method needs beside a block, with the activations of a batch in it."""
        training, model, size = self.run.config.training, self.run.model_config, self.plan.mp
        rows = max(training.per_device_train_batch_size, training.per_device_eval_batch_size)
        length = self.run.config.data.max_length
        passing = FLOAT * rows * length * (3 * model.ffn_size + 8 * model.hidden_size + 2 * model.num_heads * length)
        inputs = [self._inputs(group) for group in self.groups]
        matrix = max(math.prod(self._shape(name)) for group in self.groups for name in group.linears)
        if isinstance(self.method, Gptq):
            return max(
                passing + ADDING * max(inputs) ** 2, SOLVING * max(inputs) ** 2 + ROUNDING * FLOAT * matrix // size
            )
        if isinstance(self.method, Awq):
            hessians = ADDING * sum(each**2 for each in inputs)
            return hessians + max(passing, ROUNDING * FLOAT * matrix // size)
        sampled = 0
        if isinstance(self.method, W8A8):
            smooth = self.method.smooth
            seen = ERROR_ROWS * self.method.num_batches, 0 if smooth is None else SEARCH_ROWS * smooth.num_batches
            sampled = FLOAT * max(seen) * sum(inputs)
        return sampled + max(passing, ROUNDING * FLOAT * matrix)

    def _inputs(self, group: LayerGroup) -> int:
        return self._shape(group.first)[0]

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.model[f"{name}.weight"]


def _codes(method: Method) -> tuple[int, int, int]:
    """Return bits and group size of a method, and the bytes of a scale with its zero."""
    if isinstance(method, W8A8):
        return 8, -1, FLOAT
    assert isinstance(method, Gptq | Awq | RoundToNearest)
    spec = method.spec
    return spec.bits, spec.group_size, FLOAT + (not spec.symmetric)


def _bytes(shapes: Shapes) -> int:
    return FLOAT * sum(map(math.prod, shapes.values()))


def _block(name: str) -> int:
    """Return the number of the block that a parameter is in; -1 outside."""
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1
