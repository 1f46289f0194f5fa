"""LoRA on a built model: which layers, the layers themselves, and taking them out again."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from paddle import nn

from ..convert.load import fill
from ..errors import Problem, RefusedError
from ..parallel.slices import Part
from ..parallel.tensor.arrays import cut
from ..parallel.tensor.layers import ColumnLinear, RowLinear
from ..parallel.tensor.model import model_parts, split_of
from .coded_linear import CodedLinear, CodedLora
from .lora_linear import LoraLinear
from .lora_split import ColumnLora, RowLora, adapter_parts, join_ranks
from .settings import ALL_LINEARS

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..parallel.tensor.model import Split
    from ..registry.family import Family
    from .settings import LoraSettings

LINEARS = (nn.Linear, ColumnLinear, RowLinear, CodedLinear)


def find_targets(model: CausalLM, family: Family, settings: LoraSettings) -> list[str]:
    """Return the names of the linear layers that the settings ask for, in the model's order.

    ``all`` is every linear layer of the blocks; the head is adapted where it is named. Of a pipeline stage, whose
    model has the layers of other stages without their parameters, these are its own.

    Raises:
        RefusedError: a target names no linear layer of the model; the text lists what there is.
    """
    linears = {name: layer for name, layer in model.named_sublayers() if type(layer) in LINEARS}
    held = matrix_parts(model)
    asked = settings.targets or tuple(family.card.lora_targets)
    found = {target: [name for name in linears if _is_meant(name, target)] for target in asked}
    idle = [target for target, names in found.items() if not names]
    # The family's own list serves variants that differ in their layers.
    if settings.targets and idle:
        known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linears))
        reason = f"is no linear layer of {family.card.name}"
        remedy = f"Name layers ({known}), regular expressions on whole names, or {ALL_LINEARS}."
        raise RefusedError(*(Problem("--lora_target_modules", f"'{target}'", reason, remedy) for target in idle))
    chosen = {name for names in found.values() for name in names}
    return [name for name in linears if name in chosen and name in held]


def matrix_parts(model: CausalLM) -> dict[str, Part]:
    """Return which part of its matrix [in, out] this rank holds of each linear layer, by name."""
    parts, found = model_parts(model), {}
    for name, layer in model.named_sublayers():
        if isinstance(layer, CodedLinear):
            found[name] = Part.whole(layer.frozen.shape)
        elif f"{name}.weight" in parts and len(parts[f"{name}.weight"].shape) == 2:
            found[name] = parts[f"{name}.weight"]
    return found


def apply_lora(
    model: CausalLM,
    targets: Sequence[str],
    settings: LoraSettings,
    ranks: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
) -> CausalLM:
    """Freeze a model and give layers an adapter; the other parameters keep their names.

    What an adapter begins with depends on the seed and the layer's name only: it is the same in every layout.

    Args:
        model: with values, whole or a tensor-parallel rank's part; changed in place.
        targets: names of its linear layers.
        settings: of the adapter.
        ranks: of layers whose rank is not that of the settings.
        seed: of the first matrices.

    Raises:
        RefusedError: the settings ask for what cannot be done with a part of a matrix.
    """
    for parameter in model.parameters():
        parameter.stop_gradient = True
    parts, split = matrix_parts(model), split_of(model)
    if split is not None and settings.pissa:
        reason = "needs whole matrices, and each tensor-parallel rank has a part"
        raise RefusedError(Problem("--pissa", "true", reason, "Leave one of them out."))
    for name in targets:
        rank = (ranks or {}).get(name, settings.rank)
        first_IR = _first_matrix(parts[name], rank, name, seed)
        layer = _adapted(model.get_sublayer(name), settings, first_IR, split)
        if settings.dora:
            layer.train_lengths()
        owner, _, last = name.rpartition(".")
        setattr(model.get_sublayer(owner) if owner else model, last, layer)
    if split is not None:
        join_ranks(model, split, lora_layers(model))
    return model


def lora_layers(model: CausalLM) -> dict[str, LoraLinear]:
    """Return the layers with an adapter, by name."""
    return {name: layer for name, layer in model.named_sublayers() if isinstance(layer, LoraLinear)}


def merge_in_place(model: CausalLM) -> CausalLM:
    """Add every adapter to its matrix, and put a plain layer in the place of the adapted one."""
    for name, layer in lora_layers(model).items():
        fill(layer.weight, layer.merged())
        owner, _, last = name.rpartition(".")
        setattr(model.get_sublayer(owner) if owner else model, last, layer.plain())
    return model


def _adapted(base: nn.Layer, settings: LoraSettings, first_IR: np.ndarray, split: Split | None) -> LoraLinear:
    """Return a layer with an adapter; what all tensor-parallel ranks hold alike gets its gradient from all."""
    if isinstance(base, CodedLinear):
        return CodedLora(base, settings, first_IR)
    if split is None or isinstance(base, nn.Linear):
        return LoraLinear(base, settings, first_IR)
    if isinstance(base, ColumnLinear):
        return ColumnLora(base, settings, first_IR)
    assert isinstance(base, RowLinear), "find_targets names no other layers"
    return RowLora(base, settings, first_IR, split.group)


def _first_matrix(weight: Part, rank: int, name: str, seed: int) -> np.ndarray:
    """Return what A begins with, of the rows that this rank has: uniform, by Kaiming's bound for a = sqrt(5)."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    bound = 1 / math.sqrt(weight.shape[0])
    whole_IR = generator.uniform(-bound, bound, [weight.shape[0], rank]).astype(np.float32)
    return cut(whole_IR, adapter_parts(weight, rank, is_first=True)["lora_A"])


def _is_meant(name: str, target: str) -> bool:
    if target == ALL_LINEARS:
        return name.startswith("blocks.")
    return name == target or name.rpartition(".")[2] == target or re.fullmatch(target, name) is not None
