"""Preference tuning as an objective: log-probabilities, invariance to cutting, the reference, evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.collate import collate
from llm_run.core.data.packing import join
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.parallel.data_parallel import Replicated
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.evaluate import evaluate
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.passes import WholeModel, final_hidden
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.preference import Preference, answer_scores, frozen
from llm_run.core.trainer.preference_loss import PreferenceLoss
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.step import MicroBatch, TrainStep

PROMPT = 4
OPTIONS = TrainingOptions(learning_rate=1e-3, adam_epsilon=1e-3)
"""With an epsilon that does not blow rounding errors of small gradients up."""


class Pairs:
    """Pairs of answers of random lengths to the same random prompt; the chosen one counts upwards, the other down."""

    fingerprint = "pairs"

    def __init__(self, epoch_size: int = 8, per_row: int = 1) -> None:
        self.epoch_size, self.per_row = epoch_size, per_row

    def sample(self, position: int) -> Sample:
        first = position * self.per_row
        return join([side for place in range(first, first + self.per_row) for side in self._pair(place)])

    def _pair(self, place: int) -> list[Sample]:
        random = np.random.default_rng(place)
        prompt = random.integers(3, 60, [PROMPT])
        answers = (prompt[-1] + sign * np.arange(1, random.integers(3, 9)) for sign in (1, -1))
        return [self._side(np.concatenate([prompt, answer % 60])) for answer in answers]

    def _side(self, ids: np.ndarray) -> Sample:
        labels = ids[1:].copy()
        labels[: PROMPT - 1] = IGNORED
        size = len(labels)
        return Sample(ids[:-1], labels, np.ones(size, np.int32), np.arange(size) < PROMPT)


def built(family: Any, config: Any, seed: int = 7) -> CausalLM:
    seed_all(seed)
    model: CausalLM = family.build_model(config)
    return model


def stepper(family: Any, config: Any, loss: PreferenceLoss) -> TrainStep:
    model = built(family, config)
    holding = Replicated(model, Mesh())
    objective = Preference(loss, frozen(built(family, config, seed=8)) if loss.needs_reference else None)
    return TrainStep(
        model, AdamW(holding, OPTIONS), Precision(OPTIONS), Agreement(Mesh(), holding.parts, {}), objective, seed=7
    )


def cut(source: Pairs, config: Any, size: int) -> list[MicroBatch]:
    starts = range(0, source.epoch_size, size)
    return [
        MicroBatch(collate([source.sample(place) for place in range(start, start + size)], config, 0), start)
        for start in starts
    ]


def losses(objective: Preference, model: CausalLM, batches: list[Batch]) -> list[Any]:
    """What the objective says of the micro-batches of one global batch."""
    with paddle.no_grad():
        found = objective.losses(WholeModel(model), batches, list)
        return [loss(final_hidden(model, batch)) for loss, batch in zip(found, batches, strict=True)]


def weights(model: CausalLM) -> dict[str, np.ndarray]:
    return {name: parameter.numpy().copy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("averaged", [False, True], ids=["sums", "means"])
def test_log_probabilities_of_answers_are_those_that_trl_computes(project: Path, averaged: bool) -> None:
    """A model whose logits are given; TRL's are in tests/golden/dpo.npz."""
    with np.load(project / "tests" / "golden" / "dpo.npz") as golden:
        logits, labels, expected = golden["logits"], golden["labels"], golden["means" if averaged else "sums"]
    rows, length, _ = logits.shape

    class Given(CausalLM):
        def head(self, hidden: Any) -> Any:
            return hidden

    # The three rows are the answers 1, 2, 1 of two rows; the second pair lacks its other half, which is made up.
    order = [0, 1, 2, 2]
    flat = logits[order].reshape(2, 2 * length, -1)
    batch = Batch(
        ids_BS=np.zeros([2, 2 * length], np.int64), labels_BS=labels[order].reshape(2, -1),
        segments_BS=np.tile(np.repeat([1, 2], length), [2, 1]).astype(np.int32),
        prefix_BS=np.zeros([2, 2 * length], bool), positions=np.zeros([2, 2 * length], np.int64),
    )  # fmt: skip
    with paddle.no_grad():
        found = answer_scores(Given(), paddle.to_tensor(flat), batch, averaged=averaged).numpy().reshape(-1)
    assert rows == 3 and np.abs(found - expected[order]).max() < 1e-5


KINDS = ("sigmoid", "ipo", "hinge", "simpo", "kto_pair")


@pytest.mark.parametrize("kind", ["sigmoid", "simpo", "kto_pair"])
def test_how_a_global_batch_is_cut_or_packed_changes_nothing(family: Any, model_config: Any, kind: str) -> None:
    """Also of kto_pair, whose loss of one pair depends on all pairs of the batch."""
    found = []
    for source, size in ((Pairs(4), 4), (Pairs(4), 1), (Pairs(2, per_row=2), 1)):
        step = stepper(family, model_config, PreferenceLoss(kind=kind, beta=0.5, gamma=0.3))
        results = [step.run(cut(source, model_config, size), 1e-3) for _ in range(3)]
        found.append((results, weights(step.model)))
    (whole, first), *others = found
    assert {result.count for result in whole} == {4}
    assert whole[-1].loss < whole[0].loss and whole[-1].figures["rewards_margin"] > whole[0].figures["rewards_margin"]
    for results, values in others:
        for one, other in zip(whole, results, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-5)
            assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
            assert one.figures == {name: pytest.approx(value, abs=1e-5) for name, value in other.figures.items()}
        assert max(np.abs(first[name] - values[name]).max() for name in first) < 1e-5


def test_the_baseline_of_kto_is_not_that_of_a_micro_batch(family: Any, model_config: Any) -> None:
    model = built(family, model_config)
    objective = Preference(PreferenceLoss(kind="kto_pair", beta=0.5), frozen(built(family, model_config, seed=8)))
    batches = [micro.batch for micro in cut(Pairs(), model_config, 1)]
    together = [loss.item() for loss, _ in losses(objective, model, batches)]
    alone = [loss.item() for batch in batches for loss, _ in losses(objective, model, [batch])]
    assert together != pytest.approx(alone, rel=1e-3)


def test_model_and_reference_agree_before_the_first_step(family: Any, model_config: Any) -> None:
    model = built(family, model_config)
    objective = Preference(PreferenceLoss(kind="sigmoid", beta=0.1), frozen(built(family, model_config)))
    ((loss, figures),) = losses(objective, model, [cut(Pairs(), model_config, 8)[0].batch])
    assert loss.item() == pytest.approx(8 * np.log(2), rel=1e-6)
    assert figures == {
        "rewards_chosen": 0.0, "rewards_rejected": 0.0, "rewards_accuracy": 0.0, "rewards_margin": 0.0,
    }  # fmt: skip


def test_the_reference_is_never_changed(family: Any, model_config: Any) -> None:
    step = stepper(family, model_config, PreferenceLoss(kind="sigmoid", beta=0.1))
    with step.objective.reference(step.model) as reference:  # type: ignore[attr-defined]
        before = weights(reference)
        moved = weights(step.model)
        step.run(cut(Pairs(), model_config, 4), 1e-2)
        assert all(np.array_equal(before[name], values) for name, values in weights(reference).items())
    assert not all(np.array_equal(moved[name], values) for name, values in weights(step.model).items())


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_does_not_depend_on_batch_size(family: Any, model_config: Any, kind: str) -> None:
    loss = PreferenceLoss(kind=kind, beta=0.5, gamma=0.3)
    model = built(family, model_config)
    objective = Preference(loss, frozen(built(family, model_config, seed=8)) if loss.needs_reference else None)
    found = [evaluate(model, Pairs(), batch_size=size, pad_id=0, score=objective.score).metrics() for size in (3, 8)]
    assert found[0] == {name: pytest.approx(value, rel=1e-5, abs=1e-5) for name, value in found[1].items()}
    ((total, figures),) = losses(objective, model, [cut(Pairs(), model_config, 8)[0].batch])
    assert found[0]["eval_loss"] == pytest.approx(total.item() / 8, rel=1e-5)
    assert {name: found[0][f"eval_{name}"] for name in figures} == {
        name: pytest.approx(value / 8, abs=1e-5) for name, value in figures.items()
    }
