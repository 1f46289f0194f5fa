"""A rank's part of a model, filled without the whole model ever being in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ...convert.dtypes import to_float32
from ...convert.load import build_empty, fill
from ...convert.logical import open_logical, parameters
from ...convert.source import open_tensors
from ..collectives import all_gather
from ..pipeline.stage import forget
from ..shards import lay_out_shards
from ..slices import Part
from .apply import parallelize
from .arrays import cut, put
from .model import model_parts, split_of

if TYPE_CHECKING:
    from paddle import Tensor

    from ...causal_lm import CausalLM
    from ...registry.facts import ModelConfig
    from ...registry.family import Family
    from ..groups import Group
    from ..mesh import Mesh

Wanted = Callable[[str], bool]


def everything(name: str) -> bool:
    """Want every parameter."""
    return True


def build_random(
    family: Family, config: ModelConfig, mesh: Mesh, *, wanted: Wanted = everything, shards: bool = False
) -> CausalLM:
    """Build this rank's part of a model with random weights: those of one process with the same seed.

    Every rank draws all parameters, one after the other, and keeps its own slices.

    Args:
        family: builds the model and states how it splits.
        config: of the whole model.
        mesh: of the run.
        wanted: says of a parameter name whether this rank has any of it (a pipeline stage has not all); the others
            are taken out of the model.
        shards: the parameters get no values; this rank's rows of them are ``shards_of`` the model.
    """
    model = build_empty(family, config)
    logical = parameters(model)
    model = _split(model, family, mesh, wanted)
    targets = _targets(model, mesh, shards=shards)
    for name in list(logical):
        drawn = logical.pop(name)
        drawn.initialize()
        if name in targets and targets[name][0] is not drawn:
            target, part = targets[name]
            _fill(target, cut(drawn.numpy(), part))
        if shards:
            drawn._clear_data()
    return model


def load_part(
    family: Family,
    config: ModelConfig,
    path: Path,
    mesh: Mesh,
    *,
    wanted: Wanted = everything,
    shards: bool = False,
    on_tensor: Callable[[str], None] | None = None,
) -> CausalLM:
    """Build this rank's part of a model out of a model directory or weight file, in float32.

    Beside the part, one tensor of the file is in memory; of safetensors files only the rank's slices are read.

    Args:
        family: builds the model, states how it splits, and knows its foreign names.
        config: of the whole model.
        path: model directory, weight file, or GGUF file.
        mesh: of the run.
        wanted: says of a parameter name whether this rank has any of it; the others are taken out of the model.
        shards: the parameters get no values; this rank's rows of them are ``shards_of`` the model.
        on_tensor: told the name of each parameter that has been filled.

    Raises:
        WeightError: the file is damaged, unsafe, or does not fit the model.
    """
    source = open_tensors(path)
    source.check_floats()
    model = build_empty(family, config)
    tensors = open_logical(family, config, source, {name: tuple(p.shape) for name, p in parameters(model).items()})
    model = _split(model, family, mesh, wanted)
    targets = _targets(model, mesh, shards=shards)
    for name in tensors.shapes:
        if name in targets:
            target, part = targets[name]
            _fill(target, to_float32(cut(tensors.read(name), part), tensors.dtype(name)))
            if on_tensor is not None:
                on_tensor(name)
    return model


def whole_parameters(model: CausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the logical parameters, one at a time, on every tensor-parallel rank; all of these must ask.

    Raises:
        DistributedError: a rank has gone or is late.
    """
    split = split_of(model)
    for name, parameter in parameters(model).items():
        if split is None or split.parts[name].local_shape == split.parts[name].shape:
            yield name, parameter.numpy()
        else:
            yield name, _join(parameter.detach(), [peer[name] for peer in split.peers], split.group)


def _join(local: Tensor, parts: list[Part], group: Group) -> np.ndarray:
    """Return the logical tensor of which each rank has one of ``parts``; they may differ in length."""
    dim, longest = parts[0].dim, max(part.local_shape[part.dim] for part in parts)
    padding = [*local.shape[:dim], longest - local.shape[dim], *local.shape[dim + 1 :]]
    padded = paddle.concat([local, paddle.zeros(padding, dtype=local.dtype)], axis=dim) if padding[dim] else local
    everybody = all_gather(padded.unsqueeze(0), group, dim=0).numpy()
    whole = np.empty(parts[0].shape, dtype=everybody.dtype)
    for part, theirs in zip(parts, everybody, strict=True):
        put(theirs, whole, part)
    return whole


def _targets(model: CausalLM, mesh: Mesh, *, shards: bool) -> dict[str, tuple[Any, Part]]:
    """Return where the values of each parameter go, and which part of the logical parameter that is."""
    if shards:
        return lay_out_shards(model, mesh)
    parts = model_parts(model)
    return {name: (parameter, parts[name]) for name, parameter in parameters(model).items()}


def _fill(target: Any, values: np.ndarray) -> None:
    if values.size:  # a rank may have no row of a parameter
        fill(target, values)


def _split(model: CausalLM, family: Family, mesh: Mesh, wanted: Wanted) -> CausalLM:
    for name in list(parameters(model)):
        if not wanted(name):
            forget(model, name)
    if mesh.group("mp").is_alone:
        return model
    rules = family.sharding_map(model.config)
    assert rules is not None, "tensor parallelism without a sharding map is refused before a run starts"
    return parallelize(model, rules, mesh)
