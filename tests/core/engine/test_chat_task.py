from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.engine import chat_task
from llm_run.core.engine.engine import Engine
from llm_run.core.engine.request import Request, TokenEvent
from llm_run.core.errors import RefusedError

Lines = list[str | type[BaseException]]


@pytest.fixture
def talk(
    prepared: Callable[..., Any], chat_directory: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., list[str]]:  # fmt: skip
    """Return a function that holds a conversation and returns what was printed."""

    def run(lines: Lines, **options: Any) -> list[str]:
        left = iter(lines)

        def read() -> str | None:
            line = next(left, None)
            if isinstance(line, type):
                raise line
            return line

        monkeypatch.setattr(chat_task, "_reader", lambda: read)
        settings = {"tokenizer_name_or_path": chat_directory, "max_new_tokens": 6, "min_new_tokens": 6, **options}
        assert chat_task.run(prepared("chat", **settings)) == 0
        return capsys.readouterr().out.splitlines()

    return run


class Scripted:
    """A handle whose events are written down."""

    def __init__(self, events: Iterator[TokenEvent]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[TokenEvent]:
        return self._events

    def cancel(self) -> None:
        """There is nothing to stop."""


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch, byte_level_tokenizer: Any) -> list[str]:
    """Replace the model by one that says "yes" to every prompt, and collect the prompts."""
    seen: list[str] = []

    def events(request: Request) -> Iterator[TokenEvent]:
        seen.append(byte_level_tokenizer.decode(request.prompt, skip_special=False))
        yield TokenEvent(0, 1, "yes")
        yield TokenEvent(0, 0, "", "stop")

    monkeypatch.setattr(Engine, "submit", lambda self, request: Scripted(events(request)))
    return seen


def test_the_conversation_goes_on_over_turns(talk: Any, prompts: list[str]) -> None:
    assert talk(["one", "two"], system="S") == ["yes", "yes"]
    assert prompts == [
        "<|system|>S<|user|>one<|bot|>",
        "<|system|>S<|user|>one<|bot|>yes<|end|><|user|>two<|bot|>",
    ]


def test_clear_forgets_the_turns(talk: Any, prompts: list[str]) -> None:
    assert talk(["one", "/clear", "two"])[1] == "(the conversation is forgotten)"
    assert prompts[-1] == "<|user|>two<|bot|>"


def test_regenerate_asks_the_same_again(talk: Any, prompts: list[str]) -> None:
    talk(["one", "two", "/regenerate"])
    assert prompts[1] == prompts[2]


def test_regenerate_with_nothing_to_answer_says_so(talk: Any) -> None:
    assert talk(["/regenerate"]) == ["(there is nothing to answer again)"]


def test_system_sets_the_message_and_starts_anew(talk: Any, prompts: list[str]) -> None:
    said = talk(["/system", "one", "/system Be brief.", "/system", "two"])
    assert said[0] == "(system message: none)" and said[3] == "(system message: Be brief.)"
    assert prompts[-1] == "<|system|>Be brief.<|user|>two<|bot|>"


def test_help_lists_every_command(talk: Any) -> None:
    said = "\n".join(talk(["/help"]))
    assert all(command in said for command in ("/system", "/regenerate", "/clear", "/exit", "Ctrl-C"))


def test_an_unknown_command_is_no_message(talk: Any, prompts: list[str]) -> None:
    assert talk(["/nope"]) == ["(there is no command /nope; /help lists them)"]
    assert prompts == []


def test_exit_leaves_before_later_lines(talk: Any, prompts: list[str]) -> None:
    assert talk(["/exit", "one"]) == [] and prompts == []


def test_blank_lines_are_ignored(talk: Any, prompts: list[str]) -> None:
    assert talk(["", "   "]) == [] and prompts == []


def test_ctrl_c_at_the_prompt_says_how_to_leave(talk: Any, prompts: list[str]) -> None:
    assert talk([KeyboardInterrupt, "one"]) == ["", "(/exit or Ctrl-D leaves)", "yes"]


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(
    talk: Any, monkeypatch: pytest.MonkeyPatch, byte_level_tokenizer: Any
) -> None:
    seen = []

    def events(request: Request) -> Iterator[TokenEvent]:
        seen.append(byte_level_tokenizer.decode(request.prompt, skip_special=False))
        yield TokenEvent(0, 1, "half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "submit", lambda self, request: Scripted(events(request)))
    assert talk(["one", "two"]) == ["half", "(stopped)", "half", "(stopped)"]
    assert seen[1] == "<|user|>one<|bot|>half<|end|><|user|>two<|bot|>"


def test_turns_that_no_longer_fit_are_dropped_and_said(talk: Any, prompts: list[str]) -> None:
    said = talk(["one", "two"], src_length=7)
    assert said == ["yes", "(turns dropped because they no longer fit, from the oldest: 1)", "yes"]
    assert prompts[1] == "<|user|>two<|bot|>"


def test_a_message_that_does_not_fit_is_said_and_the_chat_goes_on(talk: Any, prompts: list[str]) -> None:
    said = talk(["zq" * 50, "one"], src_length=10)
    assert said[0].startswith("(the message makes a prompt of ") and said[1] == "yes"


def test_a_message_that_the_template_refuses_is_said_and_the_chat_goes_on(
    talk: Any, prompts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "strict.jinja"
    path.write_text(
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system messages') }}"
        "{% endif %}{{ message.content }}{% endfor %}"
    )
    said = talk(["/system S", "one", "/help"], chat_template=path)
    assert "no system messages" in said[1] and said[1].startswith("(") and "/exit" in said[-1]
    assert prompts == []


def test_an_answer_at_its_longest_length_is_marked(talk: Any) -> None:
    assert talk(["one"])[-1] == "(cut: the answer reached its longest length)"


def test_what_would_command_a_terminal_is_not_printed(talk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def events(request: Request) -> Iterator[TokenEvent]:
        yield TokenEvent(0, 1, "a\x1b[2J\x9b\x90b\x07\tc é", "stop")

    monkeypatch.setattr(Engine, "submit", lambda self, request: Scripted(events(request)))
    assert talk(["one"]) == ["a[2Jb\tc é"]


def test_regenerating_a_sample_draws_another_one(talk: Any) -> None:
    said = talk(["one", "/regenerate"], top_p=1.0, temperature=5.0, max_new_tokens=20, min_new_tokens=20)
    answers = "\n".join(said).split("\n(cut: the answer reached its longest length)")
    assert len(answers) == 3 and answers[0].strip() != answers[1].strip()


def test_a_model_without_chat_template_is_refused(talk: Any, tokenizer_directory: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        talk(["one"], tokenizer_name_or_path=tokenizer_directory)
    assert str(caught.value) == (
        "--chat_template: this model has none, and chat needs one. "
        "Give one with --chat_template, or use --task generate."
    )


def test_beam_search_is_refused(talk: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        talk(["one"], decode_strategy="beam_search")
    assert str(caught.value) == (
        "--decode_strategy: beam_search cannot be streamed to a terminal. Use sampling or greedy_search."
    )


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from llm_run.core.engine import fused_runner
plain = fused_runner.choose_runner
def choose(*arguments, **named):
    runner = plain(*arguments, **named)
    run = runner.run
    runner.run = lambda works: (time.sleep(0.05), run(works))[1]
    return runner
fused_runner.choose_runner = choose
from llm_run.core.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command with an engine that takes 50 ms a step: a tiny model is done with its answer before a signal comes."""


def test_through_a_pipe_ctrl_c_stops_an_answer_and_not_the_program(chat_directory: Path) -> None:
    words = ["--task", "chat", "--family", "opt", "--model_size", "tiny-350m"]
    words += ["--tokenizer_name_or_path", chat_directory, "--max_new_tokens", "100", "--min_new_tokens", "100"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LLM_RUN_ENVIRONMENT": "set"}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        said = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(b"/\xff\n/system\n", timeout=60)
    finally:
        process.kill()
    # The broken byte is what a pipe may send; it must not end the program either.
    lines = (said + rest).decode(errors="replace").splitlines()
    assert lines[-3:] == ["(stopped)", "(there is no command /\ufffd; /help lists them)", "(system message: none)"]
    assert process.returncode == 0
