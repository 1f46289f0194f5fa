"""Pairs of answers to token ids: the same prompt for both, and nothing learnt but the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .encoding import Encoded, Encoder, without_old_rounds
from .preference import read_preference
from .render import render_training

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chat import ChatTemplate, Message
    from .conversation import Conversation
    from .preference import Preference


@dataclass(frozen=True, slots=True)
class PreferenceEncoder:
    """How preference records become two samples each: the chosen answer, then the rejected one."""

    single: Encoder
    """How conversations become tokens; its ``max_length`` is that of a prompt with either answer."""

    @property
    def max_length(self) -> int:
        """Longest prompt with one answer, in tokens."""
        return self.single.max_length

    @property
    def group_size(self) -> int:
        """Samples that a record becomes."""
        return 2

    def encode_record(self, fields: Mapping[str, Any]) -> list[Encoded]:
        """Encode the fields of a record.

        Where an answer does not fit, rounds are left out from the oldest on, then the question is cut, for both
        answers alike, and at last the answers lose their right ends.

        Raises:
            DataError: it is malformed or cannot be rendered, or nothing of an answer is left, or no difference.
        """
        preference = read_preference(fields)
        template = self.single.template
        pair = self._plain(preference) if template is None else self._chat(template, preference)
        if not all(any(encoded.supervised[1:]) for encoded in pair):
            raise DataError(f"nothing is left to learn within max_length {self.max_length}: the prompt fills it.")
        if pair[0].ids == pair[1].ids:
            raise DataError(f"the answers are the same within max_length {self.max_length}.")
        return pair

    def _plain(self, preference: Preference) -> list[Encoded]:
        if len(preference.chosen.messages) > 2:
            raise DataError("conversations of several rounds need a chat template (--chat_template).")
        return [self.single.encode(side) for side in (preference.chosen, preference.rejected)]

    def _chat(self, template: ChatTemplate, preference: Preference) -> list[Encoded]:
        before = preference.chosen.messages
        for left_out, kept in enumerate(without_old_rounds(before)):
            pair = self._answered(template, kept, preference, is_cut=left_out > 0)
            if all(len(encoded.ids) <= self.max_length for encoded in pair):
                return pair
        kept = self.single.shorten_question(template, kept, preference.chosen)
        pair = self._answered(template, kept, preference, is_cut=True)
        end = self.max_length
        return [replace(encoded, ids=encoded.ids[:end], supervised=encoded.supervised[:end]) for encoded in pair]

    def _answered(
        self, template: ChatTemplate, kept: list[Message], preference: Preference, *, is_cut: bool
    ) -> list[Encoded]:
        """Encode what is kept of the conversation with either answer as its last turn."""
        return [self._render(template, kept, side, is_cut) for side in (preference.chosen, preference.rejected)]

    def _render(self, template: ChatTemplate, kept: list[Message], side: Conversation, is_cut: bool) -> Encoded:
        messages = [*kept[:-1], side.messages[-1]]
        ids, supervised = render_training(template, self.single.tokenizer, messages, tools=side.tools)
        return Encoded(ids, _last_run(supervised), is_cut)


def _last_run(supervised: list[bool]) -> list[bool]:
    """Keep the last answer only: those before it are part of the prompt."""
    end = len(supervised) - supervised[::-1].index(True)
    start = end
    while start > 0 and supervised[start - 1]:
        start -= 1
    return [start <= place < end for place in range(len(supervised))]
