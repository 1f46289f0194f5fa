"""Every installed family is quantized in every way, written, read back, and still predicts what it did."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import ModelTensors
from llm_run.core.convert.save import ModelParts, write_model_directory
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.errors import RefusedError
from llm_run.core.quant.directory import ModelPacking, QuantizedTensors
from llm_run.core.quant.gptq import GptqSettings
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.head import UntiedTensors, with_own_head
from llm_run.core.quant.layer import QuantizedLinear, quantized_layers
from llm_run.core.quant.methods import Awq, Gptq, Method, RoundToNearest
from llm_run.core.quant.plan import quantization_config
from llm_run.core.quant.quantize import Quantized, quantize_by_blocks, quantize_weights
from llm_run.core.quant.smooth import PiecewiseSearch
from llm_run.core.quant.w8a8 import W8A8, Shift, Smooth
from llm_run.core.trainer.inputs import to_inputs

METHODS: dict[str, Method] = {
    "wint8": RoundToNearest(GridSpec(8)),
    "awq": Awq(GridSpec(4, symmetric=False)),
    "w8a8": W8A8(),
    "w8a8-all": W8A8(
        shift=Shift(all_linears=True), smooth=Smooth(search=PiecewiseSearch(1), all_linears=True), per_token=True
    ),
}


@pytest.fixture
def model(new_model: CausalLM) -> CausalLM:
    """With small weights, so that rounding them changes a little and not all that follows."""
    new_model.eval()
    return new_model


def batches(config: Any, count: int, seed: int) -> list[Batch]:
    """Rows of unequal length, of which an answer is learnt."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = []
        for length in (24, 19):
            ids = random.integers(3, config.vocab_size, [length])
            labels = np.append(ids[1:], IGNORED)
            labels[:5] = IGNORED
            rows.append(Sample(ids, labels, np.ones(length, dtype=np.int32), np.arange(length) < 6))
        made.append(collate(rows, config, 0))
    return made


def quantize(variant: Any, model: CausalLM, method: Method) -> Quantized:
    return quantize_by_blocks(
        variant.family, variant.config, ModelTensors(model), method,
        calibration=batches(variant.config, 3, 0), evaluation=batches(variant.config, 1, 7),
    )  # fmt: skip


def write(variant: Any, quantized: Quantized, method: Method, directory: Path) -> None:
    stored = dict.fromkeys(ModelTensors(variant.family.build_model(variant.config)).shapes, "float32")
    parts = ModelParts(
        family=variant.family, config=variant.config, tensors=QuantizedTensors(quantized.model, stored),
        tokenizer=None, chat_template=None, source="a test",
        packing=ModelPacking(quantized.model, quantization_config(method, quantized.model)),
    )  # fmt: skip
    write_model_directory(parts, directory, dtype="keep", max_shard_gb=5.0)


def logits(model: CausalLM, batch: Batch) -> np.ndarray:
    inputs = to_inputs(batch, model.config)
    with paddle.no_grad():
        return np.asarray(model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy())


def check_directory(variant: Any, quantized: Quantized, method: Method, directory: Path) -> CausalLM:
    """Write a quantized model, and make sure that the one that is read computes the same with the same integers."""
    write(variant, quantized, method, directory)
    again = load_model(variant.family, variant.config, directory, keep_integers=True)
    again.eval()
    kept = quantized_layers(again)
    assert kept.keys() == quantized_layers(quantized.model).keys()
    batch = batches(variant.config, 1, 9)[0]
    assert np.array_equal(logits(again, batch), logits(quantized.model, batch))
    return again


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_ptq_directory_gives_the_logits_of_the_quantized_model(
    variant: Any, model: CausalLM, method: Method, tmp_path: Path
) -> None:
    quantized = quantize(variant, model, method)
    bound = 0.5 if isinstance(method, Awq) else 0.12
    assert quantized.comparison.max_logit_difference < bound * scale(variant, model)
    check_directory(variant, quantized, method, tmp_path / "quantized")


def scale(variant: Any, model: CausalLM) -> float:
    """How far logits spread: what a difference is held against."""
    return float(np.abs(logits(model, batches(variant.config, 1, 7)[0])).max())


def test_gptq_directory_gives_the_logits_of_the_quantized_model(variant: Any, model: CausalLM, tmp_path: Path) -> None:
    method = Gptq(GridSpec(4), GptqSettings())
    quantized = quantize(variant, model, method)
    assert quantized.comparison.max_logit_difference < 0.5 * scale(variant, model)
    check_directory(variant, quantized, method, tmp_path / "quantized")
    fields = json.loads((tmp_path / "quantized" / "config.json").read_text())["quantization_config"]
    assert (fields["quant_method"], fields["bits"]) == ("gptq", 4)


def test_the_head_is_quantized_with_the_rest_or_the_family_says_no(
    variant: Any, model: CausalLM, tmp_path: Path
) -> None:
    method = Gptq(GridSpec(4), GptqSettings())
    if variant.family.card.name in ("chatglm", "glm") or getattr(variant.config, "norm_head", False):
        with pytest.raises(RefusedError, match="states no head of this model that may be quantized"):
            with_own_head(variant.family, variant.config)
        return
    config = with_own_head(variant.family, variant.config)
    tensors: Any = ModelTensors(model)
    quantized = quantize_by_blocks(
        variant.family, config, UntiedTensors(tensors) if variant.config.tie_embeddings else tensors, method,
        calibration=batches(config, 3, 0), evaluation=batches(config, 1, 7), with_head=True,
    )  # fmt: skip
    assert "lm_head" in quantized_layers(quantized.model)
    assert quantized.layers[-1].name == "lm_head" and quantized.layers[-1].weight_error > 0
    assert 0 < quantized.comparison.max_logit_difference < 0.5 * scale(variant, model)
    check_directory(SimpleNamespace(family=variant.family, config=config), quantized, method, tmp_path / "quantized")


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_rounded_when_a_model_is_loaded(variant: Any, bits: int) -> None:
    paddle.seed(11)
    model = variant.family.build_model(variant.config)
    model.eval()
    batch = batches(variant.config, 1, 9)[0]
    before = logits(model, batch)
    quantize_weights(model, variant.family.quantizable_layers(variant.config), GridSpec(bits))
    after = logits(model, batch)
    assert any(isinstance(layer, QuantizedLinear) for layer in model.sublayers())
    assert 0 < np.abs(after - before).max() < (0.05 if bits == 8 else 0.5) * np.abs(before).max()


def test_scales_and_shifts_leave_what_a_model_computes(variant: Any, model: CausalLM) -> None:
    """Folding is exact: with weights and activations of 8 bits as fine as floats it would change nothing."""
    from llm_run.core.quant.block import BlockInWork
    from llm_run.core.quant.groups import groups_of_block

    batch = batches(variant.config, 1, 9)[0]
    before = logits(model, batch)
    random = np.random.default_rng(1)
    for index in range(variant.config.num_layers):
        groups = groups_of_block(variant.family.quantizable_layers(variant.config), index)
        work = BlockInWork(model, model.blocks[index], groups)
        for group in groups:
            size = work.linear(group.first).weight.shape[0]
            work.shift_inputs(group, random.normal(0, 0.2, size))
        for group in reversed(groups):
            size = work.linear(group.first).weight.shape[0]
            work.scale_inputs(group, work.tie(group, random.uniform(0.3, 3.0, size).astype(np.float32)))
    assert np.abs(logits(model, batch) - before).max() < 2e-5 * max(1.0, np.abs(before).max())
