"""The table of tasks names functions that exist, and the rest of the command agrees with it."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

from llm_run.core.commands.help import ABOUT, EXAMPLES
from llm_run.core.registry.facts import Task
from llm_run.core.tasks import TASKS, load_task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_a_function_of_a_run_that_returns_a_status(name: str) -> None:
    signature = inspect.signature(load_task(name))
    assert list(signature.parameters) == ["run"]
    assert signature.return_annotation == "int"


def test_every_task_is_here() -> None:
    assert set(get_args(Task)) == set(TASKS)


def test_every_task_has_help_and_an_example() -> None:
    assert set(ABOUT) == set(TASKS)
    assert set(EXAMPLES) == {"", *TASKS}
