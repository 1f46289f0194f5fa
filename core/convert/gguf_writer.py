"""A model as one GGUF file, whole or in 8- or 4-bit blocks, written tensor by tensor and read back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Problem, RefusedError, WeightError
from .dtypes import cast, to_float32
from .fields import read_fields
from .gguf_metadata import choose_architecture, describe_shape, rotary_factors
from .gguf_tensors import GgufFile, require_gguf
from .gguf_tokenizer import TEMPLATE, load_gguf_tokenizer
from .gguf_words import describe_tokenizer
from .publish import staged_file
from .transforms import foreign_shapes, to_theirs
from .weights import Transfer, expand

if TYPE_CHECKING:
    from ..registry.facts import ModelConfig
    from .save import ModelParts

BLOCKS = {"q8_0": "Q8_0", "q4_0": "Q4_0"}
"""Values of ``--save_dtype`` that only GGUF files have, and the format's names of them."""
BLOCK_SIZE = 32
"""Weights that share a scale in both."""
VOCABULARY = ("token_embd.weight", "output.weight")
"""In 8 bits where the rest is in 4: a head in 4 bits costs more than it saves."""
NEVER_ROUNDED = ("position_embd.weight", "rope_freqs.weight")
PROBES = (
    "The quick brown fox didn't jump over 13 lazy dogs.",
    "  Spaces,\ttabs\n\nand lines; x = [1, 2.5]  # code",
    "Grüße aus München, 春江潮水连海平. Привет! 🙂",
)
"""Texts that the written tokenizer must cut as the original does."""
NOT_IN_HEADERS = ("init_std",)
"""Fields of a shape that no number of the model depends on."""


def write_gguf(parts: ModelParts, target: Path, *, dtype: str, on_written: Callable[[str], None]) -> dict[str, Any]:
    """Write a model as a GGUF file, which appears whole or not at all, and return what is to be said of it.

    Args:
        parts: the model, its tokenizer and template.
        target: the file.
        dtype: float32, bfloat16, float16, ``keep``, ``q8_0`` or ``q4_0``. Vectors are float32 whatever it is.
        on_written: told the name of each tensor.

    Raises:
        RefusedError: GGUF cannot hold the family, its shape or its tokenizer.
        WeightError: what was written does not read back as it was.
    """
    gguf = require_gguf()
    architecture = choose_architecture(parts.family, parts.config)
    weight_map = None if architecture is None else parts.family.weight_map(parts.config, "gguf")
    if architecture is None or weight_map is None or parts.tokenizer is None:
        lacking = "no tokenizer was found" if weight_map is not None else f"it has no {parts.family.card.name}"
        raise RefusedError(Problem("--output_path", str(target), f"cannot be a GGUF file: {lacking}"))
    steps = expand(weight_map, parts.config.num_layers)
    kinds = {
        name: _kind(gguf, parts, step, name, shape, dtype) for step in steps for name, shape in _planned(parts, step)
    }
    with staged_file(target) as staging:
        writer = gguf.GGUFWriter(staging, architecture)
        _add_keys(writer, describe_shape(parts.config, architecture))
        _add_keys(writer, describe_tokenizer(parts.tokenizer, parts.config.vocab_size))
        if parts.chat_template is not None:
            writer.add_string(TEMPLATE, parts.chat_template.jinja)
        extra = rotary_factors(parts.config)
        for step in steps:
            for name, shape in _planned(parts, step):
                _announce(gguf, writer, name, shape, kinds[name])
        for name, array in extra.items():
            _announce(gguf, writer, name, array.shape, gguf.GGMLQuantizationType.F32)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, array in _made(parts, steps, kinds):
            writer.write_tensor_data(_encode(gguf, array, kinds[name]))
            on_written(name)
        for array in extra.values():
            writer.write_tensor_data(array)
        writer.close()
        _check(gguf, parts, staging, steps, kinds)
        size = staging.stat().st_size
    used = sorted({kind.name for kind in kinds.values()})
    return {"architecture": architecture, "tensors": len(kinds), "types": used, "bytes": size}


def _planned(parts: ModelParts, step: Transfer) -> list[tuple[str, tuple[int, ...]]]:
    shapes = foreign_shapes(step.rule, [parts.tensors.shapes[name] for name in step.ours])
    return list(zip(step.theirs, shapes, strict=True))


def _made(parts: ModelParts, steps: list[Transfer], kinds: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the foreign tensors as float32, in the order of the plan."""
    for step in steps:
        ours = [to_float32(parts.tensors.read(name), parts.tensors.dtype(name)) for name in step.ours]
        yield from zip(step.theirs, to_theirs(step.rule, ours), strict=True)


def _kind(gguf: Any, parts: ModelParts, step: Transfer, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Return the type that a tensor is stored in."""
    types = gguf.GGMLQuantizationType
    if len(shape) < 2 or name in NEVER_ROUNDED:
        return types.F32
    if dtype in BLOCKS:
        if shape[-1] % BLOCK_SIZE:
            return types.F16
        return types.Q8_0 if name in VOCABULARY else types[BLOCKS[dtype]]
    found = {parts.tensors.dtype(ours) for ours in step.ours}
    stored = dtype if dtype != "keep" else found.pop() if len(found) == 1 else "float32"
    return {"float32": types.F32, "float16": types.F16, "bfloat16": types.BF16}.get(stored, types.F32)


def _announce(gguf: Any, writer: Any, name: str, shape: tuple[int, ...], kind: Any) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    num_bytes = math.prod(shape) // block * size
    stored = (*shape[:-1], shape[-1] // block * size)
    writer.add_tensor_info(name, stored, np.dtype(np.uint8), num_bytes, raw_dtype=kind)


def _encode(gguf: Any, array: np.ndarray, kind: Any) -> np.ndarray:
    array = np.ascontiguousarray(array, dtype=np.float32)
    if kind.name == "F32":
        return array
    if kind.name in ("F16", "BF16"):
        return cast(array, "float32", "float16" if kind.name == "F16" else "bfloat16")
    encoded: np.ndarray = gguf.quants.quantize(array, kind)
    return encoded


def _add_keys(writer: Any, keys: Mapping[str, Any]) -> None:
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def _check(gguf: Any, parts: ModelParts, file: Path, steps: list[Transfer], kinds: Mapping[str, Any]) -> None:
    """Read the file back: the shape, the tokenizer, and every tensor."""
    _check_shape(parts, parts.family.read_config(read_fields(file)))
    assert parts.tokenizer is not None
    again = load_gguf_tokenizer(file)
    for text in PROBES:
        if again.encode(text) != parts.tokenizer.encode(text):
            reason = f"GGUF files cannot hold this tokenizer: they would cut {text[:20]!r} in other places"
            remedy = "Convert to a Hugging Face directory instead."
            raise RefusedError(Problem("--output_path", "", reason, remedy))
    written = GgufFile(file)
    for name, array in _made(parts, steps, kinds):
        found = to_float32(written.read(name), written.entries[name].dtype)
        encoded = _encode(gguf, array, kinds[name])
        expected = _decode(gguf, encoded, kinds[name]).reshape(found.shape)
        if not np.array_equal(found, expected):
            raise WeightError(f"{file}: {name}: does not read back as it was written. Is the disk sound?")


def _decode(gguf: Any, encoded: np.ndarray, kind: Any) -> np.ndarray:
    if kind.name == "F32":
        return encoded
    if kind.name in ("F16", "BF16"):
        return to_float32(encoded, "float16" if kind.name == "F16" else "bfloat16")
    decoded: np.ndarray = gguf.quants.dequantize(encoded, kind)
    return decoded


def _check_shape(parts: ModelParts, again: ModelConfig) -> None:
    """Make sure that the header says all that the numbers depend on."""
    ours, theirs = dataclasses.asdict(parts.config), dataclasses.asdict(again)
    lost = [
        name
        for name, value in ours.items()
        if value != theirs[name] and name not in NOT_IN_HEADERS and not name.endswith("dropout")
    ]
    if lost:
        reason = f"a GGUF header cannot say {', '.join(f'{name} {ours[name]!r}' for name in lost)} of this model"
        remedy = "Convert to a Hugging Face directory instead."
        raise RefusedError(Problem("--output_path", "", reason, remedy))
