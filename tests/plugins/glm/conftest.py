"""The recipe of the golden file and the NumPy reference, as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden(project: Path) -> ModuleType:
    """Configuration, weights and inputs of what PaddleNLP computed, and the ``FILE`` that holds its logits."""
    return load(project / "tests" / "golden" / "make_glm.py")


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The formulas in NumPy."""
    return load(Path(__file__).with_name("numpy_glm.py"))
