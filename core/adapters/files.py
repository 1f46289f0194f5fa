"""An adapter on disk: PEFT's layout written and read, PaddleNLP's read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..convert.dtypes import to_float32
from ..convert.load import fill
from ..convert.publish import staged_directory
from ..convert.source import open_tensors
from ..errors import DataError, RefusedError, WeightError
from ..parallel.tensor.arrays import cut
from ..parallel.tensor.model import model_parts
from .lora import apply_lora, find_targets, matrix_parts
from .names import LoraTensors, find_pattern, to_foreign, to_logical
from .settings import PADDLENLP_CONFIG, PEFT_CONFIG, LoraSettings, check_lora_path, peft_fields, read_settings

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..registry.facts import Layout, ModelConfig
    from ..registry.family import Family

WEIGHTS = "adapter_model.safetensors"
PADDLENLP_WEIGHTS = "lora_model_state.pdparams"
PREFIX = "base_model.model."
A, B, MAGNITUDE = "lora_A", "lora_B", "lora_magnitude_vector"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that was read: its settings, and its matrices by our layer names."""

    settings: LoraSettings
    layers: Mapping[str, LoraTensors]


def new_adapter(model: CausalLM, family: Family, settings: LoraSettings, *, seed: int = 0) -> CausalLM:
    """Give a model an adapter that changes nothing yet."""
    return apply_lora(model, find_targets(model, family, settings), settings, seed=seed)


def put_adapter(model: CausalLM, adapter: Adapter) -> CausalLM:
    """Give a plain model the adapter that was read, a pipeline stage what it has of it.

    Raises:
        WeightError: a matrix does not fit the layer.
    """
    held = matrix_parts(model)
    layers = {name: tensors for name, tensors in adapter.layers.items() if name in held}
    ranks = {name: tensors.rank for name, tensors in layers.items()}
    for name, tensors in layers.items():
        size = list(held[name].shape)
        if [tensors.a.shape[0], tensors.b.shape[1]] != size:
            said = f"{list(tensors.a.shape)} and {list(tensors.b.shape)}"
            raise WeightError(f"{name}: the adapter's matrices {said} do not fit a layer of {size}.")
    apply_lora(model, list(layers), adapter.settings, ranks)
    parts = model_parts(model)
    for name, tensors in layers.items():
        layer = model.get_sublayer(name)
        for leaf, values in (("lora_A", tensors.a), ("lora_B", tensors.b), ("lora_magnitude", tensors.magnitude)):
            if leaf in layer._parameters and values is not None:
                fill(getattr(layer, leaf), cut(values, parts[f"{name}.{leaf}"]))
    return model


def open_adapter(family: Family, config: ModelConfig, directory: Path) -> Adapter:
    """Read an adapter from a directory in PEFT's or PaddleNLP's layout.

    Raises:
        DataError: the directory holds none, or a file is malformed.
        RefusedError: the adapter is of a kind that is not supported.
        WeightError: a tensor is damaged, missing, or fits no layer of the model.
    """
    if problems := check_lora_path(str(directory)):
        raise RefusedError(*problems)
    settings = read_settings(directory)
    is_peft = (directory / PEFT_CONFIG).is_file()
    layout: Layout = "hf" if is_peft else "paddlenlp"
    modules = _read_modules(_weight_file(directory, is_peft))
    if is_peft:
        modules = dict(_rescaled(modules, settings, directory / PEFT_CONFIG))
    wrong = [name for name, tensors in modules.items() if (tensors.magnitude is None) == settings.dora]
    if wrong:
        raise WeightError(f"{directory}: {wrong[0]}: use_dora in {PEFT_CONFIG} and the tensors say different things.")
    return Adapter(settings, to_logical(modules, family, config, layout, settings.rank))


def collect(model: CausalLM) -> dict[str, LoraTensors]:
    """Return the adapter of a model that has all of its values, by layer name; see ``put_together``."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return put_together(named, lambda name: np.asarray(named[name].numpy()))


def put_together(names: Collection[str], read: Callable[[str], np.ndarray]) -> dict[str, LoraTensors]:
    """Return adapters by layer name; one that began as singular values (PiSSA) with twice the rank.

    Args:
        names: of the parameters and buffers of a model with an adapter.
        read: returns the values of one of them.
    """
    layers = {}
    for name in (name.removesuffix(".lora_A") for name in names if name.endswith(".lora_A")):
        a, b = read(f"{name}.lora_A"), read(f"{name}.lora_B")
        if f"{name}.start_A" in names:
            a = np.concatenate([a, read(f"{name}.start_A")], axis=1)
            b = np.concatenate([b, -read(f"{name}.start_B")], axis=0)
        magnitude = f"{name}.lora_magnitude"
        layers[name] = LoraTensors(a, b, read(magnitude) if magnitude in names else None)
    return layers


def save_adapter(
    layers: Mapping[str, LoraTensors],
    family: Family,
    config: ModelConfig,
    settings: LoraSettings,
    directory: Path,
    *,
    base: str,
) -> None:
    """Write an adapter in PEFT's layout; the directory gets both files or none.

    Args:
        layers: by our layer names.
        family: knows the Hugging Face names.
        config: of the model.
        settings: of the adapter.
        directory: other files in it are left alone.
        base: the model that it belongs to, for people and for PEFT.

    Raises:
        RefusedError: PEFT's layout cannot hold it.
        OSError: the disk is full or cannot be written; the directory is as it was.
    """
    from safetensors.numpy import save_file

    modules = dict(to_foreign(layers, family, config))
    tensors = {key: np.ascontiguousarray(array) for key, array in _named(modules)}
    ranks = {name: found.rank for name, found in modules.items() if found.rank != settings.rank}
    fields = peft_fields(settings, _shortened(modules, family, config), ranks, base)
    fields["fan_in_fan_out"] = _stores_inputs_first(family, config)
    with staged_directory(directory) as staging:
        save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
        (staging / PEFT_CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _named(modules: Mapping[str, LoraTensors]) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensors in modules.items():
        yield f"{PREFIX}{name}.{A}.weight", tensors.a.T
        yield f"{PREFIX}{name}.{B}.weight", tensors.b.T
        if tensors.magnitude is not None:
            yield f"{PREFIX}{name}.{MAGNITUDE}", tensors.magnitude


def _shortened(modules: Mapping[str, LoraTensors], family: Family, config: ModelConfig) -> set[str]:
    """Return the last components of the names, where they mean the same modules, as people write it."""
    weight_map = family.weight_map(config, "hf")
    assert weight_map is not None, "a family states its names in the hf layout"
    rows = [name for rule in weight_map.rules for name in rule.theirs if name.endswith(".weight")]
    count = {name: config.num_layers if "{i}" in name else 1 for name in rows}
    of_model: Counter[str] = Counter()
    for name, times in count.items():
        of_model[name.removesuffix(".weight").rpartition(".")[2]] += times
    adapted = Counter(name.rpartition(".")[2] for name in modules)
    return {last if adapted[last] == of_model[last] else name for name in modules for last in [name.rpartition(".")[2]]}


def _stores_inputs_first(family: Family, config: ModelConfig) -> bool:
    """Whether Hugging Face's matrices are [in, out], as in GPT-2."""
    weight_map = family.weight_map(config, "hf")
    assert weight_map is not None, "a family states its names in the hf layout"
    return not any(rule.transpose for rule in weight_map.rules if "{i}" in rule.ours[0])


def _weight_file(directory: Path, is_peft: bool) -> Path:
    names = (WEIGHTS, "adapter_model.bin") if is_peft else (PADDLENLP_WEIGHTS,)
    for name in names:
        if (directory / name).is_file():
            return directory / name
    parts = sorted(directory.glob("lora_model_state.tp*.pdparams"))
    if parts:
        raise WeightError(f"{parts[0]}: is one rank's part of an adapter. Merge the parts with PaddleNLP first.")
    raise DataError(f"{directory}: lacks {' or '.join(names)} beside {PEFT_CONFIG if is_peft else PADDLENLP_CONFIG}.")


def _read_modules(path: Path) -> dict[str, LoraTensors]:
    """Return the adapters in a file by foreign module name, A as [in, r] and B as [r, out]."""
    source = open_tensors(path)
    is_peft = path.name != PADDLENLP_WEIGHTS
    found: dict[str, dict[str, np.ndarray]] = {}
    for key in source.entries:
        name = key.removeprefix(PREFIX)
        kind = next((kind for kind in (A, B, MAGNITUDE) if f".{kind}" in name), None)
        if kind is None:
            raise WeightError(f"{path}: {key}: is no part of a LoRA adapter.")
        array = to_float32(source.read(key), source.entries[key].dtype)
        module = name.partition(f".{kind}")[0]
        found.setdefault(module, {})[kind] = array.T if is_peft and array.ndim == 2 else array
    for module, parts in found.items():
        if A not in parts or B not in parts or parts[A].shape[1] != parts[B].shape[0]:
            raise WeightError(f"{path}: {module}: {A} and {B} are not both there with one rank.")
    return {
        module: LoraTensors(parts[A], parts[B], parts.get(MAGNITUDE)) for module, parts in found.items()
    }  # fmt: skip


def _rescaled(
    modules: Mapping[str, LoraTensors], settings: LoraSettings, path: Path
) -> Iterator[tuple[str, LoraTensors]]:
    """Bring modules with a scale of their own to the common one, by their B."""
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    ranks, alphas = fields.get("rank_pattern") or {}, fields.get("alpha_pattern") or {}
    for name, tensors in modules.items():
        rank, alpha = find_pattern(ranks, name) or settings.rank, find_pattern(alphas, name) or settings.alpha
        if rank != tensors.rank:
            raise WeightError(f"{path}: {name} has rank {tensors.rank} in the file and {rank} in the configuration.")
        own = LoraSettings(rank=int(rank), alpha=alpha, rslora=settings.rslora).scaling
        factor = own / settings.scaling
        b = tensors.b if abs(factor - 1) < 1e-9 else (tensors.b * factor).astype(np.float32)
        yield name, LoraTensors(tensors.a, b, tensors.magnitude)
