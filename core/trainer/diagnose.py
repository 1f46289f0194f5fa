"""Where a number that is not finite came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle

if TYPE_CHECKING:
    from collections.abc import Callable

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch
    from ..parallel.pipeline.passes import Pipeline
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


def first_non_finite_in_pipeline(pipeline: Pipeline, batch: Batch) -> str:
    """Do the same for a model cut into stages; the name comes back on the stage that has the layer only.

    Raises:
        DistributedError: another stage has gone or is late.
    """
    model, mesh = pipeline.model, pipeline.mesh
    found: list[str] = []
    hooks = [layer.register_forward_post_hook(_watch(name, found)) for name, layer in model.named_sublayers()]

    def score(hidden_BSH: Tensor, _: Batch) -> list[float]:
        if not is_finite(model.head(hidden_BSH)):
            found.append("head")
        return []

    try:
        pipeline.forward([batch], score)
    finally:
        for hook in hooks:
            hook.remove()
    name = found[0] if found else ""
    wire = mesh.group("pp").wire
    place = _place(name, len(model.blocks), is_first=mesh.is_first_stage)
    places = [place] if wire is None else wire.exchange_json(place, "the search for a layer")
    return name if place == min(places) else ""


def _place(name: str, num_blocks: int, *, is_first: bool) -> int:
    """Return where a layer stands in the forward pass: before the blocks, in one of them, behind them, or nowhere."""
    if not name:
        return num_blocks + 1
    first, _, rest = name.partition(".")
    if first == "blocks":
        return int(rest.partition(".")[0])
    return -1 if is_first else num_blocks


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is inf or nan."""
    return bool(paddle.isfinite(tensor).all())


def _watch(name: str, found: list[str]) -> Callable[..., Any]:
    def look(layer: Any, arguments: Any, output: Any) -> None:
        if not found and isinstance(output, paddle.Tensor) and not is_finite(output):
            found.append(name)

    return look
