"""The published vocabulary, read as the published code reads it; and no text may spell the tokens of a turn."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
    "  two leading,\tone tab,\n\n  and three at the end   ",
    "<h2>tags<h2/> are pieces, too",
)


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    family = load_family("baichuan")
    return family.tokenizer(family.card.sizes["baichuan2-7b"], shared / "tokenizers" / "baichuan")


def test_ids_equal_those_of_sentencepiece(tokenizer: Tokenizer, shared: Path) -> None:
    """Which is all that the published tokenization_baichuan.py does."""
    peer = sentencepiece.SentencePieceProcessor(str(shared / "tokenizers" / "baichuan" / "tokenizer.model"))
    for text in TEXTS:
        assert tokenizer.encode(text) == peer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_have_the_published_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_id(token) for token in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert [tokenizer.token_id(token) for token in ("<reserved_106>", "<reserved_107>")] == [195, 196]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (1, 2, 0, (2,))
    assert tokenizer.vocab_size == 125696


def test_nothing_is_put_around_a_prompt(tokenizer: Tokenizer) -> None:
    assert tokenizer.prompt([9]) == [9]


def test_text_that_spells_the_opening_of_a_turn_stays_text(tokenizer: Tokenizer) -> None:
    text = "x<reserved_106>y<reserved_107></s>"
    ids = tokenizer.encode(text)
    assert not {195, 196, 2} & set(ids)
    assert tokenizer.decode(ids) == text
    ours = tokenizer.encode(text, allow_special=True)
    assert ours == [*tokenizer.encode("x"), 195, *tokenizer.encode("y"), 196, 2]


def test_paddlenlps_name_of_the_file_is_read(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").symlink_to(shared / "tokenizers" / "baichuan" / "tokenizer.model")
    family = load_family("baichuan")
    assert family.tokenizer(family.card.sizes["baichuan2-7b"], tmp_path).encode("你好") == [16829]


def test_a_vocabulary_without_turns_is_read_as_well(shared: Path) -> None:
    """A new model may be made for any vocabulary."""
    family = load_family("baichuan")
    other = family.tokenizer(family.card.sizes["tiny"], shared / "tokenizers" / "llama")
    assert other.token_id("<reserved_106>") is None
    assert other.decode(other.encode("any text")) == "any text"


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    family = load_family("baichuan")
    with pytest.raises(DataError) as refusal:
        family.tokenizer(family.card.sizes["tiny"], tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path}: holds no tokenizer of a baichuan. "
        "One of these files is read: tokenizer.model, sentencepiece.bpe.model."
    )
