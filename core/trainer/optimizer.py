"""AdamW over named parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from ..ops import adamw_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

    from ..config.training import TrainingOptions
    from ..parallel.holding import Holding
    from ..parallel.slices import Part

FIRST_MOMENT, SECOND_MOMENT = "exp_avg", "exp_avg_sq"


class AdamW:
    """Adam with decoupled weight decay; float32 parameters, gradients and moments.

    Decay applies to matrices (two axes or more), never to biases and norm weights; what a parameter is called does
    not matter. ``updates`` counts the updates made, which is what bias correction goes by: a skipped training step
    is not an update.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    def __init__(
        self, holding: Holding, options: TrainingOptions, lr_scales: Mapping[str, float] | None = None
    ) -> None:
        """Begin with moments of zero; ``lr_scales`` has factors on the learning rate, by parameter."""
        self.holding = holding
        self.lr_scales = lr_scales or {}
        self.options = options
        self.updates = 0
        self._first = {name: paddle.zeros_like(tensor) for name, tensor in holding.tensors.items()}
        self._second = {name: paddle.zeros_like(tensor) for name, tensor in holding.tensors.items()}

    def update(self, *, learning_rate: float, gradient_scale: float) -> None:
        """Apply the gradients of what this rank holds, each times ``gradient_scale``, and drop them."""
        self.updates += 1
        gradients, tensors = self.holding.gradients(), self.holding.tensors
        adamw_update(
            [tensors[name] for name in gradients],
            list(gradients.values()),
            [self._first[name] for name in gradients],
            [self._second[name] for name in gradients],
            [self.options.weight_decay if tensors[name].ndim >= 2 else 0.0 for name in gradients],
            [self.lr_scales.get(name, 1.0) for name in gradients],
            lr=learning_rate,
            beta1=self.options.adam_beta1,
            beta2=self.options.adam_beta2,
            eps=self.options.adam_epsilon,
            step=self.updates,
            grad_scale=gradient_scale,
        )
        self.holding.drop_gradients()

    def state(self) -> dict[str, Tensor]:
        """Return the moments, named ``exp_avg.<parameter>`` and ``exp_avg_sq.<parameter>``."""
        named = {f"{FIRST_MOMENT}.{name}": moment for name, moment in self._first.items()}
        return named | {f"{SECOND_MOMENT}.{name}": moment for name, moment in self._second.items()}

    def parts(self) -> dict[str, Part]:
        """Return which part of the logical tensor each of ``state()`` is."""
        moments = (FIRST_MOMENT, SECOND_MOMENT)
        return {f"{moment}.{name}": part for moment in moments for name, part in self.holding.parts.items()}
