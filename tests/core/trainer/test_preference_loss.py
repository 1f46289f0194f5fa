from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.trainer.preference_loss import Baseline, PreferenceLoss

CASES = ("sigmoid", "sigmoid_smoothed", "hinge", "ipo", "kto_pair", "simpo", "simpo_smoothed")


@pytest.fixture(scope="module")
def golden(project: Path) -> Any:
    """Losses that TRL's own functions computed (tests/golden/make_dpo.py)."""
    with np.load(project / "tests" / "golden" / "dpo.npz") as file:
        return dict(file)


def ratios_of(golden: Any, loss: PreferenceLoss) -> np.ndarray:
    return golden["policy"] - (golden["reference"] if loss.needs_reference else 0.0)


def loss_of(golden: Any, case: str) -> PreferenceLoss:
    beta, smoothing, gamma = golden[f"{case}_about"].tolist()
    return PreferenceLoss(kind=case.removesuffix("_smoothed"), beta=beta, label_smoothing=smoothing, gamma=gamma)


@pytest.mark.parametrize("case", CASES)
def test_losses_of_the_same_log_probabilities_are_those_of_trl(golden: Any, case: str) -> None:
    loss = loss_of(golden, case)
    ratios = ratios_of(golden, loss)
    baseline = Baseline(*np.maximum(ratios.mean(axis=0), 0.0).tolist()) if loss.needs_baseline else Baseline()
    ours = loss.losses(paddle.to_tensor(ratios), baseline).numpy()
    theirs = golden[f"{case}_losses"]
    if case == "kto_pair":  # TRL lists the losses of chosen answers, then those of rejected ones
        theirs = theirs.reshape(2, -1).mean(axis=0)
    assert np.abs(ours - theirs).max() < 1e-6 * max(1.0, float(np.abs(theirs).max()))
    assert np.abs(loss.beta * ratios - golden[f"{case}_rewards"]).max() < 1e-5


@pytest.mark.parametrize("case", [case for case in CASES if case != "kto_pair"])
def test_gradients_by_the_log_probabilities_are_those_of_trl(golden: Any, case: str) -> None:
    loss = loss_of(golden, case)
    ratios = paddle.to_tensor(ratios_of(golden, loss), stop_gradient=False)
    loss.losses(ratios, Baseline()).mean().backward()
    theirs = golden[f"{case}_gradient"]
    assert np.abs(ratios.grad.numpy() - theirs).max() < 1e-6 * max(1.0, float(np.abs(theirs).max()))


def test_nothing_is_learnt_from_the_baseline_of_kto(golden: Any) -> None:
    """Ethayarajh et al. 2024, section 4.1: the gradient of a pair is that of its own two answers alone."""
    loss = loss_of(golden, "kto_pair")
    values = ratios_of(golden, loss)
    ratios = paddle.to_tensor(values, stop_gradient=False)
    loss.losses(ratios, Baseline(chosen=0.5, rejected=0.25)).sum().backward()
    good, bad = (1 / (1 + np.exp(-0.1 * x)) for x in (values[:, 0] - 0.25, 0.5 - values[:, 1]))
    expected = np.stack([-0.05 * good * (1 - good), 0.05 * bad * (1 - bad)], axis=1)
    assert np.abs(ratios.grad.numpy() - expected).max() < 1e-7
