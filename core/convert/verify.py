"""Proof that a written model is the one it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .dtypes import cast
from .logical import LogicalTensors, open_logical
from .source import open_tensors

if TYPE_CHECKING:
    from ..registry.facts import ModelConfig
    from ..registry.family import Family


def check_round_trip(
    family: Family,
    config: ModelConfig,
    origin: LogicalTensors,
    directory: Path,
    dtypes: Mapping[str, str],
    on_checked: Callable[[str], None],
) -> dict[str, Any]:
    """Read a written directory back by our own names and compare every bit with its origin.

    Args:
        family: knows the foreign names.
        config: of the model.
        origin: what the directory was written from.
        directory: what was written.
        dtypes: what each parameter was written in; the origin is cast to it before it is compared.
        on_checked: told the name of each parameter that agrees.

    Returns:
        ``tensors`` (how many were compared), ``unchanged`` (how many kept their dtype), ``equal_bits``.

    Raises:
        WeightError: names the first parameter that differs.
    """
    written = open_logical(family, config, open_tensors(directory), origin.shapes)
    unchanged = 0
    for name in origin.shapes:
        dtype, came_in = written.dtype(name), origin.dtype(name)
        expected = cast(cast(origin.read(name), came_in, dtypes[name]), dtypes[name], dtype)
        if not np.array_equal(_bits(expected), _bits(written.read(name))):
            raise WeightError(f"{directory}: {name}: does not read back as it was written. Is the disk sound?")
        unchanged += dtype == came_in
        on_checked(name)
    return {"tensors": len(origin.shapes), "unchanged": unchanged, "equal_bits": True}


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
