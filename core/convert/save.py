"""A model in Hugging Face's layout: weights, configuration, tokenizer, chat template, and a report that proves them."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .dtypes import FLOATING, STORED, cast, to_float32
from .logical import LogicalTensors, ModelTensors
from .publish import staged_directory
from .safetensors_writer import Planned, write_shards
from .transforms import foreign_shapes, to_theirs
from .verify import check_round_trip, sha256
from .weights import Transfer, expand

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from .packing import Packing

KEEP = "keep"
"""In place of a dtype: write each tensor in the type that it came in."""


def _no_report(name: str) -> None:
    """Tell nobody that a tensor is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """Everything that goes into a model directory."""

    family: Family
    config: ModelConfig
    tensors: LogicalTensors
    tokenizer: Tokenizer | None
    chat_template: ChatTemplate | None
    source: str
    """Where the weights come from, for the report."""
    packing: Packing | None = None
    """Writes some of the matrices as integers; ``tensors`` then returns what those stand for, as float32."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be said in the report."""


def save_model_directory(
    model: CausalLM,
    family: Family,
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    directory: Path,
    *,
    dtype: str = "float32",
    max_shard_gb: float = 5.0,
    chat_template: ChatTemplate | None = None,
) -> None:
    """Write a model in memory as a Hugging Face model directory.

    Args:
        model: on the CPU or a GPU; read one parameter at a time.
        family: knows the foreign names.
        config: becomes ``config.json``.
        tokenizer: writes its own files; ``None``: none are written.
        directory: appears whole or not at all; other files in it are left alone.
        dtype: float32, bfloat16, float16, or ``keep`` for that of the parameters.
        max_shard_gb: largest weight file, in GB of 10^9 bytes.
        chat_template: written where the tokenizer's files bring none.

    Raises:
        WeightError: what was written does not read back as it was.
        OSError: the disk is full or not writable; the directory is as it was before.
    """
    parts = ModelParts(
        family=family, config=config, tensors=ModelTensors(model), tokenizer=tokenizer, chat_template=chat_template,
        source="a model in memory",
    )  # fmt: skip
    write_model_directory(parts, directory, dtype=dtype, max_shard_gb=max_shard_gb)


def write_model_directory(
    parts: ModelParts,
    directory: Path,
    *,
    dtype: str,
    max_shard_gb: float,
    on_written: Callable[[str], None] = _no_report,
    on_checked: Callable[[str], None] = _no_report,
) -> dict[str, Any]:
    """Write the directory, read it back, and return the report that lies in it as ``report.json``.

    Args:
        parts: what to write.
        directory: where it appears.
        dtype: of the weights, or ``keep``.
        max_shard_gb: largest weight file, in GB of 10^9 bytes.
        on_written: told the foreign name of each tensor that has been written.
        on_checked: told our name of each parameter that has been read back.

    Raises:
        WeightError: a value does not fit the dtype, or what was written does not read back as it was.
    """
    with staged_directory(directory) as staging:
        dtypes = _dtypes(parts, dtype)
        weights = _HuggingFaceWeights(parts, dtypes)
        write_companions(parts, staging, dtype=_commonest(weights.planned))
        write_shards(staging, weights.planned, weights.next_tensor(on_written), max_bytes=int(max_shard_gb * 1e9))
        checked = check_round_trip(parts.family, parts.config, parts.tensors, staging, dtypes, on_checked)
        return write_report(parts, staging, {"round_trip": checked})


def write_companions(parts: ModelParts, directory: Path, *, dtype: str) -> None:
    """Write tokenizer, chat template, ``config.json`` and ``generation_config.json``.

    Args:
        parts: what to write; its tensors are not.
        directory: exists.
        dtype: of the weights, as ``config.json`` says it.
    """
    if parts.tokenizer is not None:
        parts.tokenizer.save(directory)
    _write_chat_template(parts, directory)
    _write_json(directory / "config.json", _config_fields(parts, dtype))
    if parts.tokenizer is not None:
        _write_json(directory / "generation_config.json", _generation_fields(parts.tokenizer, parts.chat_template))


def write_report(parts: ModelParts, directory: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``report.json`` over all files of a directory, with their hashes, and return it.

    Args:
        parts: what was written.
        directory: holds every other file.
        facts: what was measured.
    """
    report = _report(parts, directory, facts)
    _write_json(directory / "report.json", report)
    return report


def _dtypes(parts: ModelParts, dtype: str) -> dict[str, str]:
    """Return the type that each parameter is written in; what integers stand for is float32 to the last bit."""
    dtypes = {name: parts.tensors.dtype(name) if dtype == KEEP else dtype for name in parts.tensors.shapes}
    if parts.packing is not None:
        weight_map = parts.family.weight_map(parts.config, "hf")
        assert weight_map is not None, "a family states its names in the hf layout"
        for step in expand(weight_map, parts.config.num_layers):
            if parts.packing.takes(step):
                dtypes.update(dict.fromkeys(step.ours, "float32"))
    return dtypes


class _HuggingFaceWeights:
    """The foreign tensors of a model, planned first and then made in that order."""

    def __init__(self, parts: ModelParts, dtypes: dict[str, str]) -> None:
        weight_map = parts.family.weight_map(parts.config, "hf")
        assert weight_map is not None, "a family states its names in the hf layout"
        self._tensors = parts.tensors
        self._packing = parts.packing
        self._dtypes = dtypes
        self._transfers = expand(weight_map, parts.config.num_layers)
        self.planned = [planned for step in self._transfers for planned in self._plan(step)]

    def _plan(self, step: Transfer) -> list[Planned]:
        if self._packing is not None and self._packing.takes(step):
            return self._packing.plan(step)
        shapes = foreign_shapes(step.rule, [self._tensors.shapes[name] for name in step.ours])
        dtype = self._joint_dtype(step)
        return [Planned(name, shape, dtype) for name, shape in zip(step.theirs, shapes, strict=True)]

    def _joint_dtype(self, step: Transfer) -> str:
        """Of several parameters that become one tensor: theirs where it is one, else the one that holds all."""
        found = {self._dtypes[name] for name in step.ours}
        return found.pop() if len(found) == 1 else "float32"

    def next_tensor(self, on_written: Callable[[str], None]) -> Callable[[str], np.ndarray]:
        """Return a function that is called with the planned names, in their order, and makes the tensors."""
        made = self._make_all()

        def read(name: str) -> np.ndarray:
            made_name, array = next(made)
            assert made_name == name, f"{name} was asked for where {made_name} follows"
            on_written(name)
            return array

        return read

    def _make_all(self) -> Iterator[tuple[str, np.ndarray]]:
        for step in self._transfers:
            if self._packing is not None and self._packing.takes(step):
                yield from self._packing.make(step)
                continue
            dtype = self._joint_dtype(step)
            ours = [self._read_as(name, dtype) for name in step.ours]
            yield from zip(step.theirs, to_theirs(step.rule, ours), strict=True)

    def _read_as(self, name: str, dtype: str) -> np.ndarray:
        """Read a parameter in the type that it is written in, which must have room for all its values."""
        array, came_in = self._tensors.read(name), self._tensors.dtype(name)
        written = cast(array, came_in, dtype)
        if dtype == "float16" != came_in and (np.isinf(written) & np.isfinite(to_float32(array, came_in))).any():
            raise WeightError(f"{name}: has values beyond 65504, the largest float16. Use --save_dtype bfloat16.")
        return written


def _commonest(planned: list[Planned]) -> str:
    """Return the dtype that most bytes have; norms are often kept in float32 beside 16-bit matrices."""
    counts: Counter[str] = Counter()
    for tensor in (tensor for tensor in planned if tensor.dtype in FLOATING):
        counts[tensor.dtype] += tensor.size // STORED[tensor.dtype].itemsize
    return counts.most_common(1)[0][0]


def _config_fields(parts: ModelParts, dtype: str) -> dict[str, Any]:
    """Return ``config.json``; the dtype stands under the names of transformers 4 and 5."""
    fields = {**parts.config.to_fields(), "dtype": dtype, "torch_dtype": dtype}
    if parts.packing is not None:
        fields.update(parts.packing.fields)
    if parts.tokenizer is not None:
        ids = {"bos_token_id": parts.tokenizer.bos_id, "eos_token_id": parts.tokenizer.eos_id}
        fields.update({name: number for name, number in ids.items() if number is not None})
        fields["pad_token_id"] = parts.tokenizer.pad_id
    return fields


def _generation_fields(tokenizer: Tokenizer, chat_template: ChatTemplate | None) -> dict[str, Any]:
    """Return ``generation_config.json``: what ends a text, chat turns included."""
    turns = () if chat_template is None else chat_template.stop
    stops = dict.fromkeys((*tokenizer.stop_ids, *(tokenizer.token_id(token) for token in turns)))
    ends = [number for number in stops if number is not None]
    fields: dict[str, Any] = {} if tokenizer.bos_id is None else {"bos_token_id": tokenizer.bos_id}
    if ends:
        fields["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    return {**fields, "pad_token_id": tokenizer.pad_id}


def _write_chat_template(parts: ModelParts, staging: Path) -> None:
    """Write the template as a file, which transformers prefers to one in ``tokenizer_config.json``."""
    if parts.chat_template is not None:
        (staging / "chat_template.jinja").write_text(parts.chat_template.jinja, encoding="utf-8")


def _report(parts: ModelParts, staging: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(staging.iterdir())}
    from paddle.version import full_version

    versions = {
        "llm-run": metadata.version("llm-run"),
        "paddle": full_version,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    plugin = {"package": parts.family.distribution, "version": parts.family.version}
    return {
        "source": parts.source,
        "family": parts.family.card.name,
        "plugin": plugin,
        "versions": versions,
        **facts,
        **parts.facts,
        "files": files,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
