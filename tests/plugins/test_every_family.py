"""What every installed family must do, third parties included: each tiny variant is built, trained, run and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_ours, to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.engine.decode import generate
from llm_run.core.engine.request import TokenEvent
from llm_run.core.engine.runner import BatchRunner
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.ops import linear_cross_entropy
from llm_run.core.registry.facts import Layout
from llm_run.core.trainer.inputs import to_inputs

PROMPT = 6
"""Tokens of a record that a prefix language model sees both ways."""
Held = list[tuple[CausalLM, float]]
"""Models, and by how much their logits may differ."""


def draw_ids(config: Any, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, config.vocab_size, [length])


def record(ids: np.ndarray, *, segment: int = 1) -> Sample:
    """A prompt, and an answer that is learnt."""
    labels = np.append(ids[1:], IGNORED)
    labels[: PROMPT - 1] = IGNORED
    return Sample(ids, labels, np.full(len(ids), segment, dtype=np.int32), np.arange(len(ids)) < PROMPT)


def packed(first: Sample, second: Sample) -> Sample:
    fields = ("ids", "labels", "segments", "prefix")
    return Sample(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in fields))


def run(model: CausalLM, *rows: Sample) -> np.ndarray:
    """The logits of padded rows, as training computes them."""
    inputs = to_inputs(collate(rows, model.config, 0), model.config)
    with paddle.no_grad():
        return np.asarray(model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_logits_are_finite_and_cover_the_vocabulary(variant: Any, model: CausalLM) -> None:
    logits_BSV = run(model, record(draw_ids(variant.config, 12, 0)))
    assert logits_BSV.shape == (1, 12, variant.config.vocab_size)
    assert np.isfinite(logits_BSV).all()


def test_the_same_seed_builds_the_same_weights(variant: Any) -> None:
    def build() -> dict[str, Any]:
        paddle.seed(5)
        return parameters(variant.family.build_model(variant.config))

    first, second = build(), build()
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


def test_loss_falls_in_20_steps(variant: Any, new_model: CausalLM) -> None:
    rows = [record(draw_ids(variant.config, 32, seed)) for seed in range(4)]
    inputs, model = to_inputs(collate(rows, variant.config, 0), variant.config), new_model
    model.train()
    optimizer = paddle.optimizer.AdamW(learning_rate=3e-3, parameters=model.parameters())
    losses = []
    for _ in range(20):
        hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
        loss_sum, num_supervised = linear_cross_entropy(hidden_BSH, model.head, inputs.labels_BS)
        loss = loss_sum / num_supervised
        loss.backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not missing
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(np.log(variant.config.vocab_size), rel=0.1)
    assert losses[-1] < 0.8 * losses[0]


def test_cache_equals_no_cache(variant: Any, held_to: Held) -> None:
    ids = draw_ids(variant.config, PROMPT + 8, 1)
    for model, tolerance in held_to:
        whole_SV = run(model, record(ids))[0]
        with paddle.no_grad():
            runner = BatchRunner(model, [ids[:PROMPT].tolist()])
            steps = [runner.prefill()] + [runner.step([token]) for token in ids[PROMPT:].tolist()]
        cached_SV = np.concatenate([step_BV.numpy() for step_BV in steps])
        assert np.abs(cached_SV - whole_SV[PROMPT - 1 :]).max() < tolerance


def test_left_padded_batch_equals_singles(variant: Any, held_to: Held) -> None:
    prompts = [draw_ids(variant.config, length, length).tolist() for length in (4, 11, 7)]
    answers = [draw_ids(variant.config, 3, 50 + row).tolist() for row in range(3)]

    def decode(model: CausalLM, rows: list[int]) -> np.ndarray:
        with paddle.no_grad():
            runner = BatchRunner(model, [prompts[row] for row in rows])
            steps = [runner.prefill()] + [runner.step([answers[row][step] for row in rows]) for step in range(3)]
        return np.stack([step_BV.numpy() for step_BV in steps], axis=1)

    for model, tolerance in held_to:
        batch_BSV = decode(model, [0, 1, 2])
        for row in range(3):
            assert np.abs(batch_BSV[row] - decode(model, [row])[0]).max() < tolerance


def test_streamed_tokens_are_those_of_recomputing_every_step(variant: Any, model: CausalLM) -> None:
    ids = draw_ids(variant.config, PROMPT, 6)
    events: list[TokenEvent] = []
    with paddle.no_grad():
        generate(model, [ids.tolist()], SamplingSettings(max_new_tokens=5), on_token=events.append)
    for event in events:
        assert event.token == run(model, record(ids))[0, -1].argmax()
        ids = np.append(ids, event.token)


def test_beam_search_finds_the_likeliest_pair_of_tokens(variant: Any, model: CausalLM) -> None:
    """With as many beams as tokens the search is exhaustive, so it must find what trying all pairs finds."""
    vocab_size, ids = variant.config.vocab_size, draw_ids(variant.config, PROMPT, 7)
    settings = SamplingSettings(strategy="beam_search", num_beams=vocab_size, max_new_tokens=2)
    with paddle.no_grad():
        answer = generate(model, [ids.tolist()], settings)[0].ids
    after_one_VV = run(model, *(record(np.append(ids, token)) for token in range(vocab_size)))[:, -1]
    first_V = run(model, record(ids))[0, -1]
    scores_VV = log_softmax(first_V)[:, None] + log_softmax(after_one_VV)
    assert scores_VV[answer[0], answer[1]] > scores_VV.max() - 1e-5


def test_packed_rows_equal_single_rows(variant: Any, held_to: Held) -> None:
    first, second = draw_ids(variant.config, 13, 2), draw_ids(variant.config, 9, 3)
    for model, tolerance in held_to:
        both_SV = run(model, packed(record(first), record(second, segment=2)))[0]
        assert np.abs(both_SV[:13] - run(model, record(first))[0]).max() < tolerance
        assert np.abs(both_SV[13:] - run(model, record(second))[0]).max() < tolerance


def test_a_token_is_not_seen_before_its_turn(variant: Any, model: CausalLM) -> None:
    ids = draw_ids(variant.config, 14, 4)
    changed = ids.copy()
    changed[10] = (ids[10] + 1) % variant.config.vocab_size
    before, after = run(model, record(ids))[0], run(model, record(changed))[0]
    assert np.abs(before[:10] - after[:10]).max() == 0.0
    assert np.abs(before[10:] - after[10:]).max() > 1e-4


def test_saved_and_loaded_is_equal_to_the_bit(variant: Any, model: CausalLM, tmp_path: Path) -> None:
    save_model_directory(model, variant.family, variant.config, None, tmp_path / "saved")
    again = parameters(load_model(variant.family, variant.config, tmp_path / "saved"))
    for name, parameter in parameters(model).items():
        assert np.array_equal(again[name].numpy(), parameter.numpy()), name


@pytest.mark.parametrize("layout", ["hf", "paddlenlp", "gguf"])
def test_converted_out_and_back_is_equal_to_the_bit(variant: Any, model: CausalLM, layout: Layout) -> None:
    weight_map = variant.family.weight_map(variant.config, layout)
    if weight_map is None:
        pytest.skip(f"the family has no names for {layout}")
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    foreign, again = {}, {}
    for step in expand(weight_map, variant.config.num_layers):
        tensors = to_theirs(step.rule, [ours[name] for name in step.ours])
        foreign.update(zip(step.theirs, tensors, strict=True))
        again.update(zip(step.ours, to_ours(step.rule, tensors), strict=True))
    assert again.keys() == ours.keys()
    assert all(np.array_equal(again[name], ours[name]) for name in ours)
    assert sum(tensor.size for tensor in foreign.values()) == sum(array.size for array in ours.values())
