"""Quantize a model block by block: only one block at a time is there in floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..convert.dtypes import to_float32
from ..convert.load import build_empty, fill
from ..convert.logical import parameters
from .block import BlockInWork
from .grid import GridSpec, round_to_nearest
from .groups import HEAD, groups_of_block, head_group
from .head import EMBEDDING, HeadBlock
from .layer import QuantizedLinear, pack_weight, put_layers, quantized_layers
from .lending import let_go
from .ranks import ALONE, Ranks
from .score import Comparison, compare
from .walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paddle import nn

    from ..causal_lm import CausalLM
    from ..convert.logical import LogicalTensors
    from ..data.sample import Batch
    from ..registry.facts import ModelConfig, QuantGroup
    from ..registry.family import Family
    from .methods import LayerRecord, Method


@dataclass(frozen=True, slots=True)
class Quantized:
    """A model whose blocks compute with integers, and what is known of it."""

    model: CausalLM
    layers: list[LayerRecord]
    comparison: Comparison


def quantize_by_blocks(
    family: Family,
    config: ModelConfig,
    tensors: LogicalTensors,
    method: Method,
    *,
    calibration: Sequence[Batch],
    evaluation: Sequence[Batch],
    with_head: bool = False,
    on_block: Callable[[int, list[LayerRecord]], None] = lambda index, records: None,
    ranks: Ranks = ALONE,
) -> Quantized:
    """Read, quantize and compare a model, one block after the other.

    In memory are the embeddings and the head, one block in floats, the blocks that are quantized already, and the
    hidden states of calibration and evaluation. Of several ranks each has its share of the blocks that are quantized
    and of the hidden states, and what lies around the blocks only when it computes with it.

    Args:
        family: states which layers may be quantized.
        config: of the model.
        tensors: its weights; read once each.
        method: how a block is quantized.
        calibration: what the method learns from; may be empty where it looks at nothing.
        evaluation: what the model is compared on, before and after.
        with_head: quantize the head as well, which is a layer of its own in ``config`` and ``tensors`` (``head.py``).
        on_block: told what became of each block, and of the head as one more.
        ranks: that share the work; all of them must call this. The integers of a block are then left with the rank
            that keeps it, and of what lies around the blocks with each what the head needs (``complete``).

    Raises:
        DistributedError: a rank has gone, is late, or came to something else.
    """
    groups = family.quantizable_layers(config)
    assert groups is not None, "the matrix refuses a family without the hook"
    model = build_empty(family, config)
    model.eval()
    around = _around_blocks(tensors)
    _fill(model, tensors, [name for name in around if not name.startswith(f"{HEAD}.")])
    before = Walk(model, evaluation, ranks)
    walks = _Walks(before, before.fork(), Walk(model, calibration if method.learns_from != "nothing" else (), ranks))
    if not ranks.is_alone:
        _empty(model, around)
    layers: list[LayerRecord] = []
    for index, block in enumerate(model.blocks):
        _fill(model, tensors, [name for name in tensors.shapes if name.startswith(f"blocks.{index}.")])
        records = walks.quantize(BlockInWork(model, block, groups_of_block(groups, index)), method)
        layers += records
        if ranks.keeper(index) != ranks.index:
            for layer in quantized_layers(block).values():
                let_go(layer)
        on_block(index, records)
    _fill(model, tensors, [name for name in around if config.tie_embeddings or name != EMBEDDING])
    heads = None
    if with_head:
        records, heads = _quantize_head(model, groups, method, walks.learning)
        layers += records
        on_block(len(model.blocks), records)
    return Quantized(model, layers, compare(model, walks.before, walks.after, heads))


@dataclass(slots=True)
class _Walks:
    """Where the data have come to: those of the comparison, before and after, and those that are learnt from."""

    before: Walk
    after: Walk
    learning: Walk

    def quantize(self, work: BlockInWork, method: Method) -> list[LayerRecord]:
        """Quantize a block, and go through it."""
        self.before.through(work.block)
        ahead = self.learning.fork()
        if method.learns_from == "float":
            ahead.through(work.block)
        records = method.quantize(work, self.learning)
        if method.learns_from == "quantized":
            ahead.through(work.block)
        self.after.through(work.block)
        self.learning = ahead
        return records


def complete(model: CausalLM, tensors: LogicalTensors) -> None:
    """Read again what lies around the blocks and is not there, to write it.

    Args:
        model: as ``quantize_by_blocks`` has left it on a rank.
        tensors: its weights.
    """
    _fill(model, tensors, _around_blocks(tensors))


def quantize_weights(model: CausalLM, groups: Sequence[QuantGroup], spec: GridSpec) -> CausalLM:
    """Round the weights of a model in memory to the nearest codes, and return it.

    Args:
        model: with values; its layers are replaced.
        groups: the family's quantizable layers.
        spec: bits and groups of codes.
    """
    for index in range(len(model.blocks)):
        for name in (name for group in groups_of_block(groups, index) for name in group.linears):
            layer = model.get_sublayer(name)
            packed = pack_weight(*round_to_nearest(layer.weight.numpy().T.copy(), spec))
            put_layers(model, {name: QuantizedLinear(packed, layer.bias)})
    return model


def _quantize_head(
    model: CausalLM, groups: Sequence[QuantGroup], method: Method, walk: Walk
) -> tuple[list[LayerRecord], tuple[nn.Layer, nn.Layer]]:
    """Replace the head, and return what is to be reported, and the head before and after."""
    group = head_group(groups)
    assert group is not None, "with_own_head asks for it"
    before = model.get_sublayer(HEAD)
    records = method.quantize(BlockInWork(model, HeadBlock(model), [group]), walk)
    return records, (before, model.get_sublayer(HEAD))


def _around_blocks(tensors: LogicalTensors) -> list[str]:
    return [name for name in tensors.shapes if not name.startswith("blocks.")]


def _fill(model: CausalLM, tensors: LogicalTensors, names: Sequence[str]) -> None:
    """Read parameters that have no values yet; one of a layer that was replaced is none any more."""
    targets = parameters(model)
    for name in names:
        if name in targets and not targets[name]._is_initialized():
            fill(targets[name], to_float32(tensors.read(name), tensors.dtype(name)))


def _empty(model: CausalLM, names: Sequence[str]) -> None:
    """Drop the values of parameters."""
    targets = parameters(model)
    for name in names:
        targets[name]._clear_data()
