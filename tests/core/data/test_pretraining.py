"""Pretraining data of a run: which files, which documents, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.data.pretraining import open_pretraining_data
from llm_run.core.data.split import find_parts, split_documents
from llm_run.core.data.token_writer import TokenFileWriter
from llm_run.core.errors import DataError, RefusedError
from llm_run.core.run import Run

MakeRun = Callable[..., Run]


def write(prefix: Path, *documents: list[int], vocab_size: int = 600) -> Path:
    """Write a token file."""
    with TokenFileWriter(prefix, vocab_size) as writer:
        for document in documents:
            writer.add(np.array(document), np.array([len(document)]))
        writer.finish()
    return prefix


def test_training_and_evaluation_read_different_documents(tmp_path: Path, make_run: MakeRun) -> None:
    write(tmp_path / "c", *([number] * 9 for number in range(10)))
    run = make_run("pretrain", input_dir=str(tmp_path), split="8,2", max_length=4, do_eval=True)
    train, evaluation = open_pretraining_data(run, 100)
    assert train is not None and evaluation is not None
    seen = {int(token) for position in range(100) for token in train.sample(position).ids}
    assert seen == set(range(8))
    assert {int(token) for position in range(evaluation.epoch_size) for token in evaluation.sample(position).ids} == {
        8,
        9,
    }
    sample = train.sample(5)
    assert sample.segments.tolist() == [1] * 4 and not sample.prefix.any()


def test_a_dev_file_in_the_folder_is_the_evaluation_data_and_the_rest_is_not_split(
    tmp_path: Path, make_run: MakeRun
) -> None:
    write(tmp_path / "en.train", *([number] * 9 for number in range(10)))
    write(tmp_path / "en.dev", [50] * 20)
    run = make_run("pretrain", input_dir=str(tmp_path), max_length=4, do_eval=True)
    train, evaluation = open_pretraining_data(run, 100)
    assert train is not None and evaluation is not None
    assert {int(token) for position in range(100) for token in train.sample(position).ids} == set(range(10))
    assert set(evaluation.sample(0).ids.tolist()) == {50}


def test_weights_and_prefixes_are_a_blend(tmp_path: Path, make_run: MakeRun) -> None:
    one, other = write(tmp_path / "one", [1] * 100), write(tmp_path / "other", [2] * 100)
    run = make_run("pretrain", input_dir=f"3 {one} 1 {other}", split="1", max_length=4)
    train, evaluation = open_pretraining_data(run, 40)
    assert train is not None and evaluation is None
    firsts = [int(train.sample(position).ids[0]) for position in range(40)]
    assert (firsts.count(1), firsts.count(2)) == (30, 10)


def test_the_fingerprint_follows_content_and_seed_but_not_the_place(tmp_path: Path, make_run: MakeRun) -> None:
    prints = []
    for folder, token, seed in (("a", 1, 42), ("b", 1, 42), ("c", 2, 42), ("d", 1, 43)):
        write(tmp_path / folder / "x", [token] * 100)
        run = make_run("pretrain", input_dir=str(tmp_path / folder), split="1", max_length=4, seed=seed)
        train, _ = open_pretraining_data(run, 1)
        assert train is not None
        prints.append(train.fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_a_token_that_the_model_lacks_is_found_before_training(tmp_path: Path, make_run: MakeRun) -> None:
    write(tmp_path / "x", [1, 2, 3, 700] * 20)
    run = make_run("pretrain", input_dir=str(tmp_path), split="1", max_length=4)
    with pytest.raises(DataError, match=r"x: holds token id 700, but the model's vocabulary has 600 tokens\."):
        open_pretraining_data(run, 1)


def test_a_share_without_documents_is_named(tmp_path: Path, make_run: MakeRun) -> None:
    write(tmp_path / "x", [1] * 100)
    run = make_run("pretrain", input_dir=str(tmp_path), max_length=4, do_eval=True)
    with pytest.raises(DataError, match=r"x: --split 949,50,1 leaves none of its 1 documents for evaluation\."):
        open_pretraining_data(run, 1)


def test_a_folder_with_dev_files_only_is_named(tmp_path: Path, make_run: MakeRun) -> None:
    write(tmp_path / "x.valid", [1] * 100)
    run = make_run("pretrain", input_dir=str(tmp_path), max_length=4)
    with pytest.raises(DataError, match=r"holds no token files for training, only for evaluation\."):
        open_pretraining_data(run, 1)


def test_missing_input_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(RefusedError, match=r"--input_dir: is missing\. Give a folder of token files"):
        open_pretraining_data(make_run("pretrain"), 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "nowhere",
            r"--input_dir: nowhere is neither a folder nor a prefix: there is no nowhere\.idx or nowhere_idx\.npz\.",
        ),
        ("1 a 2", r"'1 a 2' is neither a folder nor a prefix nor a blend\. Write a blend as `weight prefix"),
        ("a 1 b 2", r"is neither a folder nor a prefix nor a blend"),
        ("0 a 1 b", r"weights above 0"),
    ],
)
def test_what_is_no_input_is_refused(text: str, said: str) -> None:
    with pytest.raises((DataError, RefusedError), match=said):
        find_parts(text)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no token files \(\.idx, _idx\.npz\)"):
        find_parts(str(tmp_path))


@pytest.mark.parametrize("split", ["", "a,b", "-1,2", "0,0,0", "1,1,1,1", "nan", "inf,1"])
def test_what_is_no_split_is_refused(split: str) -> None:
    with pytest.raises(RefusedError, match=r"is not a split\. Write shares of training, evaluation and test"):
        split_documents(split, 10)
