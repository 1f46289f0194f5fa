"""A model out of a file: built without values, then filled one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from .dtypes import to_float32
from .logical import open_logical, parameters
from .quantized_source import QuantizedSource
from .source import open_tensors

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..registry.facts import ModelConfig
    from ..registry.family import Family


def build_empty(family: Family, config: ModelConfig) -> CausalLM:
    """Build a model whose parameters have shapes but neither memory nor values."""
    with paddle.LazyGuard():
        return family.build_model(config)


def load_model(
    family: Family,
    config: ModelConfig,
    path: Path,
    *,
    on_tensor: Callable[[str], None] | None = None,
    keep_integers: bool = False,
) -> CausalLM:
    """Build a family's model and fill it from a model directory or a weight file.

    Parameters are float32; 16-bit and quantized weights are widened. All names and shapes are checked before the
    first value is written, and beside the model only one tensor of the file is in memory.

    Args:
        family: builds the model and knows its foreign names.
        config: of the model.
        path: model directory, weight file, or GGUF file.
        on_tensor: told the name of each parameter that has been filled.
        keep_integers: compute with the integers of a quantized model (GPTQ, AWQ, W8A8), for inference; otherwise they
            are widened as well.

    Raises:
        WeightError: the file is damaged, unsafe, or does not fit the model.
    """
    source = open_tensors(path)
    if keep_integers and isinstance(source, QuantizedSource):
        from ..quant.load import load_integers

        return load_integers(family, config, source, on_tensor=on_tensor)
    source.check_floats()
    model = build_empty(family, config)
    targets = parameters(model)
    tensors = open_logical(family, config, source, {name: tuple(p.shape) for name, p in targets.items()})
    for name in tensors.shapes:
        fill(targets[name], to_float32(tensors.read(name), tensors.dtype(name)))
        if on_tensor is not None:
            on_tensor(name)
    return model


def fill(parameter: Any, values: np.ndarray) -> None:
    """Copy values into a parameter, on the CPU straight into its memory."""
    if not parameter._is_initialized():
        paddle.empty(parameter.shape, dtype=parameter.dtype)._share_buffer_to(parameter)
    if parameter.place.is_cpu_place():
        np.from_dlpack(parameter.detach())[...] = values
    else:
        parameter.set_value(np.ascontiguousarray(values))
