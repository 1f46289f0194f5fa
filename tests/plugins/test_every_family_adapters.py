"""What LoRA does on every installed family, third parties included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle

from llm_run.core.adapters.coded_base import coded_names
from llm_run.core.adapters.coded_linear import CodedLora, encode_layers
from llm_run.core.adapters.files import collect, new_adapter, open_adapter, put_adapter, save_adapter
from llm_run.core.adapters.lora import lora_layers, merge_in_place
from llm_run.core.adapters.merge_task import MergedTensors
from llm_run.core.adapters.probe import probe_logits
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.convert.logical import ModelTensors
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.ops import linear_cross_entropy
from llm_run.core.ops.nf4 import round_to_nf4
from llm_run.core.trainer.inputs import to_inputs

SETTINGS = LoraSettings(rank=4, alpha=8)


def rows(config: Any) -> Any:
    ids = np.random.default_rng(1).integers(3, config.vocab_size, [2, 24])
    samples = [
        Sample(row, np.append(row[1:], IGNORED), np.full(24, 1, dtype=np.int32), np.arange(24) < 6) for row in ids
    ]
    return to_inputs(collate(samples, config, 0), config)


def logits(model: Any, inputs: Any) -> np.ndarray:
    model.eval()
    with paddle.no_grad():
        return np.asarray(model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy())


def build(variant: Any) -> Any:
    paddle.seed(11)
    return variant.family.build_model(variant.config)


def train(model: Any, inputs: Any, steps: int) -> list[float]:
    model.train()
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.AdamW(learning_rate=1e-2, parameters=trained)
    losses = []
    for _ in range(steps):
        loss = linear_cross_entropy(model(inputs.ids_BS, inputs.positions, inputs.mask), model.head, inputs.labels_BS)[
            0
        ]
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    return losses


def test_a_lora_adapter_learns_and_the_model_stays_as_it_is(variant: Any) -> None:
    model, inputs = build(variant), rows(variant.config)
    before = {name: parameter.numpy().copy() for name, parameter in model.named_parameters()}
    new_adapter(model, variant.family, SETTINGS)
    losses = train(model, inputs, 24)
    assert losses[-1] < 0.95 * losses[0]
    after = dict(model.named_parameters())
    assert all(np.array_equal(values, after[name].numpy()) for name, values in before.items())
    assert {layer.rpartition(".")[2] for layer in lora_layers(model)} <= set(variant.family.card.lora_targets)


def test_an_adapter_learns_on_a_model_that_is_kept_as_codes(variant: Any) -> None:
    model, inputs = build(variant), rows(variant.config)
    names = coded_names(variant.family, variant.config)
    assert names is not None
    encode_layers(model, names, lambda weight_OI: round_to_nf4(weight_OI, 64))
    new_adapter(model, variant.family, SETTINGS)
    coded = {name for name, layer in lora_layers(model).items() if isinstance(layer, CodedLora)}
    assert coded and coded <= set(names)
    losses = train(model, inputs, 24)
    assert losses[-1] < 0.95 * losses[0]
    assert not any(name.removesuffix(".weight") in coded for name, _ in model.named_parameters())


def test_a_saved_adapter_loads_and_merges_to_the_same_logits(variant: Any, tmp_path: Path) -> None:
    model, inputs, family, config = build(variant), rows(variant.config), variant.family, variant.config
    base = ModelTensors(build(variant))
    new_adapter(model, family, SETTINGS)
    train(model, inputs, 3)
    expected = logits(model, inputs)
    save_adapter(collect(model), family, config, SETTINGS, tmp_path, base="tiny")
    adapter = open_adapter(family, config, tmp_path)
    assert {tensors.rank for tensors in adapter.layers.values()} == {SETTINGS.rank}
    loaded = put_adapter(build(variant), adapter)
    np.testing.assert_allclose(logits(loaded, inputs), expected, atol=1e-5, rtol=1e-5)
    merged = MergedTensors(base, adapter, keeps_dtype=True)
    for name, layer in lora_layers(loaded).items():
        np.testing.assert_allclose(merged.read(f"{name}.weight"), layer.merged(), atol=1e-6)
    np.testing.assert_allclose(logits(merge_in_place(loaded), inputs), expected, atol=5e-5, rtol=1e-4)
    probed = probe_logits(family, config, base, adapter)
    np.testing.assert_allclose(probe_logits(family, config, merged), probed, atol=5e-5, rtol=1e-4)
    assert np.abs(probe_logits(family, config, base) - probed).max() > 1e-3
