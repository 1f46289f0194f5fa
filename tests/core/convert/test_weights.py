from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.convert.source import TensorEntry, TensorSource
from llm_run.core.convert.weights import choose_map, expand, plan_transfers
from llm_run.core.errors import WeightError
from llm_run.core.registry.facts import ModelConfig, WeightMap, WeightRule
from llm_run.core.registry.family import Family


class Memory(TensorSource):
    """Arrays that pose as a file."""

    def __init__(self, arrays: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
        self.path = Path("model")
        self.layouts = ("hf", "paddlenlp")
        self._arrays = arrays
        self.entries = {
            name: TensorEntry(name, array.shape, dtype, Path("model/x.safetensors")) for name, array in arrays.items()
        }

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]


MAP = WeightMap(
    rules=(
        WeightRule(("embed.weight",), ("wte",)),
        WeightRule(("blocks.{i}.w",), ("h.{i}.w",), transpose=True),
        WeightRule(("blocks.{i}.b",), ("h.{i}.b",)),
        WeightRule(("norm.weight",), ("ln",)),
    ),
    ignore=(r"h\.\d+\.inv_freq",),
    tied={"head": "wte"},
)
SHAPES = {
    "embed.weight": (4, 3), "blocks.0.w": (3, 2), "blocks.0.b": (2,), "blocks.1.w": (3, 2), "blocks.1.b": (2,),
    "norm.weight": (3,),
}  # fmt: skip


def _fitting() -> dict[str, np.ndarray]:
    shapes = {"wte": (4, 3), "h.0.w": (2, 3), "h.0.b": (2,), "h.1.w": (2, 3), "h.1.b": (2,), "ln": (3,)}
    return {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _plan(arrays: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
    plan_transfers(MAP, 2, Memory(arrays, dtype), SHAPES)


def test_rules_are_filled_in_layer_after_layer() -> None:
    theirs = [name for step in expand(MAP, 2) for name in step.theirs]
    assert theirs == ["wte", "h.0.w", "h.0.b", "h.1.w", "h.1.b", "ln"]


def test_a_fitting_file_passes_with_and_without_what_may_be_there() -> None:
    arrays = _fitting()
    _plan(arrays)
    _plan({**arrays, "h.0.inv_freq": np.zeros(1), "h.1.inv_freq": np.zeros(1), "head": arrays["wte"].copy()})


def test_a_missing_tensor_is_named() -> None:
    arrays = _fitting()
    del arrays["h.1.b"]
    with pytest.raises(WeightError, match=r"^model: 1 tensor does not fit the model: h\.1\.b is missing\.$"):
        _plan(arrays)


def test_an_unknown_tensor_is_named_with_its_file() -> None:
    with pytest.raises(WeightError, match=r"h\.2\.w \(in x\.safetensors\) is unknown"):
        _plan({**_fitting(), "h.2.w": np.zeros(1)})


def test_a_pattern_to_ignore_must_match_the_whole_name() -> None:
    with pytest.raises(WeightError, match=r"h\.0\.inv_freq\.weight \(in x\.safetensors\) is unknown"):
        _plan({**_fitting(), "h.0.inv_freq.weight": np.zeros(1)})


@pytest.mark.parametrize("shape", [(3, 2), (2, 4), (6,), (2, 3, 1), ()])
def test_a_wrong_shape_is_named_with_the_right_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightError, match=r"h\.0\.w \(in x\.safetensors\) has shape \[.*\] instead of \[2, 3\]"):
        _plan({**_fitting(), "h.0.w": np.zeros(shape)})


def test_integers_are_no_weights() -> None:
    with pytest.raises(WeightError, match=r"wte \(in x\.safetensors\) holds int8 instead of floating-point numbers"):
        _plan(_fitting(), "int8")


def test_all_misfits_are_counted_and_the_first_are_listed() -> None:
    with pytest.raises(WeightError) as caught:
        _plan({"alien": np.zeros(1), "wte": np.zeros((1, 3))})
    text = str(caught.value)
    assert "7 tensors do not fit the model" in text and "and 2 more" in text and "\n" not in text


def test_a_tied_copy_that_differs_in_one_bit_is_refused() -> None:
    arrays = _fitting()
    copy = arrays["wte"].copy()
    copy.view(np.uint32)[3, 2] ^= 1
    with pytest.raises(WeightError, match=r"head \(in x\.safetensors\) differs from wte, although"):
        _plan({**arrays, "head": copy})


def test_a_tied_copy_may_lie_transposed_and_hold_nan() -> None:
    arrays = _fitting()
    arrays["wte"][0, 0] = np.nan
    _plan({**arrays, "head": arrays["wte"].T.copy()})


@pytest.mark.parametrize("shapes", [{**SHAPES, "extra": (1,)}, {n: s for n, s in SHAPES.items() if n != "norm.weight"}])
def test_a_map_that_does_not_cover_the_model_is_the_familys_fault(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(AssertionError, match="does not cover these parameters exactly once"):
        plan_transfers(MAP, 2, Memory(_fitting()), shapes)


@pytest.mark.parametrize("layout", ["hf", "paddlenlp"])
def test_the_layout_is_recognised_by_its_names(layout: str, llama: Family, tiny: ModelConfig) -> None:
    expected = llama.weight_map(tiny, layout)  # type: ignore[arg-type]
    assert expected is not None
    names = [name for step in expand(expected, tiny.num_layers) for name in step.theirs]
    assert choose_map(llama, tiny, Memory({name: np.zeros(1) for name in names})) == expected


def test_a_family_without_names_for_a_format_says_so(tiny: ModelConfig) -> None:
    class Silent:
        class card:
            name = "silent"

        @staticmethod
        def weight_map(config: ModelConfig, layout: str) -> None:
            return None

    with pytest.raises(WeightError, match="model: silent states no weight names for hf or paddlenlp files"):
        choose_map(Silent(), tiny, Memory({}))  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["base.", ""])
def test_a_prefix_that_a_file_may_lack_is_found_out(prefix: str, tiny: ModelConfig) -> None:
    rules = (WeightRule(("norm.weight",), ("base.ln",)), WeightRule(("lm_head.weight",), ("head",)))
    stated = WeightMap(rules=rules, optional_prefix="base.", tied={"base.copy": "base.ln"})

    class Stating:
        @staticmethod
        def weight_map(config: ModelConfig, layout: str) -> WeightMap:
            return stated

    source = Memory({f"{prefix}ln": np.zeros(3), "head": np.zeros(1)})
    chosen = choose_map(Stating(), tiny, source)  # type: ignore[arg-type]
    assert [rule.theirs[0] for rule in chosen.rules] == [f"{prefix}ln", "head"]
    assert chosen.tied == {f"{prefix}copy": f"{prefix}ln"}
