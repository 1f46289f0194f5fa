"""Directories of other programs: other orders of inputs, other versions, what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import load_model
from llm_run.core.errors import WeightError
from llm_run.core.quant.gptq import GptqSettings
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.layer import quantized_layers
from llm_run.core.quant.methods import Gptq, Method
from llm_run.core.quant.quantize import Quantized
from llm_run.core.quant.w8a8 import W8A8, Shift
from llm_run.core.registry.family import Family

IDS = np.random.default_rng(5).integers(3, 250, [2, 20])
Change = Callable[[dict[str, np.ndarray], dict[str, Any]], None]


@pytest.fixture
def gptq_directory(
    quantize: Callable[[Method], Quantized], write: Callable[[Quantized, Method], Path]
) -> tuple[Path, CausalLM]:
    method = Gptq(GridSpec(4, 16), GptqSettings())
    quantized = quantize(method)
    return write(quantized, method), quantized.model


def rewrite(directory: Path, change: Change) -> None:
    """Change the tensors and the quantization_config of a directory."""
    tensors = load_file(directory / "model.safetensors")
    fields = json.loads((directory / "config.json").read_text())
    change(tensors, fields["quantization_config"])
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(fields))


def packed(tensors: dict[str, np.ndarray]) -> list[str]:
    return [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]


def test_integers_stay_integers_or_are_widened_with_the_same_result(
    gptq_directory: tuple[Path, CausalLM], llama: Family, logits: Any
) -> None:
    directory, model = gptq_directory
    kept = load_model(llama, model.config, directory, keep_integers=True)
    widened = load_model(llama, model.config, directory)
    assert len(quantized_layers(kept)) == 7 * model.config.num_layers and not quantized_layers(widened)
    assert np.array_equal(logits(kept, IDS), logits(model, IDS))
    assert np.abs(logits(widened, IDS) - logits(model, IDS)).max() < 1e-5


def test_inputs_that_are_grouped_by_importance_are_read(
    gptq_directory: tuple[Path, CausalLM], llama: Family, logits: Any
) -> None:
    """desc_act: g_idx names the group of each input, and rows of qweight stay where their inputs are."""
    directory, model = gptq_directory
    random = np.random.default_rng(0)

    def regroup(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
        fields["desc_act"], fields["static_groups"] = True, False
        for prefix in packed(tensors):
            groups = tensors[f"{prefix}.g_idx"]
            new = random.permutation(groups.max() + 1)
            # The scales move to other places, and g_idx with them: nothing else changes.
            for part in ("scales", "qzeros"):
                moved = np.empty_like(tensors[f"{prefix}.{part}"])
                moved[new] = tensors[f"{prefix}.{part}"]
                tensors[f"{prefix}.{part}"] = moved
            tensors[f"{prefix}.g_idx"] = new[groups].astype(np.int32)

    rewrite(directory, regroup)
    kept = load_model(llama, model.config, directory, keep_integers=True)
    assert any(layer.quantized.order_I is not None for layer in quantized_layers(kept).values())
    assert np.abs(logits(kept, IDS) - logits(model, IDS)).max() < 1e-5
    assert np.abs(logits(load_model(llama, model.config, directory), IDS) - logits(model, IDS)).max() < 1e-5


def test_the_second_version_of_the_format_stores_zeros_as_they_are(
    gptq_directory: tuple[Path, CausalLM], llama: Family, logits: Any
) -> None:
    directory, model = gptq_directory

    def upgrade(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
        fields["checkpoint_format"] = "gptq_v2"
        for prefix in packed(tensors):
            tensors[f"{prefix}.qzeros"] = tensors[f"{prefix}.qzeros"] + np.int32(0x11111111)

    rewrite(directory, upgrade)
    kept = load_model(llama, model.config, directory, keep_integers=True)
    assert np.array_equal(logits(kept, IDS), logits(model, IDS))


def test_biases_of_zeros_that_the_model_does_not_have_are_left_out(
    gptq_directory: tuple[Path, CausalLM], llama: Family, logits: Any
) -> None:
    directory, model = gptq_directory

    def add(value: float) -> Change:
        def change(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
            for prefix in packed(tensors):
                tensors[f"{prefix}.bias"] = np.full(tensors[f"{prefix}.scales"].shape[1], value, np.float16)

        return change

    rewrite(directory, add(0.0))
    assert np.array_equal(
        logits(load_model(llama, model.config, directory, keep_integers=True), IDS), logits(model, IDS)
    )
    rewrite(directory, add(0.5))
    with pytest.raises(WeightError, match=r"bias .*is unknown"):
        load_model(llama, model.config, directory, keep_integers=True)


def drop_scales(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
    del tensors["model.layers.0.mlp.up_proj.scales"]


def cut_groups(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
    name = "model.layers.0.mlp.up_proj.g_idx"
    tensors[name] = tensors[name] + np.int32(1)


def other_method(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
    fields["quant_method"] = "bitsandbytes"


def other_bits(tensors: dict[str, np.ndarray], fields: dict[str, Any]) -> None:
    fields["bits"] = 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (drop_scales, r"up_proj\.scales is missing"),
        (cut_groups, r"up_proj: has inputs of groups that it has no scales for"),
        (other_method, r"quant_method: 'bitsandbytes' is not read\. Read are gptq, awq"),
        (other_bits, r"quantization_config\.bits: 3 is not supported\. Of GPTQ, 4 and 8"),
    ],
)
def test_what_cannot_be_read_is_named(
    gptq_directory: tuple[Path, CausalLM], llama: Family, change: Change, text: str
) -> None:
    directory, model = gptq_directory
    rewrite(directory, change)
    for keep in (True, False):
        with pytest.raises(WeightError, match=text):
            load_model(llama, model.config, directory, keep_integers=keep)


def test_adjusted_inputs_can_be_run_but_not_widened(
    quantize: Callable[[Method], Quantized], write: Callable[[Quantized, Method], Path], llama: Family, logits: Any
) -> None:
    method = W8A8(shift=Shift(all_linears=True))
    quantized = quantize(method)
    directory = write(quantized, method)
    kept = load_model(llama, quantized.model.config, directory, keep_integers=True)
    assert np.array_equal(logits(kept, IDS), logits(quantized.model, IDS))
    with pytest.raises(WeightError, match=r"input_shift: the inputs of this layer are adjusted"):
        load_model(llama, quantized.model.config, directory)
