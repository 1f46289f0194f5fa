"""What one rank sends in a step of training: every call of the trainer, counted from shapes.

Bytes are those of the tensor that a rank gives to a call: the whole sum of an all-reduce, its own part of an
all-gather. Rows are taken as full. A test counts the calls of real steps and compares them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..parallel.plan import REPLICAS, Axis
from ..parallel.tensor.parts import find_rules, in_block, kv_copies, splits_head
from ..parallel.units import buckets
from .activations import CHUNK_TOKENS, FLOAT

if TYPE_CHECKING:
    from ..parallel.units import Kind
    from ..registry.facts import ShardingRule
    from ..run import Run
    from .layout import Layout, RankShare

Operation = Literal["all-reduce", "reduce-scatter", "all-gather", "all-to-all", "send"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls of one kind with the same ranks, in one step."""

    axes: str
    """Along which the ranks differ."""
    ranks: tuple[int, ...]
    operation: Operation
    calls: int
    size: int
    """Bytes of all calls together."""


def traffic_of_step(run: Run, layout: Layout, share: RankShare, *, on_gpu: bool) -> list[Traffic]:
    """Return what a rank sends in one step, by axes and operation.

    Args:
        run: trains.
        layout: of the ranks.
        share: what the rank has.
        on_gpu: NCCL scatters sums; gloo gives the whole sum to every rank.
    """
    count = _Count(run, layout, share, on_gpu=on_gpu)
    count.blocks()
    count.ends()
    count.partial_gradients()
    count.stages()
    count.data()
    return count.traffic()


class _Count:
    """The calls of one rank; sizes are numbers of float32 values."""

    def __init__(self, run: Run, layout: Layout, share: RankShare, *, on_gpu: bool) -> None:
        self.layout, self.share, self.on_gpu = layout, share, on_gpu
        self.plan, self.config, self.training = layout.plan, run.model_config, run.config.training
        plan, rows = self.plan, self.training.per_device_train_batch_size
        multiple = plan.sep * (plan.mp if plan.sequence_parallel else 1)
        self.tokens = rows * (-(-run.config.data.max_length // multiple) * multiple) // plan.sep
        self.hidden = self.tokens * self.config.hidden_size
        self.between = self.hidden // plan.mp if plan.sequence_parallel else self.hidden
        """Of the hidden states between matrices."""
        self.micro = self.training.gradient_accumulation_steps
        self.is_first, self.is_last = (share.coordinates["pp"] == stage for stage in (0, plan.pp - 1))
        self.rules: Mapping[str, ShardingRule] = find_rules(share.model, layout.rules) if plan.mp > 1 else {}
        self._found: dict[tuple[tuple[int, ...], str, Operation], list[int]] = {}

    def add(self, axes: tuple[Axis, ...], operation: Operation, size: int, times: int = 1) -> None:
        several = tuple(axis for axis in axes if self.plan.degree(axis) > 1)
        if several:
            ranks = self.plan.group_of(self.share.rank, *several)
            self._add(ranks, " x ".join(several), operation, size, times)

    def _add(self, ranks: tuple[int, ...], axes: str, operation: Operation, size: int, times: int) -> None:
        entry = self._found.setdefault((ranks, axes, operation), [0, 0])
        entry[0] += times
        entry[1] += times * FLOAT * size

    def traffic(self) -> list[Traffic]:
        return [Traffic(axes, ranks, operation, *both) for (ranks, axes, operation), both in self._found.items()]

    def scattered(self) -> Operation:
        return "reduce-scatter" if self.on_gpu else "all-reduce"

    def blocks(self) -> None:
        """Count what passes inside blocks: around matrices that are split, and around attention of shared rows."""
        training = self.training
        again = training.recompute_granularity if training.recompute else ""
        for block in self.share.blocks:
            prefix = f"blocks.{block}."
            named = {name: rule for name, rule in self.rules.items() if name.startswith(prefix)}
            entrances = {_owner(_owner(name)) for name, rule in named.items() if rule.kind == "column"}
            exits = [_owner(name) for name, rule in named.items() if rule.kind == "row" and name.endswith(".weight")]
            for layer in entrances:
                self._crossing(self._repeated(layer, prefix, again), gathers_first=True)
            for layer in exits:
                self._crossing(self._repeated(layer, prefix, again), gathers_first=False)
            self._exchanges(self._repeated(f"{prefix}attention", prefix, again))

    def _repeated(self, layer: str, prefix: str, again: str) -> int:
        """Return how often the forward pass of a layer in a block is made for each micro-batch."""
        is_attention = layer.startswith(f"{prefix}attention") and not layer.startswith(f"{prefix}attention_")
        return 2 if again == "full" or (again == "full_attn" and is_attention) else 1

    def _crossing(self, forward: int, *, gathers_first: bool) -> None:
        """Count an entrance, whose backward pass sums, or an exit, whose forward pass does (``tensor/crossing.py``)."""
        sums = self.micro if gathers_first else self.micro * forward
        if not self.plan.sequence_parallel:
            self.add(("mp",), "all-reduce", self.hidden, sums)
            return
        self.add(("mp",), self.scattered(), self.hidden, sums)
        self.add(("mp",), "all-gather", self.between, self.micro * forward if gathers_first else self.micro)

    def _exchanges(self, forward: int) -> None:
        """Count the swaps of tokens for heads and back (``sep/attention.py``)."""
        plan, config = self.plan, self.config
        heads, kv = config.num_heads // plan.mp, max(1, config.num_kv_heads // plan.mp)
        kv = math.lcm(kv, plan.sep)
        for size in (heads, kv, kv, heads):
            self.add(("sep",), "all-to-all", self.tokens * size * config.head_dim, self.micro * (forward + 1))

    def ends(self) -> None:
        """Count what passes where the embedding, the hidden states at the end and the head are split."""
        embeddings = [name for name, rule in self.rules.items() if rule.kind == "vocab"]
        if self.is_first and embeddings:
            width = self.share.model[embeddings[0]][1]
            self.add(("mp",), "all-reduce", self.tokens * width, self.micro)
        if self.plan.sequence_parallel:
            times = self.micro * (int(self.is_first) + int(self.is_last))
            self.add(("mp",), "all-gather", self.between, times)
        if self.is_last and splits_head(self.config, self.layout.rules):
            for first in range(0, self.tokens, CHUNK_TOKENS):
                chunk = min(CHUNK_TOKENS, self.tokens - first)
                for size in (chunk, 2 * chunk, chunk * self.config.hidden_size):
                    self.add(("mp",), "all-reduce", size, self.micro)

    def partial_gradients(self) -> None:
        """Count the sums of gradients that tensor-parallel ranks have parts of (``tensor/gradients.py``)."""
        for name, rule in self.rules.items():
            size = math.prod(self.share.model[name])
            if self.share.is_frozen:
                continue
            if rule.kind == "replicate" and (rule.partial or (self.plan.sequence_parallel and in_block(name))):
                self.add(("mp",), "all-reduce", size, self.micro)
            elif rule.layout == "kv_groups" and (copies := kv_copies(self.config, self.plan.mp)) > 1:
                self.add(("mp",), "all-reduce", size * (self.plan.mp // copies), self.micro)

    def stages(self) -> None:
        """Count what a stage sends to its neighbours, and the sum of tied gradients on the first and the last."""
        cut = self.layout.cut
        if cut is None:
            return
        stage, last = self.share.coordinates["pp"], len(cut.sections) - 1
        for section in cut.of_stage(stage):
            sends = int(section.index < last) + int(section.index > 0)
            self.add(("pp",), "send", self.between, self.micro * sends)
        ends = tuple(self.plan.group_of(self.share.rank, "pp")[index] for index in (0, -1))
        for name, shape in self.share.trained.items():
            if self.share.rank in ends and cut.is_shared(name):
                self._add(ends, "pp", "all-reduce", math.prod(shape), 1)

    def data(self) -> None:
        """Count the sums of gradients over ranks with other tokens, and the gathering of parameters."""
        share, stage = self.share, self.plan.sharding_stage
        if not stage:
            names = list(share.trained)[:: -1 if self.on_gpu else 1]  # there as they become ready (overlap.py)
            sizes = {name: FLOAT * math.prod(share.trained[name]) for name in names}
            for bucket in buckets(sizes):
                self.add(REPLICAS, "all-reduce", sum(sizes[name] for name in bucket) // FLOAT)
            return
        for unit in share.units:
            times = self.micro if share.reduces_early else 1
            self.add(("sharding",), self.scattered(), unit.length * self.plan.sharding, times)
            for axis in ("dp", "sep"):
                self.add((axis,), "all-reduce", unit.length, times)
            gathers = self._gathers(unit.kind) * self.micro if share.keeps_rows else 1
            self.add(("sharding",), "all-gather", unit.length, gathers)
        for unit in share.frozen_units:
            self.add(("sharding",), "all-gather", unit.length, self._gathers(unit.kind) * self.micro)

    def _gathers(self, kind: Kind) -> int:
        """Return how often a micro-batch gathers a unit (``following.py``)."""
        twice = kind == "block" or (kind == "vocabulary" and self.config.tie_embeddings)
        return 2 if twice else 1


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
