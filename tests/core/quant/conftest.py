"""A tiny llama, data for it, and its quantized directories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import ModelTensors
from llm_run.core.convert.save import ModelParts, write_model_directory
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.ops import AttentionMask
from llm_run.core.quant.directory import ModelPacking, QuantizedTensors
from llm_run.core.quant.methods import Method
from llm_run.core.quant.plan import quantization_config
from llm_run.core.quant.quantize import Quantized, quantize_by_blocks
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family


@pytest.fixture(scope="session")
def llama() -> Family:
    return load_family("llama")


@pytest.fixture
def model(llama: Family) -> CausalLM:
    """Random, with inputs of unequal size and norms that are not all 1, ready for inference."""
    paddle.seed(3)
    built = llama.build_model(llama.card.sizes["tiny"])
    random = np.random.default_rng(4)
    for name, parameter in built.named_parameters():
        if name.endswith("norm.weight"):
            parameter.set_value(np.exp(random.normal(0, 0.7, parameter.shape)).astype(np.float32))
        elif name.endswith("proj.weight"):
            parameter.set_value(random.normal(0, 0.15, parameter.shape).astype(np.float32))
    built.eval()
    return built


def rows(config: Any, count: int, seed: int) -> list[Batch]:
    """Batches of two rows of 24 and 19 tokens."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        samples = []
        for length in (24, 19):
            ids = random.integers(3, config.vocab_size, [length])
            labels = np.append(ids[1:], IGNORED)
            samples.append(Sample(ids, labels, np.ones(length, dtype=np.int32), np.arange(length) < 1))
        made.append(collate(samples, config, 0))
    return made


@pytest.fixture
def quantize(llama: Family, model: CausalLM) -> Callable[[Method], Quantized]:
    """Return a function that quantizes the model by a method."""
    config = model.config

    def act(method: Method) -> Quantized:
        return quantize_by_blocks(
            llama, config, ModelTensors(model), method,
            calibration=rows(config, 4, 0), evaluation=rows(config, 2, 7),
        )  # fmt: skip

    return act


@pytest.fixture
def write(llama: Family, tmp_path: Path) -> Callable[[Quantized, Method], Path]:
    """Return a function that writes a quantized model as a directory."""

    def act(quantized: Quantized, method: Method) -> Path:
        config = quantized.model.config
        stored = dict.fromkeys(ModelTensors(llama.build_model(config)).shapes, "float32")
        parts = ModelParts(
            family=llama, config=config, tensors=QuantizedTensors(quantized.model, stored), tokenizer=None,
            chat_template=None, source="a test",
            packing=ModelPacking(quantized.model, quantization_config(method, quantized.model)),
        )  # fmt: skip
        write_model_directory(parts, tmp_path / "quantized", dtype="keep", max_shard_gb=5.0)
        return tmp_path / "quantized"

    return act


@pytest.fixture(scope="session")
def logits() -> Callable[[CausalLM, np.ndarray], np.ndarray]:
    """Return a function that computes the logits of whole rows."""

    def compute(model: CausalLM, ids_BS: np.ndarray) -> np.ndarray:
        positions = model.config.positions(ids_BS, np.ones_like(ids_BS, dtype=np.int32), None)
        with paddle.no_grad():
            hidden = model(paddle.to_tensor(ids_BS), paddle.to_tensor(positions), AttentionMask())
            return np.asarray(model.head(hidden).numpy())

    return compute
