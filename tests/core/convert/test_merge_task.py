from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models

from llm_run.core.cli import main
from llm_run.core.convert.source import open_tensors

Tensors = dict[str, np.ndarray]
COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head")
ROWS = ("o_proj", "down_proj", "embed_tokens")


def _merge(source: Path, target: Path, *more: str) -> int:
    return main(["--task", "merge_shards", "--model_name_or_path", str(source), "--output_path", str(target), *more])


@pytest.fixture
def whole(hf_tiny: Path) -> Tensors:
    """The tiny llama as one file of PaddleNLP would have it."""
    tensors = {}
    for name, array in load_file(hf_tiny / "model.safetensors").items():
        is_linear = array.ndim == 2 and "embed_tokens" not in name
        tensors[name.replace("model.", "llama.")] = array.T if is_linear else array
    return tensors


@pytest.fixture
def write(hf_tiny: Path, whole: Tensors, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the files of two tensor-parallel ranks, with a configuration and a tokenizer."""

    def make(change: Callable[[dict[str, Tensors]], object] = lambda files: None, **fields: object) -> Path:
        folder = tmp_path / "ranks"
        folder.mkdir()
        files: dict[str, Tensors] = {f"model_state.tp{rank:02d}.pdparams": {} for rank in range(2)}
        for name, array in whole.items():
            layer = name.split(".")[-2]
            axis = -1 if layer in COLUMNS else 0
            parts = np.split(array, 2, axis=axis) if layer in (*COLUMNS, *ROWS) else [array, array]
            for tensors, part in zip(files.values(), parts, strict=True):
                tensors[name] = part
        change(files)
        for file, tensors in files.items():
            (folder / file).write_bytes(pickle.dumps(tensors, protocol=4))
        known = json.loads((hf_tiny / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**known, "tensor_parallel_degree": 2, **fields}))
        Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
        return folder

    return make


def test_files_of_two_ranks_become_the_directory_they_came_from(
    write: Callable[..., Path], hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write()
    (source / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    assert _merge(source, tmp_path / "out", "--max_shard_size", "0.0004") == 0
    expected, found = load_file(hf_tiny / "model.safetensors"), open_tensors(tmp_path / "out")
    assert expected.keys() == found.entries.keys()
    assert len({entry.file for entry in found.entries.values()}) > 1
    for name, array in expected.items():
        assert found.read(name).tobytes() == np.ascontiguousarray(array).tobytes()
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= written
    assert "tensor_parallel_degree" not in json.loads((tmp_path / "out" / "config.json").read_text())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["merged"] == {
        "tensor_parallel_degree": 2, "from": ["model_state.tp00.pdparams", "model_state.tp01.pdparams"],
        "found": {"largest_difference_of_copies": 0.0},
    }  # fmt: skip
    assert report["round_trip"] == {"tensors": 39, "unchanged": 39, "equal_bits": True}
    said = f"{tmp_path / 'out'}: 39 tensors from 2 files, 0.00 GB, read back equal to the bit. See report.json."
    assert capsys.readouterr().out.strip().splitlines()[-1] == said


def test_transformers_computes_with_the_result(write: Callable[..., Path], hf_tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    assert _merge(write(), tmp_path / "out") == 0
    ids = torch.arange(24).reshape(1, -1)
    first, second = (AutoModelForCausalLM.from_pretrained(path) for path in (hf_tiny, tmp_path / "out"))
    with torch.no_grad():
        assert torch.equal(first(ids).logits, second(ids).logits)


def test_copies_that_drifted_by_rounding_are_reported(write: Callable[..., Path], tmp_path: Path) -> None:
    def drift(files: dict[str, Tensors]) -> None:
        files["model_state.tp01.pdparams"]["llama.norm.weight"] = files["model_state.tp01.pdparams"][
            "llama.norm.weight"
        ] * np.float32(1 + 1e-6)

    assert _merge(write(drift), tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())["merged"]["found"]
    assert 5e-7 < found["largest_difference_of_copies"] < 2e-6


Q, NORM = "llama.layers.1.self_attn.q_proj.weight", "llama.norm.weight"
SECOND = "model_state.tp01.pdparams"
BROKEN = {
    "a file that is missing": (
        lambda files: files.pop(SECOND),
        "ranks: model_state.tp01.pdparams is missing, of 2 tensor-parallel ranks and 1 pipeline stage. Copy all files.",
    ),
    "a tensor that is missing": (
        lambda files: files[SECOND].pop(Q),
        f"{SECOND}: 1 tensor does not fit the model: {Q} is missing.",
    ),
    "a tensor that is unknown": (
        lambda files: files[SECOND].update({"llama.extra.weight": np.ones(3, np.float32)}),
        f"1 tensor does not fit the model: llama.extra.weight (in {SECOND}) is unknown.",
    ),
    "a tensor of another shape": (
        lambda files: files[SECOND].update({Q: np.ones([64, 30], np.float32)}),
        f"{Q} (in {SECOND}) has shape [64, 30] instead of [64, 32].",
    ),
    "copies of different checkpoints": (
        lambda files: files[SECOND].update({NORM: files[SECOND][NORM] * np.float32(1.1)}),
        f"model_state.tp00.pdparams and {SECOND}: norm.weight: must be the same on every rank, and differs by 0.1 of",
    ),
    "two files of one rank": (
        lambda files: files.update({"model_state.tp01_pp00.pdparams": files[SECOND]}),
        "ranks: model_state.tp01.pdparams and model_state.tp01_pp00.pdparams are of the same rank. Remove one.",
    ),
    "a file of no rank": (
        lambda files: files.update({"model_state.shard01.pdparams": files[SECOND]}),
        "model_state.shard01.pdparams: is of no rank that can be merged. Such files are called model_state.tp00_pp00.",
    ),
    "more files than ranks": (
        lambda files: files.update({"model_state.tp02.pdparams": files[SECOND]}),
        "ranks: there are files of 3 ranks, but config.json has tensor_parallel_degree 2. Keep the files of one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_does_not_fit_ends_with_one_line_and_leaves_nothing(
    kind: str, write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said = BROKEN[kind]
    assert _merge(write(change), tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ranks"]


def test_stages_may_share_a_tensor_if_they_agree_on_it(
    write: Callable[..., Path], whole: Tensors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def into_stages(factor: float) -> Callable[[dict[str, Tensors]], None]:
        def change(files: dict[str, Tensors]) -> None:
            files.clear()
            first = {name: array for name, array in whole.items() if "lm_head" not in name}
            last = {"lm_head.weight": whole["lm_head.weight"], NORM: whole[NORM] * np.float32(factor)}
            files.update({"model_state.pp00.pdparams": first, "model_state.pp01.pdparams": last})

        return change

    source = write(into_stages(1.0), tensor_parallel_degree=-1)
    assert _merge(source, tmp_path / "out") == 0
    shutil.rmtree(source)
    source = write(into_stages(2.0), tensor_parallel_degree=-1)
    assert _merge(source, tmp_path / "other") == 1
    said = f"{source}: {NORM} lies in model_state.pp00.pdparams and in model_state.pp01.pdparams, with other values."
    assert said in capsys.readouterr().err


def test_a_file_of_one_rank_stands_for_all(write: Callable[..., Path], tmp_path: Path) -> None:
    assert _merge(write() / SECOND, tmp_path / "out") == 0
    assert len(open_tensors(tmp_path / "out").entries) == 39


def test_a_hostile_pickle_is_refused(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write()
    (source / SECOND).write_bytes(b"\x80\x02cos\nmkdir\nX\x06\0\0\0canaryR.")
    assert _merge(source, tmp_path / "out") == 1
    assert f"{source / SECOND}: asks for os.mkdir, which no weight file needs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_whole_already_is_sent_to_convert(
    hf_tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _merge(hf_tiny, tmp_path / "out") == 2
    said = f"--model_name_or_path: {hf_tiny} is whole already: model.safetensors. Use --task convert for another format"
    assert said in capsys.readouterr().err


def test_other_tasks_say_how_to_merge(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    source = write()
    assert main(["--task", "convert", "--model_name_or_path", str(source), "--output_path", "x"]) == 1
    assert f"Merge it first: llm-run --task merge_shards --model_name_or_path {source}" in capsys.readouterr().err
