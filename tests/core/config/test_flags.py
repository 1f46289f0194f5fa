"""The command line, split into flags and words."""

from __future__ import annotations

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.errors import RefusedError


def test_words_are_split_into_flags_switches_and_values() -> None:
    found = parse(
        "--family llama --task sft --config a b --config c --x 1 --x=2 --y -h --traceback --format json".split()
    )
    assert (found.family, found.task, found.format) == ("llama", "sft", "json")
    assert found.config == ("a", "b", "c")
    assert found.switches == {"help", "traceback"}
    assert found.values == {"x": [["1"], ["2"]], "y": [[]]}


def test_an_equals_sign_keeps_a_value_that_begins_with_dashes() -> None:
    assert parse(["--stop=--- a=b"]).values == {"stop": [["--- a=b"]]}


def test_dashes_within_a_name_are_underscores() -> None:
    assert parse(["--max-steps", "3"]).values == {"max_steps": [["3"]]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stray", "--x"], "command line: 'stray' belongs to no flag. See llm-run --help."),
        (["--task"], "--task: lacks its value."),
        (["--family", "a", "b"], "--family: a b takes one value."),
        (["--traceback", "yes"], "--traceback: 'yes' is not expected: it takes no value."),
    ],
)
def test_a_malformed_command_line_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(words)
    assert str(caught.value) == said
