from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.engine.output_file import OutputFile
from llm_run.core.engine.prompts import PromptRecord
from llm_run.core.errors import DataError, RefusedError

RECORDS = [PromptRecord(f"d:{at}", {"src": f"问 {at}", "id": at}, (), f"t{at}") for at in range(4)]
ORIGIN = {"model": "m", "seed": 1, "stop": ("a", "b")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, count: int, records: list[PromptRecord] = RECORDS) -> Path:
    with OutputFile(path, records, ORIGIN) as output:
        for at in range(output.num_done, count):
            output.write([(f"answer {at}", "stop")])
    return path


def refusal(path: Path, records: list[PromptRecord] = RECORDS, origin: dict[str, Any] = ORIGIN) -> str:
    before = path.read_bytes()
    with pytest.raises(RefusedError) as caught:
        OutputFile(path, records, origin)
    assert path.read_bytes() == before, "a refusal must not touch the file"
    return str(caught.value)


def test_a_line_holds_the_record_the_reference_the_answer_and_why_it_ended(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "out.jsonl", 1)
    assert path.read_text() == (
        '{"src": "问 0", "id": 0, "tgt": "t0", "output": "answer 0", "finish_reason": "stop"}\n'
    )


def test_an_answer_is_on_its_way_to_the_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out.jsonl", RECORDS, ORIGIN) as output:
        output.write([("a", "stop"), ("b", "length")])
        assert [line["output"] for line in lines(tmp_path / "out.jsonl")] == ["a", "b"]


@pytest.mark.parametrize("done", range(5))
def test_a_stopped_run_is_taken_up_where_it_stopped(tmp_path: Path, done: int) -> None:
    path = written(tmp_path / "out.jsonl", done)
    with OutputFile(path, RECORDS, ORIGIN) as output:
        assert output.num_done == done
    assert lines(written(path, 4)) == lines(written(tmp_path / "whole.jsonl", 4))


@pytest.mark.parametrize("kept", [1, 40, 2])
def test_a_half_written_line_is_written_again(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path / "out.jsonl", 3)
    content = path.read_bytes()
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(content[: last + kept])
    assert lines(written(path, 4)) == lines(written(tmp_path / "whole.jsonl", 4))


def test_a_file_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", 2)
    assert refusal(path, origin={**ORIGIN, "seed": 2, "stop": ("x" * 200,)}) == (
        f"--output_file: {path} was begun by a run with other settings: seed was 1 and is 2, stop differs. "
        "Remove it, or choose another file."
    )


def test_a_file_of_other_data_is_refused_with_the_line(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", 3)
    other = [RECORDS[0], PromptRecord("d:1", {"src": "another", "id": 1}, (), "t1"), *RECORDS[2:]]
    assert refusal(path, other) == (
        f"--output_file: {path} was written for other data: line 2 does not belong to that record of --data_file. "
        "Remove it, or choose another file."
    )
    assert "line 3 does not belong" in refusal(path, RECORDS[:2])


def test_a_file_with_another_reference_answer_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", 1)
    assert "line 1" in refusal(path, [PromptRecord("d:0", RECORDS[0].fields, (), "other"), *RECORDS[1:]])


def test_a_file_that_no_run_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("notes of mine\n")
    assert refusal(path) == (
        f"--output_file: {path} holds something, and no out.jsonl.run.json says which run wrote it. "
        "Remove it, or choose another file."
    )


def test_a_file_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out.jsonl", RECORDS, ORIGIN):
        said = refusal(tmp_path / "out.jsonl")
    assert said.endswith("is being written by another process. Wait for it, or choose another file.")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"out\.jsonl: cannot be written: .*\. Check --output_file\."):
        OutputFile(tmp_path / "file" / "out.jsonl", RECORDS, ORIGIN)


def test_a_record_with_half_a_surrogate_pair_can_be_written_and_taken_up(tmp_path: Path) -> None:
    records = [PromptRecord("d:0", {"src": "a", "note": "\ud83d"}, ())]
    path = written(tmp_path / "out.jsonl", 1, records)
    with OutputFile(path, records, ORIGIN) as output:
        assert output.num_done == 1
