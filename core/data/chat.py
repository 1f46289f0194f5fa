"""Chat templates: one renderer for training, generation and serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict


class Message(TypedDict, total=False):
    """One turn of a conversation, as in OpenAI's API."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """How a conversation becomes text."""

    jinja: str
    """A Jinja template over ``messages``, ``add_generation_prompt``, ``bos_token``, ``eos_token``, as in Hugging
    Face's ``chat_template``."""
    stop: tuple[str, ...] = ()
    """Tokens that end a turn of the assistant, besides the tokenizer's own (``<|im_end|>``)."""
    adds_special: bool = False
    """The tokenizer's ``prompt`` is applied to the rendered ids as well (families whose template lacks the start)."""
