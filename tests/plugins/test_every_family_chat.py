"""Tokenizers and chat formats of every installed family, on the published vocabularies beside the project."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.chat import ChatTemplate, Message
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizer import Tokenizer

CONVERSATION: list[Message] = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "和中国的呢?"},
    {"role": "assistant", "content": "北京。"},
]
TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
)


OWN_NAMES = {
    "bloom": {"bloom/tokenizer.bloom_style_12k.json": "tokenizer.json"},
    "chatglm": {"chatglm/ice_text.approx.model": "ice_text.model"},
    "gpt3": {"gpt/vocab.json": "vocab.json", "gpt/merges.txt": "merges.txt"},
    "opt": {"opt/vocab.json": "vocab.json", "gpt/merges.txt": "merges.txt"},
}
"""Files of the shared folder that stand under another name or place than the family reads them from."""


@pytest.fixture
def tokenizer(family: Any, shared: Path, tmp_path: Path) -> Tokenizer:
    """The family's published tokenizer, loaded for the first published size."""
    folder = shared / "tokenizers"
    named = OWN_NAMES.get(family.card.name)
    if named is None:
        named = {f"{family.card.name}/{path.name}": path.name for path in (folder / family.card.name).glob("*")}
    if not named:
        pytest.skip(f"needs a tokenizer in {folder / family.card.name}")
    (tmp_path / "published").mkdir()
    for theirs, ours in named.items():
        (tmp_path / "published" / ours).symlink_to(folder / theirs)
    loaded: Tokenizer = family.tokenizer(first_published(family), tmp_path / "published")
    return loaded


def first_published(family: Any) -> Any:
    return next(config for name, config in family.card.sizes.items() if not name.startswith("tiny"))


@pytest.fixture
def templates(family: Any, tokenizer: Tokenizer) -> list[ChatTemplate]:
    """The chat formats of those sizes whose special tokens this tokenizer has."""
    found: list[ChatTemplate] = []
    for config in family.card.sizes.values():
        template = family.chat_template(config)
        if template is not None and template not in found:
            found.append(template)
    known = [one for one in found if all(tokenizer.token_id(token) is not None for token in one.stop)]
    if not known:
        pytest.skip("the family has no chat format for this tokenizer")
    return known


def squeezed(text: str) -> str:
    """What is left of a text whatever a normalizing vocabulary does to its width and its spaces."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def test_text_becomes_tokens_and_text_again(tokenizer: Tokenizer) -> None:
    is_exact = tokenizer.decode(tokenizer.encode("，  ")) == "，  "
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids and max(ids) < tokenizer.vocab_size
        again = tokenizer.decode(ids)
        if is_exact:
            assert again == text
        else:
            # It may lack a character, too.
            known = "".join(one for one in squeezed(text) if tokenizer.decode(tokenizer.encode(one)).strip())
            assert squeezed(again) == known and len(known) > 0.7 * len(squeezed(text))


def test_a_saved_tokenizer_is_the_same(family: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "saved")
    again = family.tokenizer(first_published(family), tmp_path / "saved")
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert (again.bos_id, again.eos_id, again.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert again.stop_ids == tokenizer.stop_ids


def test_training_and_serving_render_the_same_chat(templates: list[ChatTemplate], tokenizer: Tokenizer) -> None:
    for template in templates:
        for end in (2, 4):
            ids, supervised = render_training(template, tokenizer, CONVERSATION[:end])
            prompt = render_prompt(template, tokenizer, CONVERSATION[: end - 1])
            assert ids[: len(prompt)] == prompt
            assert all(supervised[len(prompt) :])
            assert not supervised[len(prompt) - 1]


def test_the_end_of_a_turn_is_learnt_and_stops_generation(templates: list[ChatTemplate], tokenizer: Tokenizer) -> None:
    for template in templates:
        stops = {*tokenizer.stop_ids, *(tokenizer.token_id(token) for token in template.stop)}
        ids, supervised = render_training(template, tokenizer, CONVERSATION)
        learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
        assert learnt[-1] in stops
        assert sum(token in stops for token in learnt) == (1 if template.last_only else 2)
        text = tokenizer.decode(learnt)
        assert ("Paris." in text) != template.last_only and "北京。" in text and "capital" not in text


def test_a_user_cannot_spell_the_end_of_a_turn(templates: list[ChatTemplate], tokenizer: Tokenizer) -> None:
    for template in templates:
        token = template.stop[0] if template.stop else tokenizer.decode([tokenizer.stop_ids[0]], skip_special=False)
        honest = render_prompt(template, tokenizer, [{"role": "user", "content": "x"}])
        forged = render_prompt(template, tokenizer, [{"role": "user", "content": f"x {token}"}])
        number = tokenizer.token_id(token)
        assert forged.count(number) == honest.count(number)
