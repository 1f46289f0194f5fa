"""``--task merge_lora``: a model and an adapter in, one model directory out, compared with the two beforehand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..convert.dtypes import cast, to_float32
from ..errors import Problem, RefusedError, WeightError

if TYPE_CHECKING:
    from ..convert.logical import LogicalTensors
    from ..convert.save import ModelParts
    from ..run import Run
    from .files import Adapter

BOUNDS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference of a logit over the largest logit, by the dtype that the merged matrices are rounded to."""


def run(run: Run) -> int:
    """Merge, compare logits, and say where the result is.

    Matrices are merged one at a time while they are written, and compared block by block: the whole model is never in
    memory.

    Raises:
        RefusedError: the output folder is in use, or the adapter is of a kind that is not supported.
        WeightError: weights or adapter are damaged or do not fit; or the merged model's logits are too far from those
            of model and adapter. Nothing is left then.
        DataError: a file of the adapter or of the tokenizer is missing or malformed.
    """
    from dataclasses import replace

    from ..convert.save import KEEP
    from ..convert.task import open_parts, write_with_progress
    from .files import open_adapter

    source, target, path = _paths(run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RefusedError(Problem("--output_path", str(target), "is not an empty folder", "Give a new one."))
    adapter = open_adapter(run.family, run.model_config, path)
    parts = open_parts(run, source)
    keeps = run.config.convert.save_dtype == KEEP
    merged = MergedTensors(parts.tensors, adapter, keeps_dtype=keeps)
    folder = target.parent / f".{target.name}.merging"
    shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
    try:
        write_with_progress(run, replace(parts, tensors=merged, source=f"{source} with the adapter {path}"), folder)
        dtype = merged.rounded_to if keeps else run.config.convert.save_dtype
        difference = _compare(run, parts, adapter, folder, BOUNDS[dtype])
        _tell(folder / "report.json", adapter, difference)
        folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{target}: {len(adapter.layers)} layers merged; the largest logit difference to model and adapter is "
        f"{difference:.2g} of the largest logit (at most {BOUNDS[dtype]:g} is accepted). See report.json."
    )
    return 0


class MergedTensors:
    """The parameters of a model with an adapter added, each when it is read (``LogicalTensors``)."""

    def __init__(self, base: LogicalTensors, adapter: Adapter, *, keeps_dtype: bool) -> None:
        """Merge into ``base``; merged matrices are float32 unless ``keeps_dtype``."""
        self.shapes: Mapping[str, tuple[int, ...]] = base.shapes
        self._base, self._adapter, self._keeps = base, adapter, keeps_dtype
        for layer, tensors in adapter.layers.items():
            shape = base.shapes.get(f"{layer}.weight")
            if shape != (tensors.a.shape[0], tensors.b.shape[1]):
                found = [tensors.a.shape[0], tensors.b.shape[1]]
                raise WeightError(f"{layer}: the adapter is for a matrix of {found}, not of {list(shape or ())}.")

    @property
    def rounded_to(self) -> str:
        """The least exact dtype of the merged matrices."""
        found = {self.dtype(f"{layer}.weight") for layer in self._adapter.layers}
        return max(found, key=lambda dtype: BOUNDS[dtype])

    def dtype(self, name: str) -> str:
        """Return the type that a parameter is read in."""
        is_merged = name.removesuffix(".weight") in self._adapter.layers and name.endswith(".weight")
        return self._base.dtype(name) if self._keeps or not is_merged else "float32"

    def read(self, name: str) -> np.ndarray:
        """Return a parameter, merged where the adapter has something to add."""
        array = self._base.read(name)
        tensors = self._adapter.layers.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if tensors is None:
            return array
        settings = self._adapter.settings
        whole = to_float32(array, self._base.dtype(name)) + settings.scaling * (tensors.a @ tensors.b)
        if tensors.magnitude is not None:
            whole *= tensors.magnitude / np.sqrt(np.square(whole).sum(axis=0))
        return cast(whole.astype(np.float32), "float32", self.dtype(name))


def _paths(run: Run) -> tuple[Path, Path, Path]:
    source, target = run.config.model.model_name_or_path, run.config.convert.output_path
    path = run.config.adapter.lora_path
    assert source and target and path, "core/config/check.py asks for them"
    return Path(source), Path(target), Path(path)


def _compare(run: Run, parts: ModelParts, adapter: Adapter, merged: Path, bound: float) -> float:
    """Return the largest logit difference on a few random tokens, over the largest logit.

    Raises:
        WeightError: it is above the bound.
    """
    from ..convert.logical import open_logical
    from ..convert.source import open_tensors
    from .probe import probe_logits

    family, config = run.family, run.model_config
    expected = probe_logits(family, config, parts.tensors, adapter)
    found = probe_logits(family, config, open_logical(family, config, open_tensors(merged), parts.tensors.shapes))
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= bound:
        said = f"{difference:.2g} of the largest logit, and at most {bound:g} is accepted"
        raise WeightError(f"{merged}: logits differ from those of model and adapter by {said}. Nothing is kept.")
    return difference


def _tell(path: Path, adapter: Adapter, difference: float) -> None:
    """Add to the report what was merged and how well."""
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings = adapter.settings
    report["adapter"] = {
        "rank": settings.rank, "scaling": settings.scaling, "dora": settings.dora, "layers": len(adapter.layers),
        "max_logit_difference": difference,
    }  # fmt: skip
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
