from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED
from llm_run.core.trainer import evaluate as evaluate_module
from llm_run.core.trainer.evaluate import evaluate
from llm_run.core.trainer.randomness import seed_all


@pytest.fixture(scope="module")
def model(family: Any, model_config: Any) -> Any:
    seed_all(3)
    return family.build_model(model_config)


def by_hand(model: Any, source: Any) -> tuple[float, int, int]:
    """One row at a time, in float64 with NumPy: loss sum, correct tokens, supervised tokens."""
    loss, correct, count = 0.0, 0, 0
    for position in range(source.epoch_size):
        batch = collate([source.sample(position)], model.config, 0)
        from llm_run.core.ops.mask import AttentionMask

        hidden = model(paddle.to_tensor(batch.ids_BS), paddle.to_tensor(batch.positions), AttentionMask())
        logits = model.head(hidden).numpy()[0].astype(np.float64)
        for row, label in zip(logits, batch.labels_BS[0], strict=True):
            if label != IGNORED:
                loss += math.log(np.exp(row - row.max()).sum()) + row.max() - row[label]
                correct += int(row.argmax() == label)
                count += 1
    return loss, correct, count


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_loss_and_accuracy_do_not_depend_on_batch_size_and_padding(
    model: Any, rows: Any, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "CHUNK_TOKENS", 10)
    source = rows(epoch_size=7, ragged=True, prompt=3)
    loss, correct, count = by_hand(model, source)
    found = evaluate(model, source, batch_size=batch_size, pad_id=0)
    assert found is not None
    assert (found.num_correct, found.num_supervised, found.num_samples) == (correct, count, 7)
    assert found.loss_sum == pytest.approx(loss, rel=1e-6)
    assert found.metrics() == {
        "eval_loss": pytest.approx(loss / count, rel=1e-6), "eval_ppl": pytest.approx(math.exp(loss / count), rel=1e-5),
        "eval_accuracy": correct / count, "eval_tokens": count,
    }  # fmt: skip


def test_a_limit_on_batches_is_kept(model: Any, rows: Any) -> None:
    found = evaluate(model, rows(epoch_size=20), batch_size=3, pad_id=0, max_batches=2)
    assert found is not None and found.num_samples == 6


def test_dropout_is_off_and_the_mode_comes_back(model: Any, rows: Any) -> None:
    model.train()
    evaluate(model, rows(epoch_size=2), batch_size=2, pad_id=0)
    assert model.training
    model.eval()
    evaluate(model, rows(epoch_size=2), batch_size=2, pad_id=0)
    assert not model.training
