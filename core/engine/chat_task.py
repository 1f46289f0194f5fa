"""``--task chat``: a conversation with a model in the terminal, or through a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import LlmRunError, Problem, RefusedError
from .conversation import Conversation
from .setup import load_text_format, load_text_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..data.chat import ChatTemplate
    from ..run import Run
    from .engine import Engine
    from .setup import TextFormat
    from .static.exported import ExportedAnswers

PROMPT = "> "
HELP = """\
/system TEXT  set the system message and start anew (without TEXT: show it)
/regenerate   answer the last message again
/clear        forget the conversation
/exit         leave (so does Ctrl-D); Ctrl-C stops an answer"""
CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters that a model must not send to a terminal, where they would be obeyed."""


def run(run: Run) -> int:
    """Talk until the input ends.

    Raises:
        RefusedError: an option is out of range, or the model has no chat template.
    """
    text = load_text_format(run)
    if text.template is None:
        remedy = "Give one with --chat_template, or use --task generate."
        raise RefusedError(Problem("--chat_template", "", "this model has none, and chat needs one", remedy))
    if text.settings.strategy == "beam_search":
        remedy = "Use sampling or greedy_search."
        raise RefusedError(Problem("--decode_strategy", "beam_search", "cannot be streamed to a terminal", remedy))
    if run.config.decoding.mode == "static":
        from .static.exported import ExportedAnswers, load_exported

        exported = load_exported(run)
        conversation, _ = _conversation(run, text, text.template, exported.config.max_positions)
        Chat(ExportedAnswers(exported, text.tokenizer), text, conversation).talk(_reader())
        return 0
    from .offline import running_engine
    from .speculation import make_drafter

    model = load_text_model(run)
    conversation, most = _conversation(run, text, text.template, model.config.max_positions)
    drafter = make_drafter(run.config.decoding, model.config)
    int8_cache = run.config.decoding.cachekv_int8
    with running_engine(model, text.tokenizer, [most], drafter=drafter, int8_cache=int8_cache) as engine:
        Chat(engine, text, conversation).talk(_reader())
    return 0


def _conversation(run: Run, text: TextFormat, template: ChatTemplate, positions: int) -> tuple[Conversation, int]:
    """Return an empty conversation, and how many tokens it and an answer may have."""
    room = min(text.settings.max_new_tokens, positions // 2)
    longest = min(run.config.data.src_length, positions - room)
    return Conversation(template, text.tokenizer, system=run.config.decoding.system, longest=longest), longest + room


class Chat:
    """Reads lines, obeys commands, prints answers as they come."""

    def __init__(self, engine: Engine | ExportedAnswers, text: TextFormat, conversation: Conversation) -> None:
        self._engine = engine
        self._text = text
        self._conversation = conversation
        self._num_answers = 0

    def talk(self, read: Callable[[], str | None]) -> None:
        """Go on until ``read`` returns ``None`` or the user leaves."""
        while True:
            try:
                line = read()
            except KeyboardInterrupt:
                print("\n(/exit or Ctrl-D leaves)")
                continue
            if line is None or line.strip() in ("/exit", "/quit"):
                return
            if line.startswith("/"):
                self._obey(line.strip())
            elif line.strip():
                self._answer(line)

    def _obey(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        if command == "/help":
            print(HELP)
        elif command == "/clear":
            self._conversation.clear()
            print("(the conversation is forgotten)")
        elif command == "/system" and not argument.strip():
            print(f"(system message: {self._conversation.system or 'none'})")
        elif command == "/system":
            self._conversation.system = argument.strip()
            self._conversation.clear()
            print("(the system message is set; the conversation starts anew)")
        elif command == "/regenerate":
            question = self._conversation.take_back()
            if question is None:
                print("(there is nothing to answer again)")
            else:
                self._answer(question)
        else:
            print(f"(there is no command {command}; /help lists them)")

    def _answer(self, question: str) -> None:
        try:
            prompt = self._conversation.ask(question)
        except LlmRunError as error:  # it is too long, or the template refuses it
            print(f"({error})")
            return
        if self._conversation.num_dropped:
            print(f"(turns dropped because they no longer fit, from the oldest: {self._conversation.num_dropped})")
        said: list[str] = []
        try:
            self._stream(prompt, said)
        except KeyboardInterrupt:
            print("\n(stopped)")
        self._conversation.answer("".join(said))

    def _stream(self, prompt: list[int], said: list[str]) -> None:
        from .request import Request

        # Each answer has random numbers of its own, so that /regenerate gives another one.
        request = Request(prompt=prompt, settings=self._text.settings, number=self._num_answers)
        self._num_answers += 1
        reason = None
        handle = self._engine.submit(request)
        try:
            for event in handle:
                said.append(event.text)
                sys.stdout.write(event.text.translate(CONTROL))
                sys.stdout.flush()
                reason = event.finish_reason
        finally:
            handle.cancel()
        print("\n(cut: the answer reached its longest length)" if reason == "length" else "")


def _reader() -> Callable[[], str | None]:
    """Return what reads one line of the user: with editing in a terminal, plainly from a pipe."""
    for file in (sys.stdin, sys.stdout):
        if hasattr(file, "reconfigure"):
            file.reconfigure(errors="replace")
    if not sys.stdin.isatty():
        return _read_pipe
    import readline  # noqa: F401 - gives input() its line editing and history

    print("/help lists the commands.")
    return _read_terminal


def _read_pipe() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _read_terminal() -> str | None:
    try:
        return input(PROMPT)
    except EOFError:
        print()
        return None
