"""The records of ``--task generate``: read, checked, and turned into prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.conversation import read_conversation
from ..data.records import BadRecords, read_records
from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..data.chat import ChatTemplate, Message
    from ..data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """One record of the data file."""

    place: str
    """``file:line``, for messages."""
    fields: dict[str, Any]
    """As they stood in the file."""
    messages: tuple[Message, ...]
    """The conversation that is to be answered."""
    target: str = ""
    """The reference answer; empty where there is none."""
    tools: tuple[dict[str, Any], ...] | None = None
    """Functions that the answer may call, for templates that speak of tools."""


def read_prompts(path: Path, bad: BadRecords) -> list[PromptRecord]:
    """Read all records of a JSONL file (or JSON array).

    A prompt is ``src``: a text, rounds ``[[user, answer], ..., [user]]``, or, as in training data, a list of texts
    whose answers are in ``tgt``. Or it is one of the other shapes of training data (``messages``, ...), where an
    answer at the end is the reference. ``tgt`` may be left out.

    Raises:
        DataError: the file cannot be read; or a record is malformed and ``bad`` says to stop.
    """
    prompts = []
    for record in read_records(path, bad):
        try:
            prompts.append(_read_prompt(record.place, record.fields))
        except DataError as error:
            bad.handle(DataError(f"{record.place}: {error}"))
    return prompts


def prompt_ids(record: PromptRecord, tokenizer: Tokenizer, template: ChatTemplate | None, *, longest: int) -> list[int]:
    """Return the tokens of a record's prompt; one longer than ``longest`` loses its left end.

    Raises:
        DataError: the template refuses the conversation, or there is none and the record is more than one text. The
            text does not name the place.
    """
    if template is not None:
        from ..data.render import render_prompt

        return render_prompt(template, tokenizer, record.messages, tools=record.tools)[-longest:]
    if len(record.messages) > 1 or record.messages[0]["role"] != "user" or record.tools:
        raise DataError("system messages, tools and several rounds need a chat template (--chat_template).")
    # What the family puts around a prompt (a leading <s>) stays when the text is cut, as in training.
    ids = tokenizer.encode(record.messages[0]["content"])
    room = longest - len(tokenizer.prompt([]))
    prompt = tokenizer.prompt(ids[max(0, len(ids) - room) :])
    if not prompt:
        raise DataError("the prompt is empty, and this model begins a text with no token of its own.")
    return prompt


def _read_prompt(place: str, fields: dict[str, Any]) -> PromptRecord:
    """Check one record.

    Raises:
        DataError: it is malformed. The text does not name the place.
    """
    tools = None
    if "src" in fields:
        target = fields.get("tgt", "")
        conversation = read_conversation({"messages": _turns(fields["src"], target)})
    else:
        conversation = read_conversation({"output": "", **fields} if "instruction" in fields else fields)
        target, tools = fields.get("tgt", ""), conversation.tools
    messages = conversation.messages
    if messages[-1]["role"] == "assistant":
        target, messages = messages[-1]["content"], messages[:-1]
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise DataError("there is nothing to answer: no message of the user comes last (but for a reference answer).")
    if not isinstance(target, str):
        raise DataError(f"tgt: must be text, not a {type(target).__name__}.")
    return PromptRecord(place, fields, messages, target, tools)


def _turns(source: Any, target: Any) -> list[Mapping[str, Any]]:
    """Return ``src`` as messages; they end with the reference answer where ``tgt`` is a list."""
    if isinstance(source, str):
        return [{"role": "user", "content": source}]
    if not isinstance(source, list) or not source:
        raise DataError("src: must be text, or a list of rounds that is not empty.")
    rounds: list[list[Any]]
    if all(isinstance(text, str) for text in source):
        answers = target if isinstance(target, list) else [target]
        if len(answers) != len(source):
            raise DataError(
                f"src has {len(source)} rounds and tgt has {len(answers)}; they must be as many. "
                "Rounds without tgt are written [[user, answer], ..., [user]]."
            )
        rounds = [list(pair) for pair in zip(source, answers, strict=True)]
    else:
        rounds = source
        for place, pair in enumerate(rounds):
            if not isinstance(pair, list) or not 2 - (place == len(rounds) - 1) <= len(pair) <= 2:
                raise DataError(f"src[{place}]: must be [user, answer]; only the last round may be [user].")
        if not isinstance(target, str) or target:
            rounds = [*rounds[:-1], [rounds[-1][0], target]]
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in rounds for role, text in zip(roles, pair, strict=False)]
