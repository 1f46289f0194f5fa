from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.engine import generate_task
from llm_run.core.errors import DataError

QUESTIONS = ["The capital", "Once upon a time there was", "1", "春江潮水", "Numbers: 1, 2, 3", "The park"]


@pytest.fixture
def ask(prepared: Callable[..., Any], tokenizer_directory: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that runs the task over ``QUESTIONS`` and returns the lines of the output."""

    def run(output: str = "out.jsonl", records: list[Any] | None = None, **options: Any) -> list[dict[str, Any]]:
        data = tmp_path / "data.jsonl"
        asked = [{"src": text} for text in QUESTIONS] if records is None else records
        data.write_text("".join(json.dumps(record) + "\n" for record in asked))
        settings = {
            "tokenizer_name_or_path": tokenizer_directory,
            "data_file": data,
            "output_file": tmp_path / output,
            "max_new_tokens": 8,
            **options,
        }
        assert generate_task.run(prepared("generate", **settings)) == 0
        return [json.loads(line) for line in (tmp_path / output).read_text().splitlines()]

    return run


def test_answers_stand_in_the_order_of_the_questions(ask: Any) -> None:
    lines = ask(batch_size=4)
    assert [line["src"] for line in lines] == QUESTIONS
    assert all(set(line) == {"src", "tgt", "output", "finish_reason"} for line in lines)


@pytest.mark.parametrize("strategy", ["greedy_search", "sampling", "beam_search"])
def test_the_batch_size_does_not_change_the_answers(ask: Any, strategy: str) -> None:
    one, three = (ask(f"{size}.jsonl", batch_size=size, decode_strategy=strategy, num_beams=2) for size in (1, 3))
    assert one == three
    assert len({line["output"] for line in one}) > 1


@pytest.mark.parametrize("strategy", ["greedy_search", "sampling"])
def test_guessing_ahead_does_not_change_the_answers(ask: Any, strategy: str, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"src": "1, 2, 3, " * 8}, {"src": "The park. " * 5}]
    plain = ask("plain.jsonl", records, decode_strategy=strategy, max_new_tokens=30)
    with caplog.at_level(logging.INFO, "llm_run.engine"):
        guessed = ask("guessed.jsonl", records, decode_strategy=strategy, max_new_tokens=30, num_draft_tokens=4)
    assert guessed == plain
    assert "guesses that were right: " in caplog.text


def test_another_seed_gives_other_samples_and_the_same_seed_the_same(
    ask: Any, prepared: Callable[..., Any], tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One model for all runs: the seed would make other random weights as well.
    model = generate_task.load_text_model(
        prepared("generate", tokenizer_name_or_path=tokenizer_directory, data_file="-")
    )
    monkeypatch.setattr(generate_task, "load_text_model", lambda *_: model)
    first, again, other = (ask(f"{at}.jsonl", seed=seed, top_p=1.0) for at, seed in enumerate((1, 1, 2)))
    assert first == again != other


def test_a_stopped_run_continues_with_the_answers_that_it_would_have_given(
    ask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ask(top_p=1.0)
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with caplog.at_level(logging.INFO, "llm_run.engine"):
        assert ask(top_p=1.0) == whole
    assert "answers that were there already: 2" in caplog.text and "answers written: 4," in caplog.text


def test_a_complete_output_is_left_alone_without_loading_the_model(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask()
    monkeypatch.setattr(generate_task, "load_text_model", lambda *_: pytest.fail("loaded"))
    assert ask() == whole


def test_the_summary_counts_tokens(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llm_run.engine"):
        ask(decode_strategy="greedy_search", min_new_tokens=8)
    assert "answers written: 6, of 48 tokens in all" in caplog.text and " tokens/s" in caplog.text


def test_answers_cut_by_the_models_positions_are_counted(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llm_run.engine"):
        lines = ask(records=[{"src": "1, " * 600}], src_length=600, max_new_tokens=50, min_new_tokens=50)
    assert lines[0]["finish_reason"] == "length"
    assert "answers cut at the model's 512 positions, before max_new_tokens: 1" in caplog.text


def test_a_bad_record_stops_the_run_before_anything_is_written(ask: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ask(records=[{"src": "fine"}, {"src": [["a", "b"], ["c"]]}])
    assert str(caught.value).startswith(
        f"{tmp_path / 'data.jsonl'}:2: system messages, tools and several rounds need a chat template"
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_records_are_left_out_and_said(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llm_run.engine"):
        lines = ask(records=[{"src": "a"}, {"nothing": 1}, {"src": "b"}], on_bad_record="skip")
    assert [line["src"] for line in lines] == ["a", "b"]
    assert "malformed records left out: 1" in caplog.text and "data.jsonl:2" in caplog.text


def test_a_chat_template_frames_the_prompts(ask: Any, chat_directory: Path) -> None:
    plain = ask("plain.jsonl", decode_strategy="greedy_search")
    framed = ask("chat.jsonl", decode_strategy="greedy_search", tokenizer_name_or_path=chat_directory)
    off = ask("off.jsonl", decode_strategy="greedy_search", tokenizer_name_or_path=chat_directory, chat_template="none")
    assert plain == off != framed


def test_a_stop_string_is_no_part_of_the_answer(ask: Any) -> None:
    before = ask("before.jsonl", decode_strategy="greedy_search", max_new_tokens=20)
    line = next(line for line in before if len(line["output"]) > 6)
    stop = line["output"][3:5]
    after = ask("after.jsonl", decode_strategy="greedy_search", max_new_tokens=20, stop=stop)
    answer = next(other for other in after if other["src"] == line["src"])
    assert answer["output"] == line["output"][: line["output"].index(stop)]
    assert answer["finish_reason"] == "stop"


def test_other_weights_in_the_same_folder_are_another_run(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = generate_task._file_stamps(str(tmp_path))
    # The output may stand in the model's folder: it is no part of the model.
    (tmp_path / "out.jsonl").write_text("{}")
    assert generate_task._file_stamps(str(tmp_path)) == before
    weights.write_bytes(b"other")
    assert generate_task._file_stamps(str(tmp_path)) != before
