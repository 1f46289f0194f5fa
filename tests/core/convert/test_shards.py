from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llm_run.core.convert.source import find_weights, open_tensors
from llm_run.core.errors import WeightError

INDEX = "model.safetensors.index.json"


def _write(directory: Path, weight_map: object) -> Path:
    for number in (1, 2):
        save_file({f"t{number}": torch.full((2,), float(number))}, directory / f"s{number}.safetensors")
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    source = open_tensors(_write(tmp_path, {"t1": "s1.safetensors", "t2": "s2.safetensors"}))
    assert set(source.entries) == {"t1", "t2"}
    assert source.entries["t2"].file.name == "s2.safetensors"
    assert np.array_equal(source.read("t2"), [2.0, 2.0])


CRAFTED = [
    "../s1.safetensors", "../../etc/passwd", "/etc/passwd", "sub/s1.safetensors", "./s1.safetensors", "..", ".", "",
    "..\\s1.safetensors", "s1.safetensors\0.bin", "s1.safetensors/", "//host/share/s1.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_a_shard_outside_its_directory_is_refused(name: str, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    save_file({"t1": torch.zeros(1)}, tmp_path / "s1.safetensors")
    with pytest.raises(WeightError, match="is not a plain file name") as caught:
        open_tensors(_write(directory, {"t1": name, "t2": "s2.safetensors"}))
    assert INDEX in str(caught.value)


@pytest.mark.parametrize("weight_map", [None, {}, [], "s1.safetensors", {"t1": 3}, {"t1": ["s1.safetensors"]}])
def test_an_index_without_a_map_is_refused(weight_map: object, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="has no weight_map"):
        open_tensors(_write(tmp_path, weight_map))


def test_an_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(WeightError, match="is not valid JSON"):
        open_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"names the shard s3\.safetensors, which is missing"):
        open_tensors(_write(tmp_path, {"t1": "s1.safetensors", "t2": "s3.safetensors"}))


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"says that t9 lies in s2\.safetensors, but no shard holds it"):
        open_tensors(_write(tmp_path, {"t1": "s1.safetensors", "t2": "s2.safetensors", "t9": "s2.safetensors"}))


def test_a_tensor_that_the_index_does_not_list_is_named(tmp_path: Path) -> None:
    directory = _write(tmp_path, {"t1": "s1.safetensors", "t2": "s2.safetensors"})
    save_file({"t2": torch.zeros(1), "stale": torch.zeros(1)}, directory / "s2.safetensors")
    with pytest.raises(WeightError, match=r"says that stale lies in no shard, but s2\.safetensors holds it"):
        open_tensors(directory)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    directory = _write(tmp_path, {"t1": "s1.safetensors", "t2": "s2.safetensors"})
    save_file({"t1": torch.zeros(1), "t2": torch.zeros(1)}, directory / "s2.safetensors")
    with pytest.raises(WeightError, match=r"t1 lies in two shards, s1\.safetensors and s2\.safetensors"):
        open_tensors(directory)


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    for name in ("model_state.pdparams", "pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
        assert find_weights(tmp_path).name == name


def test_a_directory_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"holds no weights\. Looked for model\.safetensors, pytorch_model\.bin"):
        open_tensors(tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"nowhere: does not exist"):
        open_tensors(tmp_path / "nowhere")


def test_one_of_several_gguf_files_must_be_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(WeightError, match=r"holds 2 GGUF files\. Name one of them"):
        open_tensors(tmp_path)


def test_one_ranks_part_of_a_parallel_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_state.tp00.pdparams").touch()
    with pytest.raises(WeightError, match=r"tp00\.pdparams: is one rank's part of a parallel checkpoint"):
        open_tensors(tmp_path)


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").touch()
    with pytest.raises(WeightError, match=r"weights\.npz: is no weight file that can be read"):
        open_tensors(tmp_path / "weights.npz")
