"""The ready-made configurations of every installed family, at tiny size: the life of a model by the command alone."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llm_run.core.cli import main
from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.configs.ready_made import names
from llm_run.core.trainer.metrics import read_metrics

TRAINING = ("pretrain", "sft", "lora", "prefix_tuning", "dpo")
SHORT = {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "save_rehearsal": "false"}


def test_a_model_lives_by_its_configurations(
    family: Any, script: ModuleType, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From text to token files, a model, a tuned one, adapters, a merged one, its score and its answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llm_run.core.trainer.reporter.draw_curve", lambda *_: None)  # takes longer than two steps
    for task, told in script.life(material / "tokenizer", material / "data", sft_steps=2).items():
        more = (SHORT if task in TRAINING else {}) | ({"warmup_steps": 0} if task == "pretrain" else {})
        more |= {"num_prefix_tokens": 4} if task == "prefix_tuning" else {}
        assert main(script.words(family.card.name, task, {**told, **more})) == 0, task
    for task in TRAINING:
        assert [row["step"] for row in read_metrics(tmp_path / "out" / task) if "loss" in row] == [1, 2]
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 10
    for name in ("converted", "whole"):
        assert {"config.json", "model.safetensors"} <= set(os.listdir(tmp_path / "out" / name))


def test_every_option_of_a_configuration_is_read_by_its_task(family: Any) -> None:
    for name in names(family.card.name):
        config, notes = resolve(parse(["--config", name]))
        assert (config.family, config.task) == (family.card.name, name.partition("/")[2])
        assert not notes, name
