"""A conversation that fits the model's window: the oldest turns leave it first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.chat import Message
from ..data.render import render_prompt
from ..errors import LlmRunError

if TYPE_CHECKING:
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer


class MessageTooLongError(LlmRunError):
    """A single message fills the window by itself."""


class Conversation:
    """The turns so far, rendered for the next answer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, *, system: str | None, longest: int) -> None:
        """Start a conversation.

        Args:
            template: renders it.
            tokenizer: of the model.
            system: the message that opens it and never leaves it, or ``None``.
            longest: tokens that a prompt may have.
        """
        self.system = system
        self.num_dropped = 0
        """Turns that the last call of ``ask`` dropped."""
        self._template, self._tokenizer, self._longest = template, tokenizer, longest
        self._turns: list[Message] = []

    def ask(self, text: str) -> list[int]:
        """Add the user's message and return the prompt for the model.

        Raises:
            MessageTooLongError: it does not fit even alone; the conversation stays as it was.
        """
        turns = [*self._turns, Message(role="user", content=text)]
        self.num_dropped = 0
        while len(ids := self._render(turns)) > self._longest:
            if len(turns) == 1:
                raise MessageTooLongError(
                    f"the message makes a prompt of {len(ids)} tokens, and {self._longest} fit. Shorten it, or raise "
                    "--src_length if the model has more positions."
                )
            turns = turns[2:]
            self.num_dropped += 1
        self._turns = turns
        return ids

    def answer(self, text: str) -> None:
        """Add the model's answer to the last message."""
        self._turns.append(Message(role="assistant", content=text))

    def take_back(self) -> str | None:
        """Remove the last message and its answer and return the message; ``None`` if there is none."""
        places = [place for place, turn in enumerate(self._turns) if turn["role"] == "user"]
        if not places:
            return None
        question = self._turns[places[-1]]["content"]
        self._turns = self._turns[: places[-1]]
        return question

    def clear(self) -> None:
        """Forget all turns; the system message stays."""
        self._turns = []

    def _render(self, turns: list[Message]) -> list[int]:
        opening = [] if self.system is None else [Message(role="system", content=self.system)]
        return render_prompt(self._template, self._tokenizer, [*opening, *turns])
