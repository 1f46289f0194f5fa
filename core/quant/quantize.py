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
from .head import HeadBlock
from .layer import QuantizedLinear, pack_weight, put_layers
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
) -> Quantized:
    """Read, quantize and compare a model, one block after the other.

    In memory are the embeddings and the head, one block in floats, the blocks that are quantized already, and the
    hidden states of calibration and evaluation.

    Args:
        family: states which layers may be quantized.
        config: of the model.
        tensors: its weights; read once each.
        method: how a block is quantized.
        calibration: what the method learns from; may be empty where it looks at nothing.
        evaluation: what the model is compared on, before and after.
        with_head: quantize the head as well, which is a layer of its own in ``config`` and ``tensors`` (``head.py``).
        on_block: told what became of each block, and of the head as one more.
    """
    groups = family.quantizable_layers(config)
    assert groups is not None, "the matrix refuses a family without the hook"
    model = build_empty(family, config)
    model.eval()
    _fill(model, tensors, [name for name in tensors.shapes if not name.startswith("blocks.")])
    before = Walk(model, evaluation)
    after = before.fork()
    walk = Walk(model, calibration if method.learns_from != "nothing" else ())
    layers: list[LayerRecord] = []
    for index, block in enumerate(model.blocks):
        _fill(model, tensors, [name for name in tensors.shapes if name.startswith(f"blocks.{index}.")])
        before.through(block)
        ahead = walk.fork()
        if method.learns_from == "float":
            ahead.through(block)
        records = method.quantize(BlockInWork(model, block, groups_of_block(groups, index)), walk)
        if method.learns_from == "quantized":
            ahead.through(block)
        after.through(block)
        walk = ahead
        layers += records
        on_block(index, records)
    heads = None
    if with_head:
        records, heads = _quantize_head(model, groups, method, walk)
        layers += records
        on_block(len(model.blocks), records)
    return Quantized(model, layers, compare(model, before, after, heads))


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


def _fill(model: CausalLM, tensors: LogicalTensors, names: Sequence[str]) -> None:
    targets = parameters(model)
    for name in names:
        fill(targets[name], to_float32(tensors.read(name), tensors.dtype(name)))
