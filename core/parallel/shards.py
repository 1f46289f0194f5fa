"""A model that is built without values: this rank's rows of its parameters lie beside it (sharding stage 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import paddle

from ..convert.logical import parameters
from .tensor.model import model_parts
from .units import even_rows

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .mesh import Mesh
    from .slices import Part

ATTRIBUTE = "row_shards"


def shards_of(model: CausalLM) -> Mapping[str, Tensor]:
    """Return this rank's rows of the parameters that have no values of their own, by name; nothing where all have."""
    found: Mapping[str, Tensor] = getattr(model, ATTRIBUTE, {})
    return found


def lay_out_shards(model: CausalLM, mesh: Mesh) -> dict[str, tuple[Any, Part]]:
    """Give a model that has no values a tensor for this rank's rows of each parameter.

    Returns:
        By name the tensor, still to be filled, and which part of the logical parameter it is.
    """
    group, parts = mesh.group("sharding"), model_parts(model)
    found = {}
    for name, parameter in parameters(model).items():
        part = parts[name].rows(*even_rows(parameter.shape[0], group.size)[group.index])
        found[name] = paddle.empty(list(part.local_shape), dtype=parameter.dtype), part
    object.__setattr__(model, ATTRIBUTE, {name: tensor for name, (tensor, _) in found.items()})
    return found
