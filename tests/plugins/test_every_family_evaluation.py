"""What every installed family must do to be measured: its likelihoods are those of single rows, packed or padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.data.collate import collate
from llm_run.core.data.encoding import to_sample
from llm_run.core.data.packing import join, pack_best_fit
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.evaluation.likelihood import score_samples
from llm_run.core.ops import linear_cross_entropy
from llm_run.core.trainer.embedding_noise import EmbeddingNoise
from llm_run.core.trainer.evaluate import score_batches
from llm_run.core.trainer.inputs import to_inputs
from llm_run.core.trainer.passes import WholeModel

LENGTHS = (9, 21, 14, 6, 17, 11, 8)


@pytest.fixture
def records(variant: Any) -> list[Sample]:
    """Records of unequal length, each with a prompt of four tokens."""
    draw = np.random.default_rng(5).integers
    return [to_sample(draw(3, variant.config.vocab_size, [size]), np.arange(size) >= 4) for size in LENGTHS]


def by_hand(model: CausalLM, sample: Sample) -> float:
    """The log-probability of a sample's labels, alone in its batch, in float64."""
    inputs = to_inputs(collate([sample], model.config, 0), model.config)
    with paddle.no_grad():
        logits_SV = model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy()[0].astype(np.float64)
    logits_SV -= logits_SV.max(axis=-1, keepdims=True)
    logits_SV -= np.log(np.exp(logits_SV).sum(axis=-1, keepdims=True))
    asked = sample.labels != IGNORED
    return float(logits_SV[asked, sample.labels[asked]].sum())


def test_likelihoods_do_not_depend_on_batch_and_padding(model: CausalLM, records: list[Sample]) -> None:
    expected = [by_hand(model, record) for record in records]
    for batch_size in (1, 3, 7):
        found = score_samples(model, records, batch_size=batch_size, pad_id=0)
        assert [one.log_probability for one in found] == pytest.approx(expected, rel=1e-5)
        assert [one.num_tokens for one in found] == [size - 4 for size in LENGTHS]


def test_rows_packed_by_best_fit_equal_single_rows_in_loss_and_gradients(
    variant: Any, model: CausalLM, records: list[Sample]
) -> None:
    model.eval()  # dropout differs between a row and its parts
    packed = [join([records[record] for record in row]) for row in pack_best_fit([s - 1 for s in LENGTHS], 40)]
    assert len(packed) < len(records)

    def learn(rows: list[Sample]) -> tuple[float, list[np.ndarray]]:
        inputs = to_inputs(collate(rows, variant.config, 0), variant.config)
        hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
        loss_sum, count = linear_cross_entropy(hidden_BSH, model.head, inputs.labels_BS)
        (loss_sum / count).backward()
        gradients = [parameter.grad.numpy().copy() for parameter in model.parameters()]
        model.clear_gradients()
        return float((loss_sum / count).item()), gradients

    (loss, gradients), (expected_loss, expected) = learn(packed), learn(records)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * max(1.0, np.abs(theirs).max())


def test_noise_reaches_the_embedding_in_training_only(variant: Any, model: CausalLM, records: list[Sample]) -> None:
    batch = collate(records, variant.config, 0)
    before = score_batches(WholeModel(model), [batch])[0].loss_sum
    noise = EmbeddingNoise(model, variant.family, alpha=5.0, seed=1)
    noise.expect(batch, 0)
    assert score_batches(WholeModel(model), [batch])[0].loss_sum == before
    layers = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.Embedding)]
    for layer in layers:
        layer.train()  # and nothing else, so that no dropout is in the way
    with paddle.no_grad():
        assert score_batches(WholeModel(model), [batch])[0].loss_sum != before
