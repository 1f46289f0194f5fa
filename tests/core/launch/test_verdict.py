"""Whose failure it is, and how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_run.core.launch.record import RankRecord
from llm_run.core.launch.verdict import Failure, first_failure, never_started, without_a_word


def record(rank: int, **fields: Any) -> RankRecord:
    return RankRecord(**{"rank": rank, "local_rank": rank, "pid": 1, "at": float(rank)} | fields)


def verdict(*records: RankRecord, dead: tuple[int, ...] = (), stopped: tuple[int, ...] = ()) -> Failure | None:
    return first_failure({found.rank: found for found in records}, set(dead), set(stopped))


LOST = {"error": "rank 1 has ended while rank 0 was at step 3", "blames": (1,), "status": 1}


def test_nothing_has_failed_while_all_run_or_have_ended_well() -> None:
    assert verdict(record(0), record(1, status=0), record(2, status=143)) is None


def test_the_rank_that_says_why_comes_before_those_that_blame_it() -> None:
    found = verdict(record(0, **LOST), record(1, error="disk full", status=2, at=9.0))
    assert found is not None
    assert (found.text, found.status, found.ranks, found.show) == ("rank 1: disk full", 2, (1,), "")


def test_of_several_errors_the_first_in_time_is_told_and_equal_ones_once() -> None:
    found = verdict(record(0, error="b", at=5.0), record(1, error="a", at=4.0), record(2, error="a", at=6.0))
    assert found is not None
    assert (found.text, found.ranks) == ("ranks 1, 2: a", (1, 2))


def test_a_bug_shows_the_log_of_its_rank_by_its_number_on_the_machine() -> None:
    found = verdict(record(4), record(5, local_rank=1, error="KeyError: 'x'", is_told=False))
    assert found is not None
    assert found.show == "workerlog.1"


def test_a_rank_that_ended_without_a_word_comes_first() -> None:
    found = verdict(record(0, **LOST), record(1), dead=(1,))
    assert found is not None
    assert found.text == "rank 1 has ended without a word"
    assert (found.killed, found.show) == (1, "workerlog.1")


@pytest.mark.parametrize(
    ("records", "stopped", "first_line"),
    [
        ((record(0, **LOST), record(1)), (1,), "rank 1 (stopped by a signal) does not answer"),
        ((record(0, **LOST), record(1)), (), "rank 1 (running) does not answer"),
        ((record(0, **LOST),), (), "rank 1 (on another machine) does not answer"),
        ((record(0, **LOST), record(1, error="rank 0 has ended", blames=(0,))), (), "rank 0: " + str(LOST["error"])),
    ],
)
def test_where_all_blame_another_rank_it_is_named_with_its_state(
    records: tuple[RankRecord, ...], stopped: tuple[int, ...], first_line: str
) -> None:
    found = verdict(*records, stopped=stopped)
    assert found is not None
    assert found.text.splitlines()[0] == first_line


def test_what_is_told_ends_with_the_last_lines_of_this_run(tmp_path: Path) -> None:
    log = tmp_path / "workerlog.1"
    log.write_text("of an earlier run\n" + "".join(f"line {number}\n" for number in range(30)))
    failure = Failure(status=1, text="rank 1: a\nrank 1: b", ranks=(1,), show="workerlog.1")
    said = failure.told([0, 1, 2], tmp_path, {log: len("of an earlier run\n")}).splitlines()
    assert said[:2] == ["llm-run: rank 1: a", "llm-run: rank 1: b"]
    assert said[2:22] == [f"  line {number}" for number in range(10, 30)]
    assert said[22:] == [
        "llm-run: ranks 0, 2 ended because of it",
        f"llm-run: the output of each rank is in {tmp_path}/workerlog.N",
    ]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("-9", ": killed by SIGKILL, which the system does when memory runs out"),
        ("-11", ": killed by SIGSEGV"),
        ("1", ": killed, or crashed in native code"),
    ],
)
def test_the_signal_is_named_where_the_launcher_saw_it(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "launcher.log").write_text(
        f"Container rank 1 status failed cmd ['python', 'x'] code {code} log /l/workerlog.1\n"
    )
    failure = verdict(record(0), record(1), dead=(1,))
    assert failure is not None
    assert failure.told([], tmp_path, {}).splitlines()[0] == f"llm-run: rank 1 has ended without a word{said}"


def test_ranks_that_do_not_come_up_are_counted_or_named() -> None:
    found = never_started(1, 4, 600)
    assert found.text == "1 of 4 ranks of this machine started within 600 seconds (dist_timeout)"
    assert found.show == without_a_word(127, []).show == "launcher.log"
    assert (
        without_a_word(1, [2, 3]).text == "ranks 2, 3 of this machine did not start: the launcher ended with status 1"
    )
    assert without_a_word(1, [2, 3]).show == "workerlog.2"
    assert without_a_word(127, []).text == "the ranks cannot be started: the launcher ended with status 127"
