"""A model's life by the command, each task in a process of its own as a user starts it.

``tests/plugins/test_every_family_configs.py`` goes through it for every family, in one process.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from llm_run.core.trainer.metrics import read_metrics

TASKS = ("data", "pretrain", "sft", "lora", "merge_lora", "evaluate", "generate")
SHORT = {"max_steps": 3, "per_device_train_batch_size": 2, "logging_steps": 1}


@pytest.mark.parametrize("family", ["llama", "qwen", "bloom"])
def test_a_model_goes_from_text_to_answers_by_the_command_alone(
    family: str, script: ModuleType, material: Path, tmp_path: Path
) -> None:
    life = script.life(material / "tokenizer", material / "data", sft_steps=3)
    for task in TASKS:
        told = life[task]
        if task in ("pretrain", "sft", "lora"):
            told = told | SHORT | ({"warmup_steps": 0} if task == "pretrain" else {})
        script.run(family, task, told, tmp_path)  # fails with what the command said
    out = tmp_path / "out"
    for task in ("pretrain", "sft", "lora"):
        assert [row["step"] for row in read_metrics(out / task) if "loss" in row] == [1, 2, 3]
    assert json.loads((out / "merged" / "report.json").read_text())["adapter"]["max_logit_difference"] < 1e-4
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 10
