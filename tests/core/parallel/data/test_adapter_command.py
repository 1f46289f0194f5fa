"""Adapters trained by several processes, as the command starts them, are those of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.trainer.metrics import read_metrics

LIMIT = 600
"""Seconds: far more than it takes, also beside other tests."""
LAYOUTS = {
    "tp2": "--nproc_per_node 2 --tensor_parallel_degree 2", "pp2": "--nproc_per_node 2 --pipeline_parallel_degree 2",
    "stage3": "--nproc_per_node 2 --sharding stage3 --gradient_accumulation_steps 1",
}  # fmt: skip


def trained(out: Path, records: Path, tokenizer: Path, *more: str) -> Path:
    """Train, and return the folder of the result."""
    options = {
        "model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records, "output_dir": out,
        "src_length": 40, "max_length": 64, "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3, "device": "cpu",
        "zero_padding": "true", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2,
        "evaluation_strategy": "steps", "eval_steps": 3, "adam_epsilon": 1e-5, "save_steps": 2,
    }  # fmt: skip
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "llm_run.core", "--family", "llama", "--task", "lora", *words, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def alone(records: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one process."""
    return trained(tmp_path_factory.mktemp("adapters") / "one", records, tokenizer)


def assert_same(ours: Path, theirs: Path) -> None:
    """Compare two adapters, and what their configurations say."""
    found, expected = (load_file(folder / "adapter_model.safetensors") for folder in (ours, theirs))
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
    fields = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ours, theirs)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_that_have_parts_of_the_model_save_the_adapter_of_one_process(
    layout: str, alone: Path, records: Path, tokenizer: Path, tmp_path: Path
) -> None:
    out = trained(tmp_path / layout, records, tokenizer, *LAYOUTS[layout].split())
    for key, count in (("loss", 3), ("grad_norm", 3), ("eval_loss", 1)):
        found, expected = ([row[key] for row in read_metrics(folder) if key in row] for folder in (out, alone))
        assert len(found) == count and found == pytest.approx(expected, rel=1e-5)
    assert_same(out, alone)


@pytest.mark.parametrize("layout", ["pp2", "stage3"])
def test_ranks_that_have_parts_of_the_model_go_on_from_a_checkpoint_of_one_process(
    layout: str, alone: Path, records: Path, tokenizer: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone / "checkpoint-2", tmp_path / "parts" / "checkpoint-2")
    out = trained(tmp_path / "parts", records, tokenizer, *LAYOUTS[layout].split())
    assert [row["step"] for row in read_metrics(out) if "loss" in row] == [3]
    assert_same(out, alone)
