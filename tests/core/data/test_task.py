"""``--task data``: text to token files."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data import task, tokenize
from llm_run.core.data.documents import find_text_files, read_documents
from llm_run.core.data.records import BadRecords
from llm_run.core.data.token_file import open_token_file
from llm_run.core.data.tokenizers import JsonTokenizer
from llm_run.core.errors import DataError, RefusedError
from llm_run.core.run import Run

MakeRun = Callable[..., Run]
Write = Callable[..., Path]


@pytest.fixture
def written(bpe: JsonTokenizer, bpe_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Tokenize files and return the report."""

    def write(*files: Path, name: str = "out", processes: int = 1, **values: Any) -> dict[str, Any]:
        make = functools.partial(JsonTokenizer, bpe_folder)
        return task.write_token_files(
            task.Job(files=files, prefix=tmp_path / name, workers=processes, **values), bpe, make
        )

    return write


def read(prefix: Path) -> list[list[int]]:
    """All documents of a token file."""
    file = open_token_file(prefix)
    return [file.read(place, 0, 10**9).tolist() for place in range(len(file.sizes))]


def test_every_record_is_a_document_with_its_end(
    write_lines: Write, written: Any, bpe: JsonTokenizer, tmp_path: Path
) -> None:
    report = written(write_lines("a.jsonl", {"text": " the dog \n"}, {"text": " \n"}, {"text": "人之初"}))
    assert read(tmp_path / "out") == [[*bpe.encode("the dog"), bpe.eos_id], [*bpe.encode("人之初"), bpe.eos_id]]
    assert (report["documents"], report["tokens"], report["skipped_records"]) == (
        2,
        sum(map(len, read(tmp_path / "out"))),
        0,
    )
    assert report["vocab_size"] == bpe.vocab_size and len(report["tokenizer_sha256"]) == 64


def test_windows_line_ends_and_a_byte_order_mark_leave_no_trace(
    written: Any, bpe: JsonTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfthe dog\r\nbarks\r\n\r\nthe cat\r\n")
    written(path)
    assert [bpe.decode(ids) for ids in read(tmp_path / "out")] == [
        bpe.decode([*bpe.encode(text), bpe.eos_id]) for text in ("the dog\nbarks", "the cat")
    ]


def test_an_input_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^--input_path: .*/nowhere\.txt does not exist\.$"):
        find_text_files(tmp_path / "nowhere.txt")


def test_special_tokens_in_a_corpus_are_plain_text(
    write_lines: Write, written: Any, bpe: JsonTokenizer, tmp_path: Path
) -> None:
    written(write_lines("a.jsonl", {"text": "a<|im_end|>b"}), append_eos=False)
    (document,) = read(tmp_path / "out")
    assert bpe.token_id("<|im_end|>") not in document and bpe.decode(document) == "a<|im_end|>b"


def test_an_empty_line_ends_a_document_of_a_text_file(tmp_path: Path, written: Any, bpe: JsonTokenizer) -> None:
    (tmp_path / "a.txt").write_text("one\nmore\n\n \n\ntwo")
    written(tmp_path / "a.txt", append_eos=False)
    assert [bpe.decode(document) for document in read(tmp_path / "out")] == ["one\nmore", "two"]


def test_processes_give_the_files_that_one_gives(
    write_lines: Write, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenize, "CHUNK_CHARS", 100)
    path = write_lines("a.jsonl", *({"text": f"document {number} " * (1 + number % 7)} for number in range(200)))
    one, three = written(path, name="one"), written(path, name="three", processes=3)
    assert one == three
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"three{suffix}").read_bytes()


def kill_this_process() -> JsonTokenizer:
    """A tokenizer whose loading dies, as by lack of memory."""
    os._exit(9)


def test_a_process_that_dies_is_reported(write_lines: Write, bpe: JsonTokenizer, tmp_path: Path) -> None:
    job = task.Job(files=[write_lines("a.jsonl", {"text": "x"})], prefix=tmp_path / "out", workers=2)
    with pytest.raises(DataError, match=r"a tokenizing process died, most often of too little memory\. Try fewer"):
        task.write_token_files(job, bpe, kill_this_process)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_a_bad_record_stops_or_is_counted(write_lines: Write, written: Any, tmp_path: Path) -> None:
    path = write_lines("a.jsonl", {"text": "a"}, {"txt": "b"}, {"text": 5}, '{"text": "\\ud800"}', "{")
    with pytest.raises(
        DataError, match=r"a\.jsonl:2: expected text under 'text' \(--json_key\), and it has \['txt'\]\."
    ):
        written(path)
    assert not list(tmp_path.glob("out*"))
    report = written(path, bad=BadRecords("skip"))
    assert (report["documents"], report["skipped_records"]) == (1, 4)
    assert report["skipped_examples"][1] == f"{path}:3: expected text under 'text' (--json_key), not a int."


def test_another_key_and_a_limit_are_kept(write_lines: Write, written: Any, tmp_path: Path) -> None:
    path = write_lines("a.jsonl", *({"body": f"n{number}"} for number in range(9)))
    assert written(path, json_key="body", most=4)["documents"] == 4


def test_text_without_documents_is_an_error(write_lines: Write, written: Any) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: no text was found\."):
        written(write_lines("a.jsonl", {"text": " "}))


def test_text_files_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.txt", "deep/c.json.gz", "image.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.name for path in find_text_files(tmp_path)] == ["a.txt", "b.jsonl", "c.json.gz"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"--input_path: .* holds no text\. Looked for \.jsonl"):
        find_text_files(tmp_path / "nothing")


def test_a_line_of_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(DataError, match=r"a\.txt:2: is not UTF-8 text"):
        list(read_documents(tmp_path / "a.txt", "text", BadRecords(), lambda amount: None))


def test_all_missing_options_are_named_at_once(make_run: MakeRun) -> None:
    with pytest.raises(RefusedError) as caught:
        task.run(make_run("data"))
    assert [problem.key for problem in caught.value.problems] == [
        "--input_path",
        "--output_prefix",
        "--tokenizer_name_or_path",
    ]


def test_the_task_runs_in_a_process_without_paddle(bpe_folder: Path, write_lines: Write, tmp_path: Path) -> None:
    import subprocess
    import sys

    path = write_lines("a.jsonl", *({"text": f"the dog {number}"} for number in range(50)))
    options = {"family": "llama", "task": "data", "tokenizer_name_or_path": bpe_folder, "input_path": path,
               "output_prefix": tmp_path / "out", "workers": 2}  # fmt: skip
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    code = (
        "import sys\nfrom llm_run.core.cli import main\n"
        "if __name__ == '__main__':\n    status = main(sys.argv[1:])\n"
        "    print('paddle' in sys.modules)\n    sys.exit(status)"
    )
    (tmp_path / "start.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "start.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["documents"] == 50 and report["tokenizer"] == str(bpe_folder)
    assert len(read(tmp_path / "out")) == 50
