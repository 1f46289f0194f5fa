"""How long a prompt may be, and what it costs to find out."""

from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.serve.errors import ApiError
from llm_run.core.serve.prompting import Prompting


class Counting:
    """Counts the characters that are tokenized."""

    def __init__(self, tokenizer: Any) -> None:
        self.characters = 0
        self._tokenizer = tokenizer

    def encode(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._tokenizer.encode(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.fixture
def counting(tokenizer: Any) -> Counting:
    return Counting(tokenizer)


@pytest.fixture
def prompting(counting: Any) -> Prompting:
    from .conftest import TEMPLATE

    return Prompting("tiny", counting, TEMPLATE, (), max_length=32, vocab_size=512, adapters={})


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_megabytes_are_refused_without_being_tokenized(kind: str, prompting: Prompting, counting: Counting) -> None:
    text = "3 and 4 make 7. " * 200_000
    with pytest.raises(ApiError, match=r"more than \d+ tokens leave no room in the model's 32") as refused:
        prompting.of_text(text) if kind == "text" else prompting.of_chat([{"role": "user", "content": text}])
    assert refused.value.status == 400 and refused.value.code == "context_length_exceeded"
    assert counting.characters < 1000


def test_many_characters_in_few_tokens_are_taken(prompting: Prompting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompting._tokenizer, "encode", lambda text, **_: [5] * (len(text) // 1000 + 1))
    assert len(prompting.of_text("x" * 5000)) > 5


def test_a_prompt_that_just_leaves_room_is_taken_and_one_more_is_not(prompting: Prompting) -> None:
    assert len(prompting.of_text([5] * 31)) == 31
    with pytest.raises(ApiError, match="32 tokens leave no room"):
        prompting.of_text([5] * 32)
