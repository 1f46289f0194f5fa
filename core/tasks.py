"""Which function runs which task. The function is imported when the task is started, and not before."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .run import Run

TASKS = {
    "data": ".data.task:run",
    "pretrain": ".trainer.tasks:run_pretrain",
    "sft": ".trainer.tasks:run_sft",
    "lora": ".trainer.tasks:run_lora",
    "merge_lora": ".adapters.merge_task:run",
    "merge_shards": ".convert.merge_task:run",
    "prefix_tuning": ".trainer.tasks:run_prefix_tuning",
    "dpo": ".trainer.tasks:run_dpo",
    "evaluate": ".evaluation.task:run",
    "generate": ".engine.generate_task:run",
    "chat": ".engine.chat_task:run",
    "serve": ".serve.task:run",
    "convert": ".convert.task:run",
    "export": ".engine.static.task:run",
    "ptq": ".quant.task:run",
    "gptq": ".quant.task:run",
}
"""Module and function by task. A task that is not here is not in this version."""


def load_task(name: str) -> Callable[[Run], int]:
    """Import the function that runs ``name``; it imports Paddle where it needs it."""
    module, _, function = TASKS[name].partition(":")
    task: Callable[[Run], int] = getattr(importlib.import_module(module, __package__), function)
    return task
