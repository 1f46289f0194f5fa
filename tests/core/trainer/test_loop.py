from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle.nn.functional as F
import pytest

from llm_run.core.convert import save as convert_save
from llm_run.core.convert.load import load_model
from llm_run.core.errors import CheckpointError, RefusedError, TrainingError
from llm_run.core.trainer.checkpoint import read_checkpoint
from llm_run.core.trainer.metrics import read_metrics
from llm_run.core.trainer.storage import Storage


def all_tensors(checkpoint: Path) -> dict[str, bytes]:
    opened = read_checkpoint(checkpoint)
    return {name: opened.reader.read(name).tobytes() for name in opened.reader.index}


def steps_of(folder: Path) -> list[int]:
    names = (path.name.removeprefix("checkpoint-") for path in folder.iterdir())
    return sorted(int(name) for name in names if name.isdigit())


@dataclass
class Recorder:
    """A source that notes what is asked for, and does something at one position."""

    rows: Any
    at: int = -1
    action: Any = None

    def __post_init__(self) -> None:
        self.asked: list[int] = []
        self.epoch_size, self.fingerprint = self.rows.epoch_size, self.rows.fingerprint

    def sample(self, position: int) -> Any:
        self.asked.append(position)
        if position == self.at and self.action is not None:
            self.action()
        return self.rows.sample(position)


def with_dropout(job: Any) -> Any:
    for block in job.model.blocks:
        block.register_forward_post_hook(lambda layer, _, hidden: F.dropout(hidden, 0.2, training=layer.training))
    return job


def test_from_every_step_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any
) -> None:
    """With dropout, whose random numbers must go on where they were."""
    source, total, whole = rows(ragged=True, prompt=3), 9, tmp_path / "whole"
    assert run_job(with_dropout(make_job(whole, source, max_steps=total, save_steps=1))) == 0
    expected = all_tensors(whole / f"checkpoint-{total}")
    for step in range(1, total):
        part = tmp_path / f"from-{step}"
        shutil.copytree(whole / f"checkpoint-{step}", part / f"checkpoint-{step}")
        recorder = Recorder(source)
        assert run_job(with_dropout(make_job(part, recorder, max_steps=total, save_steps=total))) == 0
        # Nothing that was consumed is read again: going on costs the same at every step.
        assert recorder.asked == list(range(4 * step, 4 * total))
        assert all_tensors(part / f"checkpoint-{total}") == expected, step
    assert run_job(make_job(tmp_path / "dry", source, max_steps=total, save_steps=total)) == 0
    assert all_tensors(tmp_path / "dry" / f"checkpoint-{total}") != expected


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_end_of_the_step_and_the_run_goes_on_later(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, number: signal.Signals, status: int
) -> None:
    assert run_job(make_job(tmp_path / "whole", rows(), save_steps=100)) == 0
    stopped = Recorder(rows(), at=9, action=lambda: os.kill(os.getpid(), number))
    assert run_job(make_job(tmp_path / "stopped", stopped, save_strategy="no")) == status
    assert steps_of(tmp_path / "stopped") == [3]
    assert not (tmp_path / "stopped" / "config.json").exists()
    assert (tmp_path / "stopped" / "loss.png").exists()
    assert run_job(make_job(tmp_path / "stopped", rows(), save_steps=100)) == 0
    assert all_tensors(tmp_path / "stopped" / "checkpoint-6") == all_tensors(tmp_path / "whole" / "checkpoint-6")


def test_a_signal_ends_an_evaluation_too(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    evaluation = Recorder(rows(seed=1), at=0, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    job = make_job(
        tmp_path, rows(), evaluation, evaluation_strategy="steps", eval_steps=1, per_device_eval_batch_size=2
    )
    assert run_job(job) == 143
    assert evaluation.asked == [0, 1]
    assert steps_of(tmp_path) == [1]


def test_the_result_is_a_model_directory_that_loads(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, family: Any, model_config: Any
) -> None:
    job = make_job(tmp_path, rows())
    assert run_job(job) == 0
    loaded = load_model(family, model_config, tmp_path)
    for name, parameter in job.model.named_parameters():
        np.testing.assert_array_equal(dict(loaded.named_parameters())[name].numpy(), parameter.numpy())
    assert {"config.json", "model.safetensors", "loss.png", "metrics.jsonl", "run.json"} <= set(os.listdir(tmp_path))
    assert not [name for name in os.listdir(tmp_path) if ".tmp" in name]


def test_metrics_have_the_promised_keys_and_true_counts(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    source = rows(ragged=True, prompt=3)
    job = make_job(tmp_path, source, rows(seed=1), evaluation_strategy="steps", eval_steps=3, logging_steps=2)
    assert run_job(job) == 0
    metrics = read_metrics(tmp_path)
    training = [row for row in metrics if "loss" in row]
    assert [row["step"] for row in training] == [2, 4, 6]
    promised = {"step", "loss", "learning_rate", "grad_norm", "tokens_per_second", "samples_seen"}
    assert all(promised <= row.keys() for row in training)
    supervised = sum(int((source.sample(k).labels >= 0).sum()) for k in range(24))
    assert (training[-1]["samples_seen"], training[-1]["tokens_seen"]) == (24, supervised)
    assert [row["step"] for row in metrics if "eval_loss" in row] == [3, 6]


def test_the_record_says_what_ran(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    job = make_job(tmp_path, rows())
    assert run_job(job) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["options"]["max_steps"] == {"value": 6, "origin": "flag"}
    assert record["options"]["seed"] == {"value": 42, "origin": "default"}
    assert record["data"] == {"training": rows().fingerprint}
    assert record["family"] == {"name": "llama", "package": "llm-run", "version": record["family"]["version"]}
    assert record["versions"]["numpy"] == np.__version__
    assert record["model_config"]["hidden_size"] == 64


def test_logging_the_first_step_is_asked_for(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    for first, steps in ((False, [4, 6]), (True, [1, 4, 6])):
        job = make_job(tmp_path / str(first), rows(), logging_steps=4, logging_first_step=first)
        assert run_job(job) == 0
        assert [row["step"] for row in read_metrics(tmp_path / str(first))] == steps


def test_another_runs_folder_is_refused_with_the_field(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    assert run_job(make_job(tmp_path, rows())) == 0
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RefusedError) as caught:
        run_job(make_job(tmp_path, rows(seed=5), learning_rate=1e-4))
    assert [problem.key.rsplit(": ")[-1] for problem in caught.value.problems] == ["data", "learning_rate"]
    assert sorted(os.listdir(tmp_path)) == before
    # How the same global batch is cut, and how long the run is, may change.
    again = make_job(tmp_path, rows(), per_device_train_batch_size=4, gradient_accumulation_steps=1, max_steps=7)
    assert run_job(again) == 0
    assert steps_of(tmp_path) == [2, 4, 6, 7]
    with pytest.raises(RefusedError, match="global_batch_size: 8 was 4 in the run that wrote this checkpoint"):
        run_job(make_job(tmp_path, rows(), per_device_train_batch_size=4))


def test_overwriting_starts_anew(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    assert run_job(make_job(tmp_path, rows())) == 0
    (tmp_path / "checkpoint-4").rename(tmp_path / "checkpoint-4.corrupt")
    (tmp_path / "checkpoint-6").rename(tmp_path / "checkpoint-6.superseded")
    assert run_job(make_job(tmp_path, rows(seed=5), max_steps=3, overwrite_output_dir=True)) == 0
    assert not [name for name in os.listdir(tmp_path) if name.endswith(("corrupt", "superseded"))]
    assert steps_of(tmp_path) == [2, 3]
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_going_back_to_an_older_checkpoint_puts_newer_ones_aside(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any
) -> None:
    assert run_job(make_job(tmp_path, rows())) == 0
    older = str(tmp_path / "checkpoint-2")
    assert run_job(make_job(tmp_path, rows(), save_steps=5, resume_from_checkpoint=older)) == 0
    assert steps_of(tmp_path) == [2, 5, 6]
    assert {"checkpoint-4.superseded", "checkpoint-6.superseded"} <= set(os.listdir(tmp_path))
    with pytest.raises(CheckpointError, match="checkpoint-9: does not exist"):
        run_job(make_job(tmp_path, rows(), resume_from_checkpoint=str(tmp_path / "checkpoint-9")))


def test_bad_steps_in_a_row_end_training_and_the_last_checkpoint_is_named(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any
) -> None:
    def poison() -> None:
        weight = job.model.norm.weight
        weight.set_value(weight.numpy() * np.nan)

    job = make_job(tmp_path, Recorder(rows(), at=8, action=poison), max_skipped_steps=3)
    with pytest.raises(TrainingError) as caught:
        run_job(job)
    said = "max_skipped_steps 3); the parameters are those before the first of them. "
    assert f"{said}The last checkpoint is {tmp_path}/checkpoint-4." in str(caught.value)
    assert "the first output that is not finite is that of norm" in str(caught.value)
    skipped = [(row["step"], row["loss"], row["skipped_steps"]) for row in read_metrics(tmp_path)][2:]
    assert skipped == [(3, None, 1), (4, None, 1)]


class FullDisk(Storage):
    """Has no room for some of the checkpoints."""

    def __init__(self, *, full_for: int) -> None:
        self.full_for = full_for

    def make_directory(self, path: Path) -> None:
        if path.name.startswith(".checkpoint") and self.full_for:
            self.full_for -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().make_directory(path)


def test_a_full_disk_is_tried_again_after_the_next_step(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llm_run.trainer"):
        assert run_job(make_job(tmp_path, rows(), save_steps=3), FullDisk(full_for=2)) == 0
    assert steps_of(tmp_path) == [5, 6]
    assert [message for message in caplog.messages if "saved" in message] == [
        f"step {step}: the checkpoint cannot be saved (No space left on device); training goes on, next try after the "
        "next step" for step in (3, 4)
    ]  # fmt: skip


def test_a_disk_that_stays_full_ends_training(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    assert run_job(make_job(tmp_path, rows(), max_steps=2)) == 0
    with pytest.raises(TrainingError) as caught:
        run_job(make_job(tmp_path, rows(), max_steps=9), FullDisk(full_for=9))
    assert str(caught.value) == (
        "step 6: the checkpoint cannot be saved (No space left on device). "
        f"The last checkpoint is {tmp_path}/checkpoint-2."
    )
    assert steps_of(tmp_path) == [2]


def test_the_model_is_written_even_where_the_last_checkpoint_cannot_be(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llm_run.trainer"):
        assert run_job(make_job(tmp_path, rows(), save_steps=9), FullDisk(full_for=9)) == 0
    assert steps_of(tmp_path) == []
    assert (tmp_path / "model.safetensors").exists()
    assert caplog.messages == [
        "step 6: the checkpoint cannot be saved (No space left on device). There is no checkpoint yet. "
        "Training is over, and the model directory is written all the same."
    ]


def test_recompute_changes_no_bit_of_training(tmp_path: Path, make_job: Any, run_job: Any, rows: Any) -> None:
    for name, options in (("plain", {}), ("full", {"recompute": True})):
        assert run_job(make_job(tmp_path / name, rows(), **options)) == 0
    assert all_tensors(tmp_path / "plain" / "checkpoint-6") == all_tensors(tmp_path / "full" / "checkpoint-6")


def test_a_result_that_cannot_be_written_costs_nothing_of_the_training(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(TrainingError) as caught:
        patch.setattr(convert_save, "write_model_directory", fail)
        run_job(make_job(tmp_path, rows()))
    assert str(caught.value) == (
        f"{tmp_path}: the model directory cannot be written (No space left on device). "
        f"The last checkpoint is {tmp_path}/checkpoint-6. The same command goes on from there."
    )
    source = Recorder(rows())
    assert run_job(make_job(tmp_path, source)) == 0
    assert source.asked == []
    assert (tmp_path / "config.json").exists()


def test_a_finished_run_says_that_nothing_is_left(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="llm_run")
    assert run_job(make_job(tmp_path, rows())) == run_job(make_job(tmp_path, rows())) == 0
    assert caplog.messages.count("all 6 steps are made: nothing is left to train") == 1
