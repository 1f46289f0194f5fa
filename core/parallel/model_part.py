"""What one rank has of a model, however the plan cuts it: into stages, and each stage's matrices over ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..convert.load import load_model
from .pipeline.stage import cut_family
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
    """The layers of other stages stand in it without parameters."""
    cut: Cut | None = None
    """Into stages; ``None`` where there is one."""


def build_part(family: Family, config: ModelConfig, mesh: Mesh, weights: Path | None) -> ModelPart:
    """Build what this rank has of a model; the values are those that one process would have.

    Args:
        family: builds the model and states how it is cut.
        config: of the whole model.
        mesh: of the run.
        weights: model directory or weight file; ``None`` draws random ones from Paddle's generator.

    Raises:
        PluginError: the family says wrongly how its model is cut.
        WeightError: the file is damaged, unsafe, or does not fit the model.
    """
    plan = mesh.plan
    if plan.mp == plan.pp == 1:
        return ModelPart(family.build_model(config) if weights is None else load_model(family, config, weights))
    cut, wanted = None, everything
    if plan.pp > 1:
        cut = stages = cut_family(family, config, stages=plan.pp, virtual=plan.virtual_pp)
        place = mesh.index("pp")

        def wanted(name: str) -> bool:
            return stages.holds(place, name)

    if weights is None:
        return ModelPart(build_random(family, config, mesh, wanted=wanted), cut)
    return ModelPart(load_part(family, config, weights, mesh, wanted=wanted), cut)


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
    wire = mesh.group("pp").wire
    stages = [own] if wire is None else wire.exchange_json(own, "the sizes of the model's matrices")
    return {name: (size, is_trained) for stage in stages for name, (size, is_trained) in stage.items()}
