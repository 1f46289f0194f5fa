"""Fine-tuning on two processes, as the command starts it, is that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_run.core.trainer.metrics import read_metrics

LIMIT = 600
"""Seconds: far more than it takes, also beside other tests."""


def trained(out: Path, records: Path, tokenizer: Path, *more: str) -> None:
    """Train."""
    options = {
        "model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records, "output_dir": out,
        "src_length": 40, "max_length": 64, "max_steps": 4, "logging_steps": 1, "learning_rate": 3e-3, "device": "cpu",
        "zero_padding": "true", "packing": "best_fit", "lazy": "true", "neftune_noise_alpha": 20,
        "evaluation_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2, "max_new_tokens": 5,
        "per_device_train_batch_size": 2, "load_best_model_at_end": "true", "early_stopping_patience": 5,
        "save_rehearsal": "false",
    }  # fmt: skip
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "llm_run.core", "--family", "llama", "--task", "sft", *words, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(records: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one process."""
    out = tmp_path_factory.mktemp("fine_tuning") / "one"
    trained(out, records, tokenizer, "--gradient_accumulation_steps", "2", "--eval_with_do_generation", "true")
    return out


def equal(ours: Path, theirs: Path, *keys: str) -> None:
    """Compare what both runs measured."""
    for key in keys:
        found, expected = ([row[key] for row in read_metrics(out) if key in row] for out in (ours, theirs))
        assert len(found) == (2 if key.startswith("eval_") else 4)
        assert found == pytest.approx(expected, rel=1e-5), key


@pytest.mark.parametrize("cut", ["", "--sep_parallel_degree 2 --gradient_accumulation_steps 2"])
def test_noise_packing_and_answers_of_ranks_that_have_the_whole_model_are_those_of_one_process(
    alone: Path, records: Path, tokenizer: Path, tmp_path: Path, cut: str
) -> None:
    more = f"--nproc_per_node 2 --eval_with_do_generation true {cut}"
    trained(tmp_path / "two", records, tokenizer, *more.split())
    equal(tmp_path / "two", alone, "loss", "eval_loss", "eval_bleu4", "eval_rouge1", "eval_rougel", "eval_tokens")
    for step in (2, 4):
        one, two = ((folder / f"predictions-{step}.jsonl").read_text() for folder in (alone, tmp_path / "two"))
        assert one == two and len(one.splitlines()) == 11


def test_noise_and_the_best_model_of_pipeline_stages_are_those_of_one_process(
    alone: Path, records: Path, tokenizer: Path, tmp_path: Path
) -> None:
    layout = ["--nproc_per_node", "2", "--pipeline_parallel_degree", "2", "--gradient_accumulation_steps", "2"]
    trained(tmp_path / "two", records, tokenizer, *layout)
    equal(tmp_path / "two", alone, "loss", "eval_loss")
    states = [
        json.loads((folder / "checkpoint-4" / "trainer.json").read_text())["state"]
        for folder in (alone, tmp_path / "two")
    ]
    assert states[0]["best_step"] == states[1]["best_step"]


@pytest.mark.parametrize(
    "cut",
    ["--tensor_parallel_degree 2 --sequence_parallel true", "--pipeline_parallel_degree 2"],
)
def test_noise_packing_and_evaluation_of_ranks_that_have_parts_are_those_of_one_process(
    alone: Path, records: Path, tokenizer: Path, tmp_path: Path, cut: str
) -> None:
    more = f"--nproc_per_node 2 --gradient_accumulation_steps 2 --metric_for_best_model eval_loss {cut}"
    trained(tmp_path / "two", records, tokenizer, *more.split())
    equal(tmp_path / "two", alone, "loss", "grad_norm", "eval_loss", "eval_accuracy", "eval_tokens")
