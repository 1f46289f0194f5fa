"""A quantized model as a Hugging Face directory. Shape letters: O outputs, I inputs, G groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..convert.dtypes import cast
from ..convert.logical import ModelTensors
from ..convert.transforms import to_theirs
from ..ops.quantized_linear import dequantize, unpack
from .formats.choose import open_format
from .formats.int8 import ADJUSTMENTS, INPUT_SCALE
from .formats.matrix import StoredMatrix
from .layer import quantized_layers

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..convert.safetensors_writer import Planned
    from ..convert.transforms import Shape
    from ..convert.weights import Transfer
    from .layer import QuantizedLinear

WEIGHT = ".weight"
Layers = Mapping[str, "QuantizedLinear"]


class QuantizedTensors:
    """All parameters of a model in memory; integer matrices as the float32 that they stand for."""

    def __init__(self, model: CausalLM, stored: Mapping[str, str], layers: Layers | None = None) -> None:
        """Look at the model.

        Args:
            model: with quantized layers.
            stored: the dtype that each parameter came in. Matrices that are not quantized are as they came, and go
                back into it without loss; norms and biases may have taken up scales, and stay float32.
            layers: quantized layers with their integers; ``None``: the model's own have them.
        """
        self._floats = ModelTensors(model)
        self._stored = {name: stored[name] for name, shape in self._floats.shapes.items() if len(shape) > 1}
        own = quantized_layers(model)
        self._layers: Layers = own if layers is None else layers
        packed = {f"{name}{WEIGHT}": (each.quantized.in_size, each.quantized.out_size) for name, each in own.items()}
        self.shapes: Mapping[str, Shape] = {**self._floats.shapes, **packed}

    def dtype(self, name: str) -> str:
        return self._stored.get(name, "float32")

    def read(self, name: str) -> np.ndarray:
        layer = name.removesuffix(WEIGHT)
        if layer not in self._layers:
            return cast(self._floats.read(name), self._floats.dtype(name), self.dtype(name))
        array: np.ndarray = dequantize(self._layers[layer].quantized).numpy().T
        return array


class ModelPacking:
    """The quantized layers of a model in memory, as a directory holds them (a ``Packing``)."""

    def __init__(self, model: CausalLM, quantization: Mapping[str, Any], layers: Layers | None = None) -> None:
        """Look at the layers.

        Args:
            model: with quantized layers.
            quantization: the ``quantization_config``, which says the format.
            layers: quantized layers with their integers; ``None``: the model's own have them.
        """
        self._layers: Layers = quantized_layers(model) if layers is None else layers
        self._format = open_format(quantization)
        self.fields: Mapping[str, Any] = {"quantization_config": dict(quantization)}

    def takes(self, step: Transfer) -> bool:
        return step.ours[0].removesuffix(WEIGHT) in self._layers

    def plan(self, step: Transfer) -> list[Planned]:
        return [
            planned
            for name, matrix in self._fused(step)
            for planned in self._format.plan(name.removesuffix(WEIGHT), matrix)
        ]

    def make(self, step: Transfer) -> Iterator[tuple[str, np.ndarray]]:
        for name, matrix in self._fused(step):
            planned = self._format.plan(name.removesuffix(WEIGHT), matrix)
            yield from zip((each.name for each in planned), self._format.write(matrix), strict=True)

    def _fused(self, step: Transfer) -> list[tuple[str, StoredMatrix]]:
        """Return the foreign matrices that layers become: some families keep several in one."""
        stored = [stored_matrix(self._layers[name.removesuffix(WEIGHT)]) for name in step.ours]
        return list(zip(step.theirs, fuse(stored, step), strict=True))


def stored_matrix(layer: QuantizedLinear) -> StoredMatrix:
    """Return a layer's matrix with what belongs to it, inputs first."""
    weight, adjustment = layer.quantized, layer.adjustment
    codes_OI, num_groups = unpack(weight).numpy(), weight.scales_OG.shape[1]
    group_I = np.arange(weight.in_size) // (weight.in_size // num_groups)
    if weight.order_I is not None:
        places_I = np.argsort(weight.order_I.numpy())
        codes_OI, group_I = codes_OI[:, places_I], group_I[places_I]
    extras: dict[str, np.ndarray] = {}
    if layer.inputs is not None and layer.inputs.scale is not None:
        extras[INPUT_SCALE] = np.array([layer.inputs.scale], dtype=np.float32)
    vectors = (adjustment.shift_I, adjustment.factor_I, layer.added_bias_O)
    extras |= {name: vector.numpy() for name, vector in zip(ADJUSTMENTS, vectors, strict=True) if vector is not None}
    return StoredMatrix(
        weight.bits, codes_OI.T, _transposed(weight.scales_OG),
        None if weight.zeros_OG is None else _transposed(weight.zeros_OG), group_I, extras,
    )  # fmt: skip


def fuse(ours: list[StoredMatrix], step: Transfer) -> list[StoredMatrix]:
    """Apply a weight rule to integer matrices: all that is told of an output moves with it."""
    rule, first = replace(step.rule, transpose=False), ours[0]
    assert all(np.array_equal(each.group_I, first.group_I) for each in ours), "fused layers group the same inputs"
    codes = to_theirs(rule, [each.codes_IO for each in ours])
    scales = to_theirs(rule, [each.scales_GO for each in ours])
    zeros: list[Any] = [None] * len(codes)
    if first.zeros_GO is not None:
        zeros = to_theirs(rule, [each.zeros_GO for each in ours if each.zeros_GO is not None])
    outputs = [name for name in first.extras if name == ADJUSTMENTS[-1]]
    by_output = {name: to_theirs(rule, [each.extras[name] for each in ours]) for name in outputs}
    return [
        replace(
            first,
            codes_IO=codes[index],
            scales_GO=scales[index],
            zeros_GO=zeros[index],
            extras={**first.extras, **{name: parts[index] for name, parts in by_output.items()}},
        )
        for index in range(len(codes))
    ]


def _transposed(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy().T)
