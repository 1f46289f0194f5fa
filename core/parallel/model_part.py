"""What one rank has of a model, however the plan cuts it: into stages, each stage's matrices over ranks, and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..adapters.coded_linear import CodedLinear, CodedLora
from ..convert.load import load_model
from .pipeline.stage import cut_family
from .sep.model import share_rows
from .tensor.build import build_random, everything, load_part
from .tensor.model import model_parts

if TYPE_CHECKING:
    from pathlib import Path

    from ..causal_lm import CausalLM
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from .mesh import Mesh
    from .pipeline.cut import Cut


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One rank's part of a model, or all of it."""

    model: CausalLM
    """The layers of other stages stand in it without parameters; in sharding stage 3 none of its parameters has values
    until ``sharding.hold`` gathers them."""
    cut: Cut | None = None
    """Into stages; ``None`` where there is one."""


def build_part(
    family: Family, config: ModelConfig, mesh: Mesh, weights: Path | None, *, shares_rows: bool = True
) -> ModelPart:
    """Build what this rank has of a model; the values are those that one process would have.

    Args:
        family: builds the model and states how it is cut.
        config: of the whole model.
        mesh: of the run.
        weights: model directory or weight file; ``None`` draws random ones from Paddle's generator.
        shares_rows: in sharding stage 3 each rank gets its rows of the parameters, for ``sharding.hold`` or
            ``hold_frozen`` to gather; otherwise every parameter has its values, whatever the stage.

    Raises:
        PluginError: the family says wrongly how its model is cut.
        WeightError: the file is damaged, unsafe, or does not fit the model.
    """
    plan = mesh.plan
    shards = shares_rows and plan.sharding_stage == 3
    if plan.mp == plan.pp == 1 and not shards:
        model = family.build_model(config) if weights is None else load_model(family, config, weights)
        return ModelPart(share_rows(model, mesh))
    cut, wanted = None, everything
    if plan.pp > 1:
        cut = stages = cut_family(family, config, stages=plan.pp, virtual=plan.virtual_pp)
        place = mesh.index("pp")

        def wanted(name: str) -> bool:
            return stages.holds(place, name)

    if weights is None:
        model = build_random(family, config, mesh, wanted=wanted, shards=shards)
    else:
        model = load_part(family, config, weights, mesh, wanted=wanted, shards=shards)
    return ModelPart(share_rows(model, mesh), cut)


def matrix_sizes(part: ModelPart, mesh: Mesh) -> dict[str, tuple[int, bool]]:
    """Return the entries of every matrix of the whole model, and whether it is trained, by logical name.

    Raises:
        DistributedError: a rank has gone or is late.
    """
    parts = model_parts(part.model)
    own: dict[str, tuple[int, bool]] = {}
    for name, parameter in part.model.named_parameters():
        shape = parts[name].shape if name in parts else tuple(parameter.shape)
        if len(shape) >= 2:
            size = 1
            for length in shape:
                size *= length
            own[name] = size, not parameter.stop_gradient
    for name, layer in part.model.named_sublayers():
        if isinstance(layer, CodedLinear | CodedLora):  # its matrix is no parameter
            own[f"{name}.weight"] = layer.frozen.shape[0] * layer.frozen.shape[1], False
    wire = mesh.group("pp").wire
    stages = [own] if wire is None else wire.exchange_json(own, "the sizes of the model's matrices")
    return {name: (size, is_trained) for stage in stages for name, (size, is_trained) in stage.items()}
