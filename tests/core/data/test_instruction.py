"""Instruction data of a run: files, order, packing, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.instruction import find_files, open_instruction_data
from llm_run.core.data.sample import SampleSource
from llm_run.core.data.tokenizers import JsonTokenizer
from llm_run.core.errors import DataError, RefusedError
from llm_run.core.run import Run

MakeRun = Callable[..., Run]
Write = Callable[..., Path]
CHATML = ChatTemplate(
    jinja="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    stop=("<|im_end|>",),
)


def pairs(count: int) -> list[dict[str, str]]:
    """Records whose answers are all different."""
    return [{"src": "the dog", "tgt": "fox " * (place % 5) + str(place)} for place in range(count)]


@pytest.fixture
def opened(make_run: MakeRun, bpe: JsonTokenizer) -> Callable[..., SampleSource]:
    """Open a file as training data."""

    def open_file(path: Path, template: ChatTemplate | None = None, **values: Any) -> SampleSource:
        values = {"src_length": 16, "max_length": 32, **values}
        train, _ = open_instruction_data(make_run("sft", dataset_name_or_path=str(path), **values), bpe, template)
        assert train is not None
        return train

    return open_file


def test_an_epoch_holds_every_record_once_in_an_order_of_its_own(
    write_lines: Write, opened: Any, bpe: JsonTokenizer
) -> None:
    source = opened(write_lines("a.jsonl", *pairs(30)))
    assert source.epoch_size == 30
    epochs = [
        [bytes(source.sample(position).ids) for position in range(30 * epoch, 30 * epoch + 30)] for epoch in range(3)
    ]
    assert len(set(epochs[0])) == 30
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]
    assert bytes(source.sample(77).ids) == epochs[2][17]


def test_order_and_fingerprint_follow_from_data_and_seed(write_lines: Write, opened: Any) -> None:
    path, other = write_lines("a.jsonl", *pairs(30)), write_lines("b.jsonl", *pairs(31))
    first = opened(path)
    order = [bytes(first.sample(position).ids) for position in range(60)]
    again = opened(path)
    assert [bytes(again.sample(position).ids) for position in reversed(range(60))] == order[::-1]
    assert first.fingerprint == again.fingerprint
    changed = [opened(path, seed=1), opened(other), opened(path, CHATML), opened(path, zero_padding=True)]
    assert len({source.fingerprint for source in (first, *changed)}) == 5
    assert [bytes(changed[0].sample(position).ids) for position in range(30)] != order[:30]


@pytest.mark.parametrize("packing", ["in_order", "best_fit"])
@pytest.mark.parametrize("lazy", [False, True])
def test_packed_rows_hold_the_records_of_unpacked_ones(
    write_lines: Write, opened: Any, packing: str, lazy: bool
) -> None:
    path = write_lines("a.jsonl", *pairs(40))
    plain, packed = opened(path), opened(path, zero_padding=True, packing=packing, lazy=lazy)
    assert packed.epoch_size < plain.epoch_size
    pieces = []
    for position in range(packed.epoch_size):
        row = packed.sample(position)
        assert len(row.ids) <= 32
        for segment in range(1, int(row.segments.max()) + 1):
            here = row.segments == segment
            pieces.append((row.ids[here].tolist(), row.labels[here].tolist()))
    samples = [plain.sample(position) for position in range(40)]
    assert sorted(pieces) == sorted((sample.ids.tolist(), sample.labels.tolist()) for sample in samples)


def test_evaluation_keeps_the_order_of_the_file(
    write_lines: Write, make_run: MakeRun, bpe: JsonTokenizer, tmp_path: Path
) -> None:
    write_lines("set/train.json", *pairs(5))
    write_lines("set/dev.jsonl", *pairs(20))
    run = make_run("sft", dataset_name_or_path=str(tmp_path / "set"), do_eval=True, src_length=16, max_length=32)
    train, evaluation = open_instruction_data(run, bpe, None)
    assert train is not None and evaluation is not None and (train.epoch_size, evaluation.epoch_size) == (5, 20)
    for place, record in enumerate(pairs(20)):
        ids = evaluation.sample(place).ids.tolist()
        assert ids == bpe.encode(record["src"]) + bpe.encode(record["tgt"])


def test_what_the_run_does_not_do_is_not_read(
    write_lines: Write, make_run: MakeRun, bpe: JsonTokenizer, tmp_path: Path
) -> None:
    write_lines("set/train.json", *pairs(5))
    write_lines("set/dev.json", "broken")
    run = make_run("sft", dataset_name_or_path=str(tmp_path / "set"), src_length=16, max_length=32)
    assert open_instruction_data(run, bpe, None)[1] is None
    run = make_run(
        "sft", dataset_name_or_path=str(tmp_path / "set/train.json"), do_eval=True, src_length=16, max_length=32
    )
    with pytest.raises(
        DataError, match=r"train\.json: has no evaluation records\. Give them as --eval_dataset, or turn"
    ):
        open_instruction_data(run, bpe, None)
    write_lines("set/dev.json", *pairs(2))
    run = make_run(
        "sft", dataset_name_or_path=str(tmp_path / "set"), do_train=False, do_eval=True, src_length=16, max_length=32
    )
    train, evaluation = open_instruction_data(run, bpe, None)
    assert train is None and evaluation is not None


def test_a_bad_record_stops_the_run_with_its_line(write_lines: Write, opened: Any) -> None:
    path = write_lines("a.jsonl", *pairs(3), {"src": "no answer"})
    with pytest.raises(
        DataError, match=r"a\.jsonl:4: 'tgt' is missing; expected .*\(--on_bad_record skip leaves such records out\.\)"
    ):
        opened(path)


def test_skipped_records_are_counted_and_named(
    write_lines: Write, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_lines("a.jsonl", *pairs(3), {"src": "no answer"}, "broken", *pairs(2))
    with caplog.at_level(logging.INFO, "llm_run.data"):
        assert opened(path, on_bad_record="skip").epoch_size == 5
    assert "2 were skipped" in caplog.text
    assert "a.jsonl:4: 'tgt' is missing" in caplog.text and "a.jsonl:5: is not a JSON object" in caplog.text


def test_a_file_of_bad_records_only_is_an_error(write_lines: Write, opened: Any) -> None:
    with pytest.raises(
        DataError, match=r"a\.jsonl: no record is left to train on\. .*a\.jsonl:1: is not a JSON object"
    ):
        opened(write_lines("a.jsonl", "x", "y"), on_bad_record="skip")


def test_the_share_of_learnt_tokens_is_said(
    write_lines: Write, opened: Any, bpe: JsonTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "llm_run.data"):
        opened(write_lines("a.jsonl", {"src": "the dog", "tgt": "fox"}))
    learnt, total = len(bpe.encode("fox")) + 1, len(bpe.encode("the dog")) + len(bpe.encode("fox")) + 1
    assert f"1 records, {total} tokens, {100 * learnt / total:.1f} % of them learnt" in caplog.text


def test_lengths_that_leave_no_room_are_refused(write_lines: Write, opened: Any) -> None:
    with pytest.raises(RefusedError, match=r"--src_length: 32 leaves no room for an answer within max_length 32\."):
        opened(write_lines("a.jsonl", *pairs(3)), src_length=32)


def test_missing_data_is_refused(make_run: MakeRun, bpe: JsonTokenizer) -> None:
    with pytest.raises(
        RefusedError, match=r"--dataset_name_or_path: is missing\. Give a folder or a file of records\."
    ):
        open_instruction_data(make_run("sft"), bpe, None)


def test_folders_of_files_are_found(write_lines: Write, tmp_path: Path) -> None:
    for name in ("set/train/b.jsonl", "set/train/a.json", "set/train/notes.txt", "set/dev/c.json"):
        write_lines(name, *pairs(1))
    train, dev = find_files(str(tmp_path / "set"), None)
    assert [path.name for path in train] == ["a.json", "b.jsonl"]
    assert [path.name for path in dev] == ["c.json"]
    assert find_files(str(tmp_path / "set" / "train" / "a.json"), str(tmp_path / "set"))[1] == dev


def test_a_folder_without_records_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no records\. Looked for train and dev, as files \(\.json, \.jsonl"):
        find_files(str(tmp_path), None)
    with pytest.raises(
        DataError,
        match=r"--dataset_name_or_path: AdvertiseGen is neither a file nor a folder\. Named data sets are not",
    ):
        find_files("AdvertiseGen", None)


def test_real_conversations_are_learnt_whole(shared: Path, make_run: MakeRun, bpe: JsonTokenizer) -> None:
    run = make_run(
        "sft", dataset_name_or_path=str(shared / "chat/kdconv_zh.dev.jsonl"), src_length=2000, max_length=4000
    )
    train, _ = open_instruction_data(run, bpe, CHATML)
    assert train is not None
    sample = train.sample(0)
    learnt = sample.labels[sample.labels >= 0]
    assert np.count_nonzero(learnt == bpe.token_id("<|im_end|>")) > 3
    assert sample.labels[-1] == bpe.token_id("<|im_end|>")
