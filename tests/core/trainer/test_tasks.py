from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.errors import DataError, RefusedError
from llm_run.core.request import prepare
from llm_run.core.tasks import load_task
from llm_run.core.trainer.metrics import read_metrics

RunTask = Callable[..., int]


@pytest.fixture
def run_task(tmp_path: Path) -> RunTask:
    """Run a task as the command does, in this process, into ``tmp_path/out``."""

    def run(task: str, **options: object) -> int:
        words = ["--family", "llama", "--task", task, "--output_dir", str(tmp_path / "out")]
        defaults = {
            "max_length": 32, "max_steps": 4, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 2,
            "learning_rate": 3e-3,
        }  # fmt: skip
        for name, value in (defaults | options).items():
            words += [f"--{name}", str(value)]
        request, _ = prepare(resolve(parse(words))[0])
        return load_task(task)(request)

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Token files in the seed's legacy layout: 40 documents of bytes that count."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    documents = [(start + np.arange(60)) % 250 for start in range(0, 400, 10)]
    np.save(folder / "bytes_ids.npy", np.concatenate(documents).astype(np.uint16))
    lengths = np.array([len(document) for document in documents], dtype=np.int32)
    np.savez(folder / "bytes_idx.npz", lens=lengths, docs=np.arange(len(documents) + 1, dtype=np.int64))
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A byte-level tokenizer with more ids than the tiny model has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    text = [f"{a} and {b} make {a + b}, less {a - b}, times {a * b}." for a in range(60) for b in range(60)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    fields = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    for name, first in (("train", 0), ("dev", 100)):
        lines = [json.dumps({"src": f"{k} and {k}", "tgt": f"make {2 * k}"}) for k in range(first, first + 12)]
        (folder / f"{name}.json").write_text("\n".join(lines))
    return folder


def test_pretraining_from_a_size_learns_saves_and_goes_on(run_task: RunTask, corpus: Path, tmp_path: Path) -> None:
    options = {"model_size": "tiny", "input_dir": corpus, "evaluation_strategy": "steps", "eval_steps": 10}
    assert run_task("pretrain", max_steps=20, **options) == 0
    rows = read_metrics(tmp_path / "out")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 20
    assert losses[-1] < losses[0] - 1.0
    evaluations = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert len(evaluations) == 2
    assert evaluations[1] < evaluations[0]
    assert run_task("pretrain", max_steps=22, **options) == 0
    assert [row["step"] for row in read_metrics(tmp_path / "out") if "loss" in row] == list(range(1, 23))


def test_epochs_of_the_data_give_the_number_of_steps(run_task: RunTask, corpus: Path, tmp_path: Path) -> None:
    options = {"model_size": "tiny", "input_dir": corpus, "max_steps": -1, "num_train_epochs": 0.25}
    assert run_task("pretrain", save_strategy="epoch", **options) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    # 38 of 40 documents of 60 tokens train, in samples of 32 that share an end: a quarter of 71, in eights.
    assert record["total_steps"] == 3
    assert (tmp_path / "out" / "checkpoint-3").is_dir()


def test_continued_pretraining_starts_from_the_weights_and_pretraining_does_not(
    run_task: RunTask, corpus: Path, tmp_path: Path
) -> None:
    assert run_task("pretrain", model_size="tiny", input_dir=corpus, max_steps=20) == 0
    (tmp_path / "out").rename(tmp_path / "base")
    # A folder without tokenizer will do, as tokens are all that is read.
    options = {"model_name_or_path": tmp_path / "base", "input_dir": corpus, "max_steps": 1}
    losses = []
    for anew in ("false", "true"):
        assert run_task("pretrain", continue_training=anew, overwrite_output_dir="true", **options) == 0
        losses.append(read_metrics(tmp_path / "out")[0]["loss"])
    assert losses[0] == pytest.approx(np.log(512), abs=0.2)
    assert losses[1] < losses[0] - 1.0


def test_fine_tuning_makes_room_for_the_tokenizer_and_saves_it(
    run_task: RunTask, tokenizer: Path, records: Path, tmp_path: Path
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records}
    options |= {"src_length": 16, "max_steps": 12}
    assert run_task("sft", do_eval="true", evaluation_strategy="steps", eval_steps=6, **options) == 0
    out = tmp_path / "out"
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 640
    assert {"tokenizer.json", "generation_config.json", "checkpoint-12"} <= set(os.listdir(out))
    evaluations = [row["eval_loss"] for row in read_metrics(out) if "eval_loss" in row]
    assert len(evaluations) == 2
    assert evaluations[-1] < evaluations[0]
    # The result is a model directory of its own: tokenizer, shape and weights are found there.
    (tmp_path / "out").rename(tmp_path / "base")
    again = {"model_name_or_path": tmp_path / "base", "dataset_name_or_path": records, "src_length": 16}
    assert run_task("sft", do_train="false", do_eval="true", **again) == 0
    assert read_metrics(tmp_path / "out")[-1]["eval_loss"] == pytest.approx(evaluations[-1], rel=1e-5)


def test_evaluation_alone_trains_nothing_and_keeps_the_metrics(run_task: RunTask, corpus: Path, tmp_path: Path) -> None:
    options = {"model_size": "tiny", "input_dir": corpus}
    assert run_task("pretrain", max_steps=2, **options) == 0
    before = sorted(os.listdir(tmp_path / "out"))
    assert run_task("pretrain", do_train="false", do_eval="true", **options) == 0
    assert [row["step"] for row in read_metrics(tmp_path / "out")] == [1, 2, 0]
    assert sorted(os.listdir(tmp_path / "out")) == before


def test_tokens_of_another_vocabulary_are_refused_before_training(
    run_task: RunTask, corpus: Path, tmp_path: Path
) -> None:
    np.save(corpus / "bytes_ids.npy", np.full(2400, 600, np.uint16))
    with pytest.raises(DataError, match="600"):
        run_task("pretrain", model_size="tiny", input_dir=corpus)


def test_answers_to_the_evaluation_records_are_scored_and_kept(
    run_task: RunTask, tokenizer: Path, records: Path, tmp_path: Path
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records}
    options |= {"src_length": 16, "evaluation_strategy": "steps", "eval_steps": 2, "max_new_tokens": 6}
    options |= {"metric_for_best_model": "rougel", "load_best_model_at_end": "true", "max_evaluate_steps": 1}
    assert run_task("sft", eval_with_do_generation="true", **options) == 0
    evaluations = [row for row in read_metrics(tmp_path / "out") if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [2, 4]
    assert all(row.keys() >= {"eval_bleu4", "eval_rouge1", "eval_rouge2", "eval_rougel"} for row in evaluations)
    kept = [json.loads(line) for line in (tmp_path / "out/predictions-4.jsonl").read_text().splitlines()]
    assert [line["tgt"] for line in kept] == [f"make {2 * k}" for k in range(100, 108)]
    # The same model gives the same answers afterwards.
    (tmp_path / "out").rename(tmp_path / "base")
    again = {"model_name_or_path": tmp_path / "base", "dataset_name_or_path": records, "src_length": 16}
    again |= {"do_train": "false", "do_eval": "true", "max_new_tokens": 6, "max_evaluate_steps": 1}
    assert run_task("sft", eval_with_do_generation="true", **again) == 0
    best = max(evaluations, key=lambda row: (row["eval_rougel"], -row["step"]))
    assert read_metrics(tmp_path / "out")[-1]["eval_rougel"] == pytest.approx(best["eval_rougel"])


def test_data_are_shown_and_nothing_is_trained(
    run_task: RunTask, tokenizer: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records}
    assert run_task("sft", preview_data=3, src_length=16, **options) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 6 and not (tmp_path / "out").exists()
    assert all("⟦make " in line and line.endswith("</s>⟧") for line in shown[1::2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eval_with_do_generation": "true"}, "has no evaluation to go with"),
        ({"metric_for_best_model": "bleu4"}, "--metric_for_best_model: bleu4 is not measured. Give --eval_with_do"),
        ({"metric_for_best_model": "f1"}, "--metric_for_best_model: f1 is not measured. Measured are loss, ppl, acc"),
        ({"packing": "best_fit"}, "--packing: best_fit has no effect, as records are not packed"),
    ],
)
def test_options_that_cannot_work_together_are_refused(
    run_task: RunTask, tokenizer: Path, records: Path, options: dict[str, str], said: str
) -> None:
    base = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records}
    with pytest.raises(RefusedError, match=said):
        run_task("sft", src_length=16, **base, **options)


def test_evaluation_without_data_is_refused(run_task: RunTask, tokenizer: Path, records: Path) -> None:
    (records / "dev.json").unlink()
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": records}
    with pytest.raises((RefusedError, DataError), match="evaluat"):
        run_task("sft", do_eval="true", src_length=16, **options)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name, first in (("train", 0), ("dev", 100)):
        lines = [
            json.dumps({"prompt": f"{k} and {k}", "chosen": f"make {2 * k}", "rejected": f"times {k}"})
            for k in range(first, first + 12)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def test_preference_tuning_learns_which_answer_is_better_and_goes_on(
    run_task: RunTask, tokenizer: Path, pairs: Path, tmp_path: Path
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": pairs}
    options |= {"src_length": 16, "per_device_train_batch_size": 4, "evaluation_strategy": "steps", "eval_steps": 6}
    assert run_task("dpo", max_steps=6, **options) == 0
    assert run_task("dpo", max_steps=12, **options) == 0
    rows = read_metrics(tmp_path / "out")
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == list(range(1, 13))
    assert training[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)  # the model is its own reference yet
    assert training[-1]["loss"] < 0.5
    assert training[-1]["rewards_accuracy"] == 1.0
    assert training[-1]["rewards_margin"] == pytest.approx(
        training[-1]["rewards_chosen"] - training[-1]["rewards_rejected"], abs=1e-5
    )
    evaluations = [row for row in rows if "eval_loss" in row]
    assert len(evaluations) == 2
    assert evaluations[1]["eval_loss"] < evaluations[0]["eval_loss"]
    assert evaluations[1]["eval_rewards_accuracy"] == 1.0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_preference_tuning_of_an_adapter_needs_no_second_model(
    run_task: RunTask, tokenizer: Path, pairs: Path, tmp_path: Path
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": pairs}
    options |= {"src_length": 16, "use_lora": "true", "lora_rank": 4, "max_steps": 6, "learning_rate": 1e-2}
    assert run_task("dpo", **options) == 0
    rows = read_metrics(tmp_path / "out")
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert rows[-1]["loss"] < 0.6 and rows[-1]["rewards_accuracy"] > rows[0]["rewards_accuracy"]
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_preference_tuning_goes_on_from_an_adapter_and_compares_with_it(
    run_task: RunTask, tokenizer: Path, pairs: Path, records: Path, tmp_path: Path
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "src_length": 16, "learning_rate": 1e-2}
    assert run_task("lora", dataset_name_or_path=records, lora_rank=4, **options) == 0
    (tmp_path / "out").rename(tmp_path / "adapter")
    options |= {"dataset_name_or_path": pairs, "use_lora": "true", "lora_path": tmp_path / "adapter"}
    assert run_task("dpo", max_steps=3, **options) == 0
    assert run_task("dpo", max_steps=6, **options) == 0  # the reference is that of the first run still
    rows = read_metrics(tmp_path / "out")
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-5) and rows[0]["rewards_margin"] == 0.0
    assert rows[-1]["step"] == 6 and rows[-1]["loss"] < 0.6
    tuned, begun = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "out", tmp_path / "adapter")
    )
    assert tuned.keys() == begun.keys() and any(np.abs(tuned[name] - begun[name]).max() > 1e-3 for name in tuned)


def test_rates_of_embedding_and_head_are_refused_where_an_adapter_is_trained(
    run_task: RunTask, tokenizer: Path, pairs: Path
) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": pairs}
    with pytest.raises(RefusedError, match=r"--embedding_learning_rate: 0\.01 has no effect with use_lora"):
        run_task("dpo", use_lora="true", embedding_learning_rate=1e-2, src_length=16, **options)
    with pytest.raises(RefusedError, match="--head_learning_rate"):
        run_task("lora", head_learning_rate=1e-2, src_length=16, **options)


def test_options_of_an_adapter_that_is_not_trained_are_refused(run_task: RunTask, tokenizer: Path, pairs: Path) -> None:
    options = {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "dataset_name_or_path": pairs}
    with pytest.raises(RefusedError, match="--lora_rank: 4 has no effect without use_lora"):
        run_task("dpo", lora_rank=4, src_length=16, **options)
