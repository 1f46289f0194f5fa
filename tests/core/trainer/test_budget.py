from __future__ import annotations

import pytest

from llm_run.core.config.training import TrainingOptions
from llm_run.core.trainer.budget import Budget


def test_epochs_are_rounded_up_to_whole_steps_and_max_steps_win() -> None:
    options = TrainingOptions(per_device_train_batch_size=2, gradient_accumulation_steps=3, num_train_epochs=1.5)
    assert Budget.from_options(options, 20).total_steps == 5
    limited = TrainingOptions(per_device_train_batch_size=2, gradient_accumulation_steps=3, max_steps=2)
    assert Budget.from_options(limited, 20).total_steps == 2


@pytest.mark.parametrize(
    ("strategy", "due"), [("no", []), ("steps", [4, 8, 12]), ("epoch", [3, 5, 8, 10])]
)  # fmt: skip
def test_what_is_due_by_steps_and_by_epochs(strategy: str, due: list[int]) -> None:
    budget = Budget(batch_size=4, total_steps=12, epoch_size=10)
    assert [step for step in range(1, 13) if budget.is_due(strategy, 4, step)] == due
