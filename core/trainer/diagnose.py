"""Where a number that is not finite came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle

if TYPE_CHECKING:
    from collections.abc import Callable

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .inputs import Inputs


def first_non_finite_layer(model: CausalLM, inputs: Inputs) -> str:
    """Run forward once more and name the first layer whose output has inf or nan; empty where none has."""
    found: list[str] = []
    hooks = [layer.register_forward_post_hook(_watch(name, found)) for name, layer in model.named_sublayers()]
    try:
        with paddle.no_grad():
            hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
            # Computed in any case: a head that several ranks share needs all of them.
            if not is_finite(model.head(hidden_BSH)):
                found.append("head")
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is inf or nan."""
    return bool(paddle.isfinite(tensor).all())


def _watch(name: str, found: list[str]) -> Callable[..., Any]:
    def look(layer: Any, arguments: Any, output: Any) -> None:
        if not found and isinstance(output, paddle.Tensor) and not is_finite(output):
            found.append(name)

    return look
