"""Prefix tuning of every installed family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_files import put_prefix, save_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.causal_lm import CausalLM
from llm_run.core.data.collate import collate
from llm_run.core.data.packing import join
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.engine.runner import BatchRunner
from llm_run.core.ops import linear_cross_entropy
from llm_run.core.trainer.inputs import to_inputs

PROMPT, PREFIX = 6, 5


def draw_ids(config: Any, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, config.vocab_size, [length])


def record(ids: np.ndarray) -> Sample:
    labels = np.append(ids[1:], IGNORED)
    labels[: PROMPT - 1] = IGNORED
    return Sample(ids, labels, np.ones(len(ids), np.int32), np.arange(len(ids)) < PROMPT)


def run(model: CausalLM, *rows: Sample) -> np.ndarray:
    """The logits of padded rows, as training computes them."""
    inputs = to_inputs(collate(rows, model.config, 0), model.config)
    with paddle.no_grad():
        return np.asarray(model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy())


@pytest.fixture(params=[None, 16], ids=["plain", "projected"])
def prefixed(request: pytest.FixtureRequest, new_model: CausalLM) -> CausalLM:
    """The model behind a random prefix that is large enough to matter."""
    apply_prefix(new_model, PrefixSettings(num_tokens=PREFIX, projection_size=request.param))
    for parameter in new_model.prefix.parameters():
        parameter.set_value(paddle.randn(parameter.shape))
    new_model.eval()
    return new_model


def test_a_prefix_learns_and_the_model_stays_as_it_is(variant: Any, model: CausalLM) -> None:
    before = {name: parameter.numpy().copy() for name, parameter in model.named_parameters()}
    apply_prefix(model, PrefixSettings(num_tokens=PREFIX))
    rows = [record(draw_ids(variant.config, 20, seed)) for seed in range(2)]
    inputs = to_inputs(collate(rows, variant.config, 0), variant.config)
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.AdamW(learning_rate=0.3, parameters=trained)
    losses = []
    for _ in range(20):
        hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
        loss_sum, num_supervised = linear_cross_entropy(hidden_BSH, model.head, inputs.labels_BS)
        (loss_sum / num_supervised).backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss_sum.item() / num_supervised)
    assert losses[-1] < losses[0] - 0.02
    assert len(trained) == 2
    assert all(np.array_equal(before[name], dict(model.named_parameters())[name].numpy()) for name in before)


def test_packed_rows_see_the_prefix_as_single_rows_do(variant: Any, prefixed: CausalLM) -> None:
    first, second = record(draw_ids(variant.config, 13, 2)), record(draw_ids(variant.config, 9, 3))
    both_SV = run(prefixed, join([first, second]))[0]
    assert np.abs(both_SV[:13] - run(prefixed, first)[0]).max() < 1e-5
    assert np.abs(both_SV[13:] - run(prefixed, second)[0]).max() < 1e-5


def test_generation_begins_with_the_prefix_as_training_does(variant: Any, prefixed: CausalLM) -> None:
    """Left-padded prompts of unequal length, token by token, against whole rows; a prefix changes the logits."""
    prompts = [draw_ids(variant.config, length, length).tolist() for length in (PROMPT, 11)]
    answers = [draw_ids(variant.config, 3, 50 + row).tolist() for row in range(2)]
    with paddle.no_grad():
        runner = BatchRunner(prefixed, prompts)
        steps = [runner.prefill()] + [runner.step([answers[row][step] for row in range(2)]) for step in range(3)]
    cached_BSV = np.stack([step_BV.numpy() for step_BV in steps], axis=1)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = np.array(prompt + answer)
        sample = Sample(ids, ids, np.ones(len(ids), np.int32), np.arange(len(ids)) < len(prompt))
        whole_SV = run(prefixed, sample)[0]
        assert np.abs(cached_BSV[row] - whole_SV[len(prompt) - 1 :]).max() < 1e-5
        prefix, prefixed.prefix = prefixed.prefix, None
        assert np.abs(run(prefixed, sample)[0] - whole_SV).max() > 1e-3
        prefixed.prefix = prefix


def test_a_saved_prefix_comes_back(variant: Any, prefixed: CausalLM, tmp_path: Path) -> None:
    sample = record(draw_ids(variant.config, 12, 4))
    expected = run(prefixed, sample)
    save_prefix(prefixed, tmp_path / "prefix", base="tiny")
    prefixed.prefix = None
    again = put_prefix(prefixed, tmp_path / "prefix")
    assert np.abs(run(again, sample) - expected).max() < 1e-6
    taken = 0 if variant.config.prefix_lm else PREFIX
    assert again.config.max_positions == variant.config.max_positions - taken
