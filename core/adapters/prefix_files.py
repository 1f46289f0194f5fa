"""A prefix on disk: PEFT's layout written and read, PaddleNLP's read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..convert.dtypes import to_float32
from ..convert.load import fill
from ..convert.publish import staged_directory
from ..convert.source import open_tensors
from ..errors import DataError, WeightError
from ..parallel.tensor.model import split_of
from .prefix import Prefix
from .prefix_settings import PADDLENLP_CONFIG, PEFT_CONFIG, peft_fields, read_prefix_settings

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..convert.source import TensorSource

WEIGHTS, PEFT_KEY = "adapter_model.safetensors", "prompt_embeddings"
PADDLENLP_WEIGHTS = "prefix_model_state.pdparams"


def put_prefix(model: CausalLM, directory: Path) -> CausalLM:
    """Set a prefix from a directory in PEFT's or PaddleNLP's layout before a model, whole or a rank's part.

    Raises:
        DataError: the directory holds none, or a file is malformed.
        RefusedError: it is of another kind or was made for another model.
        WeightError: a tensor is damaged, missing, or of another shape.
    """
    settings, config = read_prefix_settings(directory, model.config), model.config
    is_peft = (directory / PEFT_CONFIG).is_file()
    path = _weight_file(directory, is_peft)
    flat = (_read_peft if is_peft else _read_paddlenlp)(open_tensors(path), path)
    size = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    if flat.shape != (settings.num_tokens, size):
        raise WeightError(
            f"{path}: holds a prefix of {list(flat.shape)}; {settings.num_tokens} tokens of this model are "
            f"{[settings.num_tokens, size]} (2 x layers x key/value heads x head size)."
        )
    # PEFT has the key and the value of each layer side by side, PaddleNLP the keys of all layers first.
    order = (config.num_layers, 2) if is_peft else (2, config.num_layers)
    by_kind = flat.reshape(settings.num_tokens, *order, config.num_kv_heads, config.head_dim)
    keys_LPKD, values_LPKD = by_kind.transpose(*((2, 1) if is_peft else (1, 2)), 0, 3, 4)
    prefix = Prefix(config, settings)
    prefix.split = split_of(model)
    fill(prefix.keys, keys_LPKD)
    fill(prefix.values, values_LPKD)
    model.prefix = prefix
    model.config = replace(config, max_positions=config.max_positions - prefix.num_positions)
    return model


def save_prefix(
    model: CausalLM, directory: Path, *, base: str, read: Callable[[str], np.ndarray] | None = None
) -> None:
    """Write a model's prefix in PEFT's layout; the directory gets both files or none.

    Args:
        model: with a prefix.
        directory: other files in it are left alone.
        base: the model that it belongs to, for people and for PEFT.
        read: returns the values of a parameter by its name, where the model itself has not all of them.

    Raises:
        OSError: the disk is full or cannot be written; the directory is as it was.
    """
    from safetensors.numpy import save_file

    prefix = model.prefix
    assert prefix is not None
    if read is not None:
        whole = Prefix(prefix.config, prefix.settings)
        for name, parameter in whole.named_parameters():
            fill(parameter, read(f"prefix.{name}"))
        prefix = whole
    with paddle.no_grad():
        both_2LPKD = np.stack([side.numpy() for side in prefix.keys_and_values()])
    flat = both_2LPKD.transpose(2, 1, 0, 3, 4).reshape(prefix.settings.num_tokens, -1)
    fields = peft_fields(prefix.settings, prefix.config, base)
    with staged_directory(directory) as staging:
        save_file({PEFT_KEY: np.ascontiguousarray(flat)}, staging / WEIGHTS, metadata={"format": "pt"})
        (staging / PEFT_CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _weight_file(directory: Path, is_peft: bool) -> Path:
    names = (WEIGHTS, "adapter_model.bin") if is_peft else (PADDLENLP_WEIGHTS,)
    for name in names:
        if (directory / name).is_file():
            return directory / name
    beside = PEFT_CONFIG if is_peft else PADDLENLP_CONFIG
    raise DataError(f"{directory}: lacks {' or '.join(names)} beside {beside}.")


def _read_peft(source: TensorSource, path: Path) -> np.ndarray:
    if list(source.entries) != [PEFT_KEY]:
        raise WeightError(f"{path}: holds {sorted(source.entries)} instead of {PEFT_KEY} alone.")
    return to_float32(source.read(PEFT_KEY), source.entries[PEFT_KEY].dtype)


def _read_paddlenlp(source: TensorSource, path: Path) -> np.ndarray:
    """Return the prefix [P, 2 * L * K * D]; a projection is applied and forgotten."""
    names = {name.removeprefix("prefix_encoder."): name for name in source.entries}
    plain, projected = {"0.weight"}, {"0.weight", "1.weight", "1.bias", "3.weight", "3.bias"}
    if names.keys() not in (plain, projected):
        raise WeightError(f"{path}: holds {sorted(source.entries)}, which is no prefix encoder of PaddleNLP.")
    found = {ours: to_float32(source.read(name), source.entries[name].dtype) for ours, name in names.items()}
    if names.keys() == plain:
        return found["0.weight"]
    try:
        hidden = np.tanh(found["0.weight"] @ found["1.weight"] + found["1.bias"])
        flat: np.ndarray = hidden @ found["3.weight"] + found["3.bias"]
    except ValueError as error:
        raise WeightError(f"{path}: the matrices of the projection do not fit each other ({error}).") from error
    return flat
