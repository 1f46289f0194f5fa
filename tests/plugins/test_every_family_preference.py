"""Preference tuning of every installed family."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.data.collate import collate
from llm_run.core.data.packing import join
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.trainer.passes import WholeModel, final_hidden
from llm_run.core.trainer.preference import Preference, answer_scores, frozen
from llm_run.core.trainer.preference_loss import PreferenceLoss

PROMPT = 6


def answered(config: Any, prompt: np.ndarray, length: int, seed: int) -> Sample:
    answer = np.random.default_rng(seed).integers(3, config.vocab_size, [length])
    ids = np.concatenate([prompt, answer])
    labels = np.append(ids[1:], IGNORED)
    labels[: PROMPT - 1] = IGNORED
    return Sample(ids, labels, np.ones(len(ids), np.int32), np.arange(len(ids)) < PROMPT)


def pairs(config: Any, count: int) -> list[list[Sample]]:
    prompts = np.random.default_rng(0).integers(3, config.vocab_size, [count, PROMPT])
    return [
        [answered(config, prompt, 7 + place, 2 * place), answered(config, prompt, 11, 2 * place + 1)]
        for place, prompt in enumerate(prompts)
    ]


def test_preference_loss_falls_in_10_steps(variant: Any, new_model: CausalLM) -> None:
    paddle.seed(11)
    objective = Preference(PreferenceLoss(kind="sigmoid", beta=0.1), frozen(variant.family.build_model(variant.config)))
    batch = collate([join(pair) for pair in pairs(variant.config, 2)], variant.config, 0)
    optimizer = paddle.optimizer.AdamW(learning_rate=1e-3, parameters=new_model.parameters())
    losses, accuracy = [], 0.0
    for _ in range(10):
        (loss,) = objective.losses(WholeModel(new_model), [batch], list)
        loss_sum, figures = loss(final_hidden(new_model, batch))
        (loss_sum / 2).backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss_sum.item() / 2)
        accuracy = figures["rewards_accuracy"] / 2
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert losses[-1] < 0.8 * losses[0] and accuracy == 1.0


def test_answers_of_a_pair_do_not_see_each_other(variant: Any, model: CausalLM) -> None:
    """Each has the log-probability that it has in a row of its own, beside a copy of itself."""
    (chosen, rejected), *_ = pairs(variant.config, 1)
    with paddle.no_grad():
        together, first, second = (
            answer_scores(model, final_hidden(model, batch), batch, averaged=False).numpy()[0]
            for row in ([chosen, rejected], [chosen, chosen], [rejected, rejected])
            for batch in [collate([join(row)], variant.config, 0)]
        )
    assert together == pytest.approx([first[0], second[0]], abs=1e-4)
    assert first[0] == pytest.approx(first[1], abs=1e-4)
