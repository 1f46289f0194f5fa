"""A checkpoint of a run, merged: it is what training would have written at that step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llm_run.core.cli import main

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}</s>{% endfor %}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of fine-tuning in ``run``, and of an adapter in ``lora``, with what they were told."""
    folder = tmp_path_factory.mktemp("runs")
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    (folder / "tokenizer").mkdir()
    made.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (folder / "template.jinja").write_text(TEMPLATE)
    (folder / "data").mkdir()
    lines = [json.dumps({"src": f"{k} and {k}", "tgt": f"make {2 * k}"}) for k in range(8)]
    for name in ("train", "dev"):
        (folder / "data" / f"{name}.json").write_text("\n".join(lines))
    for task in ("sft", "lora"):
        words = (
            f"--task {task} --family llama --model_size tiny --tokenizer_name_or_path {folder}/tokenizer "
            "--max_length 64 "
            f"--dataset_name_or_path {folder}/data --src_length 32 --max_steps 2 --save_steps 1 --logging_steps 1 "
            f"--per_device_train_batch_size 2 --output_dir {folder}/{task} --chat_template {folder}/template.jinja "
            "--save_rehearsal false"
        )
        assert main(words.split()) == 0
    return folder


def merge(source: Path, target: Path, *more: str) -> int:
    return main(["--task", "merge_shards", "--model_name_or_path", str(source), "--output_path", str(target), *more])


def test_the_last_checkpoint_becomes_the_directory_that_training_ended_with(place: Path, tmp_path: Path) -> None:
    assert merge(place / "sft" / "checkpoint-2", tmp_path / "out") == 0
    merged = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert json.loads(merged.pop("report.json"))["merged"]["step"] == 2
    assert "model.safetensors" in merged and merged["chat_template.jinja"] == TEMPLATE.encode()
    for name, content in merged.items():
        assert content == (place / "sft" / name).read_bytes(), name


def test_a_checkpoint_that_was_moved_needs_a_tokenizer(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "sft" / "checkpoint-1", tmp_path / "checkpoint-1")
    assert merge(tmp_path / "checkpoint-1", tmp_path / "out") == 2
    said = f"--tokenizer_name_or_path: is needed: there is no {tmp_path}/run.json that names it. Name the tokenizer"
    assert said in capsys.readouterr().err
    told = {name: {"value": "/nowhere"} for name in ("tokenizer_name_or_path", "model_name_or_path", "chat_template")}
    (tmp_path / "run.json").write_text(json.dumps({"options": told}))
    assert merge(tmp_path / "checkpoint-1", tmp_path / "out") == 2
    assert f"{tmp_path}/run.json names /nowhere, which does not exist here" in capsys.readouterr().err
    (tmp_path / "run.json").unlink()
    assert merge(tmp_path / "checkpoint-1", tmp_path / "out", "--tokenizer_name_or_path", f"{place}/tokenizer") == 0
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_a_run_that_has_not_ended_is_told_its_newest_checkpoint(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("checkpoint-1", "checkpoint-2"):
        shutil.copytree(place / "sft" / name, tmp_path / "run" / name)
    assert merge(tmp_path / "run", tmp_path / "out") == 2
    said = f"{tmp_path}/run: has no config.json. Its newest checkpoint is {tmp_path}/run/checkpoint-2; --task merge"
    assert said in capsys.readouterr().err


def test_an_adapters_checkpoint_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert merge(place / "lora" / "checkpoint-2", tmp_path / "out") == 2
    assert "is of --task lora and holds an adapter only" in capsys.readouterr().err


def test_a_flipped_bit_is_found_before_anything_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "sft" / "checkpoint-2", tmp_path / "checkpoint-2")
    file = tmp_path / "checkpoint-2" / "model-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert merge(tmp_path / "checkpoint-2", tmp_path / "out") == 1
    assert f"{file}: is damaged (SHA-256 differs from MANIFEST.json)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_tasks_say_how_to_merge(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = place / "sft" / "checkpoint-2"
    words = ["--task", "convert", "--model_name_or_path", str(source), "--output_path", str(place / "no")]
    assert main([*words, "--tokenizer_name_or_path", str(place / "tokenizer")]) == 1
    assert f"{source}: is a checkpoint of a training run. Merge it first: llm-run --task merge_shards" in (
        capsys.readouterr().err
    )
