from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from llm_run.core.cli import main
from llm_run.core.convert.source import open_tensors


def _directory(hf_tiny: Path, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Copy the tiny model in another dtype, norms left in float32, and give it a tokenizer."""
    directory.mkdir()
    tensors = {
        name: tensor if "norm" in name else tensor.to(dtype)
        for name, tensor in load_file(hf_tiny / "model.safetensors").items()
    }
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text((hf_tiny / "config.json").read_text())
    Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")).save(str(directory / "tokenizer.json"))
    return directory


def _convert(source: Path, target: Path, *more: str) -> int:
    return main(["--task", "convert", "--model_name_or_path", str(source), "--output_path", str(target), *more])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_keep_gives_back_equal_bits(dtype: torch.dtype, hf_tiny: Path, tmp_path: Path) -> None:
    source = _directory(hf_tiny, tmp_path / "in", dtype)
    assert _convert(source, tmp_path / "out") == 0
    before, after = open_tensors(source), open_tensors(tmp_path / "out")
    assert before.entries.keys() == after.entries.keys()
    for name, entry in before.entries.items():
        assert after.entries[name].dtype == entry.dtype
        assert before.read(name).tobytes() == after.read(name).tobytes()
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["dtype"] == str(dtype).removeprefix("torch.")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["round_trip"]["unchanged"] == report["round_trip"]["tensors"]


def test_another_dtype_is_written_where_it_is_asked_for(hf_tiny: Path, tmp_path: Path) -> None:
    source = _directory(hf_tiny, tmp_path / "in")
    assert _convert(source, tmp_path / "out", "--save_dtype", "bfloat16", "--max_shard_size", "0.0002") == 0
    written = open_tensors(tmp_path / "out")
    assert {entry.dtype for entry in written.entries.values()} == {"bfloat16"}
    assert len({entry.file for entry in written.entries.values()}) > 1
    expected = load_file(source / "model.safetensors")["lm_head.weight"].bfloat16().view(torch.int16).numpy()
    assert np.array_equal(written.read("lm_head.weight").view(np.int16), expected)


def test_what_was_done_is_said_in_one_line(hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _convert(_directory(hf_tiny, tmp_path / "in"), tmp_path / "out")
    assert capsys.readouterr().out.strip().splitlines()[-1] == (
        f"{tmp_path / 'out'}: 39 tensors, 0.00 GB, read back equal to the bit. See report.json."
    )


def test_a_folder_in_use_is_refused(hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _directory(hf_tiny, tmp_path / "in")
    assert _convert(source, source) == 2
    assert f"--output_path: {source} is not an empty folder. Give a new one." in capsys.readouterr().err


def test_a_model_without_tokenizer_is_told_where_to_name_one(
    hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _directory(hf_tiny, tmp_path / "in")
    (source / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert _convert(source, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"{source}: holds no tokenizer of a llama." in said
    assert said.endswith("Or name another folder with --tokenizer_name_or_path.\n")
    assert _convert(source, tmp_path / "out", "--tokenizer_name_or_path", str(tmp_path)) == 0


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, other = _directory(hf_tiny, tmp_path / "in"), tmp_path / "other"
    other.mkdir()
    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, 70_000)}}
    Tokenizer(models.WordLevel(words, unk_token="<unk>")).save(str(other / "tokenizer.json"))
    assert _convert(source, tmp_path / "out", "--tokenizer_name_or_path", str(other)) == 2
    assert f"--tokenizer_name_or_path: {other} has 70000 tokens, more than the " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_hostile_pickle_ends_with_status_1_and_leaves_nothing(
    hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _directory(hf_tiny, tmp_path / "in")
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nmkdir\nX\x06\0\0\0canaryR.")
    assert _convert(source, tmp_path / "out") == 1
    assert f"{source}/pytorch_model.bin: is no zip archive" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]


def test_a_wrong_shape_ends_with_status_1_and_names_file_and_tensor(
    hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _directory(hf_tiny, tmp_path / "in")
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(63)
    save_file(tensors, source / "model.safetensors")
    assert _convert(source, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "model.norm.weight (in model.safetensors) has shape [63] instead of [64]" in error
    assert not (tmp_path / "out").exists()


def test_smollm2_becomes_a_directory_that_transformers_answers_with(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert _convert(smollm2, tmp_path / "out") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
