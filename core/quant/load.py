"""A quantized model out of a directory, its integers kept. Shape letters: O outputs, I inputs, G groups."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..convert.dtypes import to_float32
from ..convert.load import build_empty, fill
from ..convert.logical import open_logical, parameters
from ..convert.transforms import to_ours
from ..convert.weights import choose_map, expand
from ..errors import WeightError
from .formats.int8 import ADJUSTMENTS, INPUT_SCALE, Int8Format
from .grid import Grid, GridSpec
from .groups import HEAD, groups_of_block, head_group
from .layer import Adjustment, InputQuantization, QuantizedLinear, pack_weight, put_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..convert.quantized_source import QuantizedSource
    from ..convert.weights import Transfer
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from .formats.matrix import StoredMatrix


def load_integers(
    family: Family,
    config: ModelConfig,
    source: QuantizedSource,
    *,
    on_tensor: Callable[[str], None] | None = None,
) -> CausalLM:
    """Build a model whose quantizable layers compute with the integers of a directory.

    Matrices that the family does not count among its quantizable layers are widened.

    Args:
        family: builds the model and knows its foreign names.
        config: of the model.
        source: the opened directory.
        on_tensor: told the name of each parameter that has been filled.

    Raises:
        WeightError: the files are damaged or do not fit the model.
    """
    model = build_empty(family, config)
    targets = parameters(model)
    tensors = open_logical(family, config, source, {name: tuple(p.shape) for name, p in targets.items()})
    layers = _layers(family, config, source, model)
    for name in tensors.shapes:
        if name.removesuffix(".weight") not in layers:
            fill(targets[name], to_float32(tensors.read(name), tensors.dtype(name)))
        if on_tensor is not None:
            on_tensor(name)
    put_layers(model, layers)
    return model


def _layers(
    family: Family, config: ModelConfig, source: QuantizedSource, model: CausalLM
) -> dict[str, QuantizedLinear]:
    groups = family.quantizable_layers(config) or ()
    names = {
        f"{name}.weight"
        for block in range(config.num_layers)
        for group in groups_of_block(groups, block)
        for name in group.linears
    }
    if head_group(groups) is not None:
        names.add(f"{HEAD}.weight")
    layers = {}
    for step in expand(choose_map(family, config, source), config.num_layers):
        if names.issuperset(step.ours) and all(source.is_integer(name) for name in step.theirs):
            for ours, matrix in zip(step.ours, _taken_apart(source, step), strict=True):
                name = ours.removesuffix(".weight")
                layers[name] = _layer(matrix, model.get_sublayer(name).bias, source)
    return layers


def _taken_apart(source: QuantizedSource, step: Transfer) -> list[StoredMatrix]:
    """Return our matrices out of the foreign ones of a rule."""
    rule = replace(step.rule, transpose=False)
    theirs = [source.matrix(name) for name in step.theirs]
    first = theirs[0]
    if not all(np.array_equal(each.group_I, first.group_I) for each in theirs):
        raise WeightError(f"{source.path}: {', '.join(step.theirs)}: group their inputs differently, but are one here.")
    codes = to_ours(rule, [each.codes_IO for each in theirs])
    scales = to_ours(rule, [each.scales_GO for each in theirs])
    has_zeros = any(each.zeros_GO is not None for each in theirs)
    zeros = to_ours(rule, [_zeros(each) for each in theirs]) if has_zeros else [None] * len(codes)
    biases = ADJUSTMENTS[-1]
    added = to_ours(rule, [each.extras[biases] for each in theirs]) if biases in first.extras else []
    return [
        replace(
            first, codes_IO=codes[index], scales_GO=scales[index], zeros_GO=zeros[index],
            extras={**first.extras, biases: added[index]} if added else first.extras,
        )
        for index in range(len(codes))
    ]  # fmt: skip


def _zeros(matrix: StoredMatrix) -> np.ndarray:
    return np.zeros(matrix.scales_GO.shape, np.int8) if matrix.zeros_GO is None else matrix.zeros_GO


def _layer(matrix: StoredMatrix, bias_O: Tensor | None, source: QuantizedSource) -> QuantizedLinear:
    order_I = None
    codes_OI, num_groups = np.ascontiguousarray(matrix.codes_IO.T), matrix.scales_GO.shape[0]
    if (np.diff(matrix.group_I) < 0).any():
        order_I = np.argsort(matrix.group_I, kind="stable")
        codes_OI = np.ascontiguousarray(codes_OI[:, order_I])
    size = matrix.in_size // num_groups
    if not np.array_equal(np.sort(matrix.group_I), np.arange(matrix.in_size) // max(size, 1)):
        raise WeightError(f"{source.path}: a matrix has groups of unequal size, which are not read.")
    spec = GridSpec(matrix.bits, -1 if num_groups == 1 else size, matrix.zeros_GO is None)
    grid = Grid(
        spec,
        np.ascontiguousarray(matrix.scales_GO.T),
        None if matrix.zeros_GO is None else np.ascontiguousarray(matrix.zeros_GO.T),
    )
    shift_I, factor_I, added_O = (_tensor(matrix.extras, name) for name in ADJUSTMENTS)
    return QuantizedLinear(
        pack_weight(codes_OI, grid, order_I),
        bias_O,
        inputs=_inputs(matrix, source),
        adjustment=Adjustment(shift_I, factor_I),
        added_bias_O=added_O,
    )


def _inputs(matrix: StoredMatrix, source: QuantizedSource) -> InputQuantization | None:
    if not isinstance(source.format, Int8Format):
        return None
    if source.format.per_token:
        return InputQuantization(None)
    if INPUT_SCALE not in matrix.extras:
        raise WeightError(f"{source.path}: a matrix lacks its {INPUT_SCALE}, which static activations need.")
    return InputQuantization(float(matrix.extras[INPUT_SCALE].reshape(-1)[0]))


def _tensor(extras: Mapping[str, np.ndarray], name: str) -> Tensor | None:
    return paddle.to_tensor(extras[name]) if name in extras else None
