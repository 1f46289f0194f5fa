"""AdamW over named parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from ..errors import CheckpointError
from ..ops import adamw_update, global_norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from paddle import Tensor

    from ..config.training import TrainingOptions

FIRST_MOMENT, SECOND_MOMENT = "exp_avg", "exp_avg_sq"


class AdamW:
    """Adam with decoupled weight decay; float32 parameters, gradients and moments.

    Decay applies to matrices (two axes or more), never to biases and norm weights; what a parameter is called does
    not matter. ``updates`` counts the updates made, which is what bias correction goes by: a skipped training step
    is not an update.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], options: TrainingOptions) -> None:
        self.parameters = {name: parameter for name, parameter in parameters if not parameter.stop_gradient}
        self.options = options
        self.updates = 0
        self._first = {name: paddle.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self._second = {name: paddle.zeros_like(parameter) for name, parameter in self.parameters.items()}

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by parameter name; a parameter that took no part has none."""
        return {name: parameter.grad for name, parameter in self.parameters.items() if parameter.grad is not None}

    def gradient_norm(self) -> float:
        """Return the global 2-norm of all gradients; inf or nan if one of them is not finite."""
        return global_norm(list(self.gradients().values()))

    def update(self, *, learning_rate: float, gradient_scale: float) -> None:
        """Apply the gradients, each times ``gradient_scale``, and drop them."""
        self.updates += 1
        gradients = self.gradients()
        adamw_update(
            [self.parameters[name] for name in gradients],
            list(gradients.values()),
            [self._first[name] for name in gradients],
            [self._second[name] for name in gradients],
            [self.options.weight_decay if self.parameters[name].ndim >= 2 else 0.0 for name in gradients],
            lr=learning_rate,
            beta1=self.options.adam_beta1,
            beta2=self.options.adam_beta2,
            eps=self.options.adam_epsilon,
            step=self.updates,
            grad_scale=gradient_scale,
        )
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.clear_gradient(set_to_zero=False)

    def state(self) -> dict[str, Tensor]:
        """Return the moments, named ``exp_avg.<parameter>`` and ``exp_avg_sq.<parameter>``."""
        named = {f"{FIRST_MOMENT}.{name}": moment for name, moment in self._first.items()}
        return named | {f"{SECOND_MOMENT}.{name}": moment for name, moment in self._second.items()}

    def load(self, state: Mapping[str, np.ndarray], updates: int) -> None:
        """Take over the moments that ``state()`` named, and the count of updates.

        Raises:
            CheckpointError: a moment is missing or has another shape.
        """
        load_tensors(self.state(), state)
        self.updates = updates


def load_tensors(targets: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> None:
    """Copy ``arrays`` into the tensors of the same names, in place.

    Raises:
        CheckpointError: a tensor has no array, or an array has no tensor or another shape.
    """
    for name in targets.keys() ^ arrays.keys():
        raise CheckpointError(f"{name}: is in the {'model' if name in targets else 'checkpoint'} only")
    for name, tensor in targets.items():
        array = arrays[name]
        if list(array.shape) != list(tensor.shape):
            raise CheckpointError(f"{name}: has shape {list(array.shape)}, and {list(tensor.shape)} in the model")
        tensor.set_value(array)
