from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.rank_tensors import RankTensors, open_ranks
from llm_run.core.convert.source import TensorEntry, TensorSource
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family

HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"


class Arrays(TensorSource):
    """Tensors in memory."""

    layouts = ("paddlenlp",)

    def __init__(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.path, self.arrays = Path(name), arrays
        self.entries = {key: TensorEntry(key, a.shape, str(a.dtype), self.path) for key, a in arrays.items()}

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]


def opened(family: Family, config: ModelConfig, change: Mapping[str, list[np.ndarray]]) -> RankTensors:
    """Cut a llama of numbers over two ranks, some of its tensors as the test says, and join it."""
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters(build_empty(family, config)).items()}
    weight_map = family.weight_map(config, "paddlenlp")
    assert weight_map is not None
    files: list[dict[str, np.ndarray]] = [{}, {}]
    for rule in weight_map.rules:
        for layer in range(config.num_layers) if "{i}" in rule.ours[0] else [0]:
            ours, theirs = (names[0].replace("{i}", str(layer)) for names in (rule.ours, rule.theirs))
            whole = np.arange(np.prod(shapes[ours]), dtype=np.float32).reshape(shapes[ours])
            axis = 0 if ours.endswith(("o_proj.weight", "down_proj.weight", EMBEDDING)) else -1
            parts = change.get(ours) or (np.split(whole, 2, axis) if "norm" not in ours else [whole, whole])
            for file, part in zip(files, parts, strict=True):
                file[theirs] = part
    return open_ranks(family, config, [Arrays(f"rank {rank}", file) for rank, file in enumerate(files)], shapes)


def test_a_vocabulary_that_does_not_divide_is_whole_on_every_rank(llama: Family, tiny: ModelConfig) -> None:
    config = replace(tiny, vocab_size=511)
    rows, columns = (np.random.default_rng(0).normal(size=size).astype("float32") for size in ((511, 64), (64, 511)))
    joined = opened(llama, config, {EMBEDDING: [rows, rows], HEAD: [columns, columns]})
    assert np.array_equal(joined.read(EMBEDDING), rows) and np.array_equal(joined.read(HEAD), columns)


def test_parts_lie_side_by_side_in_the_order_of_ranks(llama: Family, tiny: ModelConfig) -> None:
    joined = opened(llama, tiny, {})
    for name, shape in joined.shapes.items():
        assert np.array_equal(joined.read(name), np.arange(np.prod(shape), dtype=np.float32).reshape(shape)), name


def test_ranks_with_other_dtypes_are_joined_in_float32(llama: Family, tiny: ModelConfig) -> None:
    halves = np.split(np.linspace(-1, 1, 512 * 64, dtype=np.float32).reshape(512, 64), 2)
    joined = opened(llama, tiny, {EMBEDDING: [halves[0].astype(np.float16), halves[1]]})
    assert joined.dtype(EMBEDDING) == "float32" and joined.dtype(HEAD) == "float32"
    assert np.array_equal(joined.read(EMBEDDING)[:256], halves[0].astype(np.float16).astype(np.float32))


def test_not_a_number_on_every_rank_is_no_difference(llama: Family, tiny: ModelConfig) -> None:
    norm = np.full(64, np.nan, np.float32)
    joined = opened(llama, tiny, {"norm.weight": [norm, norm.copy()]})
    assert np.isnan(joined.read("norm.weight")).all() and joined.facts["largest_difference_of_copies"] == 0.0


@pytest.mark.parametrize("scale", [1 + 1e-3, 1.0])
def test_the_largest_difference_of_copies_is_noted(scale: float, llama: Family, tiny: ModelConfig) -> None:
    norm = np.ones(64, np.float32)
    joined = opened(llama, tiny, {"norm.weight": [norm, norm * np.float32(scale)]})
    joined.read("norm.weight")
    assert joined.facts["largest_difference_of_copies"] == pytest.approx(scale - 1, rel=1e-3)
