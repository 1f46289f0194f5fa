"""One block while it is being quantized: its matrices, and what is folded from one into the other.

Every change here leaves what the block computes as it was, but for rounding of floats. Shape letters: O outputs,
I inputs, C channels of a feeder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import paddle
from paddle import nn

from .groups import feeding_channels, tied_maximum
from .layer import Adjustment, QuantizedLinear, put_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..causal_lm import CausalLM
    from ..ops import QuantizedWeight
    from .groups import LayerGroup
    from .layer import InputQuantization
    from .observe import Observer
    from .walk import Passed, Walk

Seen = TypeVar("Seen", bound="Observer")


class BlockInWork:
    """A block of a model, or its head, with the groups of its linear layers."""

    def __init__(self, model: CausalLM, block: Passed, groups: Sequence[LayerGroup]) -> None:
        self.model, self.block, self.groups = model, block, groups
        self._adjustments: dict[str, Adjustment] = {}
        self._added_biases: dict[str, np.ndarray] = {}

    def linear(self, name: str) -> nn.Linear:
        """Return a layer that is not quantized yet."""
        layer = self.model.get_sublayer(name)
        assert type(layer) is nn.Linear, f"{name} is {type(layer).__name__}"
        return layer

    def weight(self, name: str) -> np.ndarray:
        """Return the matrix of a layer, float32 [O, I]."""
        return np.ascontiguousarray(self.linear(name).weight.numpy().T)

    def observe(
        self, walk: Walk, groups: Sequence[LayerGroup], make: Callable[[], Seen], num_batches: int | None = None
    ) -> list[Seen]:
        """Return an observer for each group that has seen its inputs, as the layers multiply them.

        Args:
            walk: data in front of the block.
            groups: whose layers are not quantized yet.
            make: returns a new observer.
            num_batches: how many are looked at; ``None``: all.
        """
        seen = [make() for _ in groups]
        observers: dict[nn.Layer, Observer] = {
            self.linear(group.first): each for group, each in zip(groups, seen, strict=True)
        }
        walk.observe(self.block, observers, num_batches=num_batches)
        return seen

    def largest_weights(self, group: LayerGroup) -> np.ndarray:
        """Return the largest absolute weight of each input, over all layers of a group, [I]."""
        columns = [np.abs(self.linear(name).weight.numpy()).max(axis=1) for name in group.linears]
        largest_I: np.ndarray = np.max(columns, axis=0)
        return largest_I

    def tie(self, group: LayerGroup, values_I: np.ndarray) -> np.ndarray:
        """Give inputs that can only be scaled together the largest of their values."""
        return tied_maximum(values_I, self._channels(group)) if not group.norm and group.feeder else values_I

    def can_fold(self, group: LayerGroup) -> bool:
        """Whether a scale of the inputs can be folded into what makes them."""
        return bool(group.norm or group.feeder)

    def scale_inputs(self, group: LayerGroup, scale_I: np.ndarray) -> None:
        """Divide the inputs of a group by ``scale``, and multiply the matrices by it.

        The norm or the feeder makes the smaller inputs; without either the layers divide for themselves.
        """
        for name in group.linears:
            _multiply(self.linear(name).weight, scale_I[:, None])
            adjustment = self._adjustments.get(name)
            if adjustment is not None and adjustment.shift_I is not None and self.can_fold(group):
                adjustment.shift_I = adjustment.shift_I / paddle.to_tensor(scale_I)
        if group.norm:
            norm = self.model.get_sublayer(group.norm)
            _multiply(norm.weight, 1 / scale_I)
            if getattr(norm, "bias", None) is not None:
                _multiply(norm.bias, 1 / scale_I)
        elif group.feeder:
            self._scale_feeder(group, scale_I)
        else:
            for name in group.linears:
                adjustment = self._adjust(name)
                factor_I = paddle.to_tensor((1 / scale_I).astype(np.float32))
                adjustment.factor_I = factor_I if adjustment.factor_I is None else adjustment.factor_I * factor_I

    def shift_inputs(self, group: LayerGroup, middle_I: np.ndarray) -> None:
        """Subtract ``middle`` from the inputs of a group, and add what that takes away from the outputs.

        A norm with a bias makes the shifted inputs; elsewhere the layers subtract for themselves.
        """
        assert not any(name in self._adjustments for name in group.linears), "shifts come before scales"
        middle_I = middle_I.astype(np.float32)
        for name in group.linears:
            layer = self.linear(name)
            lost_O = middle_I @ layer.weight.numpy()
            if layer.bias is not None:
                layer.bias.set_value(layer.bias.numpy() + lost_O)
            else:
                self._add_bias(name, lost_O)
        norm = self.model.get_sublayer(group.norm) if group.norm else None
        if norm is not None and getattr(norm, "bias", None) is not None:
            norm.bias.set_value(norm.bias.numpy() - middle_I)
            return
        for name in group.linears:
            self._adjust(name).shift_I = paddle.to_tensor(-middle_I)

    def adjusted(self, name: str) -> Adjustment:
        """Return what a layer does to its inputs before it multiplies."""
        return self._adjustments.get(name, Adjustment())

    def replace(self, name: str, weight: QuantizedWeight, inputs: InputQuantization | None = None) -> None:
        """Put the quantized layer in the place of a linear one, whose matrix is let go."""
        added_O = self._added_biases.get(name)
        layer = QuantizedLinear(
            weight,
            self.linear(name).bias,
            inputs=inputs,
            adjustment=self.adjusted(name),
            added_bias_O=None if added_O is None else paddle.to_tensor(added_O),
        )
        put_layers(self.model, {name: layer})

    def _adjust(self, name: str) -> Adjustment:
        """Return the adjustment of a layer, which it makes from now on."""
        if name not in self._adjustments:
            adjustment = self._adjustments[name] = Adjustment()
            self.linear(name).register_forward_pre_hook(lambda layer, arguments: adjustment(arguments[0]))
        return self._adjustments[name]

    def _add_bias(self, name: str, bias_O: np.ndarray) -> None:
        self._added_biases[name] = bias_O
        added = self._added_biases
        self.linear(name).register_forward_post_hook(lambda layer, _, out: out + paddle.to_tensor(added[name]))

    def _channels(self, group: LayerGroup) -> np.ndarray:
        feeder, reader = self.linear(group.feeder), self.linear(group.first)
        return feeding_channels(self.model.config, reader.weight.shape[0], feeder.weight.shape[1])

    def _scale_feeder(self, group: LayerGroup, scale_I: np.ndarray) -> None:
        feeder, channels_I = self.linear(group.feeder), self._channels(group)
        scale_C = np.ones(feeder.weight.shape[1], dtype=np.float32)
        scale_C[channels_I] = scale_I
        assert np.array_equal(scale_C[channels_I], scale_I), "inputs of one channel share a scale"
        _multiply(feeder.weight, 1 / scale_C)
        if feeder.bias is not None:
            _multiply(feeder.bias, 1 / scale_C)
        if group.feeder in self._added_biases:
            self._added_biases[group.feeder] = self._added_biases[group.feeder] / scale_C


def _multiply(parameter: paddle.Tensor, factor: np.ndarray) -> None:
    parameter.set_value((parameter.numpy() * factor).astype(np.float32))
