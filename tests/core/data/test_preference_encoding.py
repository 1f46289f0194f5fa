"""What is cut, what is learnt, and how pairs lie in rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.encoding import Encoder
from llm_run.core.data.instruction import open_instruction_data
from llm_run.core.data.preference_encoding import PreferenceEncoder
from llm_run.core.data.sample import IGNORED
from llm_run.core.data.tokenizers import JsonTokenizer
from llm_run.core.errors import DataError

CHATML = ChatTemplate(
    jinja="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    stop=("<|im_end|>",),
)
TURNS = [
    {"role": "system", "content": "be kind"}, {"role": "user", "content": "the fox"},
    {"role": "assistant", "content": "jumps"}, {"role": "user", "content": "the lazy dog"},
]  # fmt: skip
RECORD = {"messages": TURNS, "chosen": "does not mind", "rejected": "does mind"}


def encode(bpe: JsonTokenizer, record: Any, src_length: int = 64, max_length: int = 128) -> list[tuple[str, str]]:
    """Prompt and learnt part of each side, as text."""
    encoder = PreferenceEncoder(Encoder(bpe, CHATML, src_length, max_length))
    texts = []
    for encoded in encoder.encode_record(record):
        first = encoded.supervised.index(True)
        assert all(encoded.supervised[first:]) and len(encoded.ids) <= max_length
        parts = (encoded.ids[:first], encoded.ids[first:])
        texts.append(tuple(bpe.decode(part, skip_special=False) for part in parts))
    return texts


PROMPT = (
    "<|im_start|>system\nbe kind<|im_end|>\n"
    "<|im_start|>user\nthe fox<|im_end|>\n<|im_start|>assistant\njumps<|im_end|>\n"
    "<|im_start|>user\nthe lazy dog<|im_end|>\n<|im_start|>assistant\n"
)


def test_only_the_last_answer_is_learnt(bpe: JsonTokenizer) -> None:
    assert encode(bpe, RECORD) == [(PROMPT, "does not mind<|im_end|>"), (PROMPT, "does mind<|im_end|>")]


def test_the_oldest_round_is_left_out_of_both_where_the_longer_one_does_not_fit(bpe: JsonTokenizer) -> None:
    encoder = PreferenceEncoder(Encoder(bpe, CHATML, 64, 1000))
    longer, shorter = sorted((len(side.ids) for side in encoder.encode_record(RECORD)), reverse=True)
    assert longer > shorter
    sides = encode(bpe, RECORD, 16, longer - 1)
    without = PROMPT.replace("<|im_start|>user\nthe fox<|im_end|>\n<|im_start|>assistant\njumps<|im_end|>\n", "")
    assert sides == [(without, "does not mind<|im_end|>"), (without, "does mind<|im_end|>")]


def test_a_question_that_is_too_long_is_cut_alike_for_both(bpe: JsonTokenizer) -> None:
    record = {"prompt": "the fox and the dog " * 8, "chosen": "jumps", "rejected": "does mind"}
    (prompt, good), (other, bad) = encode(bpe, record, 24, 48)
    assert prompt == other and prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    encoder = PreferenceEncoder(Encoder(bpe, CHATML, 24, 48))
    assert [side.supervised.index(True) <= 24 for side in encoder.encode_record(record)] == [True, True]
    assert (good, bad) == ("jumps<|im_end|>", "does mind<|im_end|>")


def test_answers_that_differ_only_beyond_the_longest_length_are_refused(bpe: JsonTokenizer) -> None:
    record = {"prompt": "a", "chosen": "the dog " * 40 + "yes", "rejected": "the dog " * 40 + "no"}
    with pytest.raises(DataError, match="the answers are the same within max_length 64"):
        encode(bpe, record, 16, 64)


def test_several_rounds_need_a_template(bpe: JsonTokenizer) -> None:
    encoder = PreferenceEncoder(Encoder(bpe, None, 64, 128))
    with pytest.raises(DataError, match="several rounds need a chat template"):
        encoder.encode_record(RECORD)
    one = encoder.encode_record({"prompt": "the fox", "chosen": "jumps", "rejected": "does mind"})
    assert [bpe.decode(side.ids, skip_special=False) for side in one] == [
        "the foxjumps<|endoftext|>", "the foxdoes mind<|endoftext|>",
    ]  # fmt: skip


@pytest.fixture
def opened(make_run: Any, bpe: JsonTokenizer, write_lines: Callable[..., Path]) -> Callable[..., Any]:
    """Open 20 pairs as training data."""
    records = [
        {"prompt": f"the fox {place}", "chosen": "jumps " * (1 + place % 4), "rejected": f"{place}"}
        for place in range(20)
    ]
    path = write_lines("pairs.jsonl", *records)

    def open_pairs(**values: Any) -> Any:
        run = make_run("dpo", dataset_name_or_path=str(path), src_length=16, max_length=32, **values)
        return open_instruction_data(run, bpe, None)[0]

    return open_pairs


def test_a_row_is_a_pair_chosen_first(opened: Any, bpe: JsonTokenizer) -> None:
    source = opened()
    assert source.epoch_size == 20
    for position in range(20):
        row = source.sample(position)
        assert set(row.segments) == {1, 2}
        chosen, rejected = (row.labels[(row.segments == segment) & (row.labels != IGNORED)] for segment in (1, 2))
        assert "jumps" in bpe.decode(chosen.tolist()) and "jumps" not in bpe.decode(rejected.tolist())


@pytest.mark.parametrize("packing", ["in_order", "best_fit"])
def test_packed_rows_hold_the_same_pairs_and_no_half_one(opened: Any, packing: str) -> None:
    plain, packed = opened(), opened(zero_padding=True, packing=packing)
    assert packed.epoch_size < 20
    rows = [packed.sample(position) for position in range(packed.epoch_size)]
    assert all(row.segments.max() % 2 == 0 and len(row.ids) <= 64 for row in rows)
    assert sum(int(row.segments.max()) for row in rows) == 40
    answers = {bytes(plain.sample(position).ids) for position in range(20)}
    found = {
        bytes(row.ids[(row.segments == first) | (row.segments == first + 1)])
        for row in rows
        for first in range(1, int(row.segments.max()), 2)
    }
    assert found == answers


def test_pairs_that_stay_in_their_file_are_the_same(opened: Any) -> None:
    plain, lazy = opened(), opened(lazy=True)
    assert lazy.epoch_size == plain.epoch_size == 20
    for position in range(40):
        one, other = plain.sample(position), lazy.sample(position)
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.segments, other.segments)


@pytest.mark.parametrize("name", ["dpo_en_demo.json", "dpo_zh_demo.json"])
def test_real_records_become_pairs(
    shared: Path, name: str, make_run: Any, bpe: JsonTokenizer, write_lines: Callable[..., Path]
) -> None:
    path = write_lines("real.jsonl", *json.loads((shared / "preference" / name).read_text())[:40])
    run = make_run(
        "dpo", dataset_name_or_path=str(path), src_length=512, max_length=1024, on_bad_record="skip"
    )  # fmt: skip
    source, _ = open_instruction_data(run, bpe, CHATML)
    assert source is not None
    assert source.epoch_size >= 36  # answers of a few differ only beyond the longest length
    row = source.sample(3)
    assert np.array_equal(np.unique(row.segments), [1, 2])
