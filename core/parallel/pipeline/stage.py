"""A family's model cut for a pipeline, and parameters taken out of a stage's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...convert.load import build_empty
from ...convert.logical import parameters
from ...errors import PluginError
from .cut import Cut, cut_model

if TYPE_CHECKING:
    from ...causal_lm import CausalLM
    from ...registry.facts import ModelConfig
    from ...registry.family import Family


def cut_family(family: Family, config: ModelConfig, *, stages: int, virtual: int = 1) -> Cut:
    """Cut a family's model for a pipeline; the model is built without memory, for its shapes.

    Raises:
        PluginError: the family does not say where it may be cut, or says it wrongly.
    """
    pieces = family.pipeline_split(config)
    if pieces is None:
        raise PluginError(f"{family.source} lacks llm_run_pipeline_split, without which it cannot be cut into stages.")
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters(build_empty(family, config)).items()}
    return cut_model(pieces, shapes, stages=stages, virtual=virtual)


def forget(model: CausalLM, name: str) -> None:
    """Take a parameter out of a model; the others keep their names."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_sublayer(path) if path else model
    del layer._parameters[leaf]
