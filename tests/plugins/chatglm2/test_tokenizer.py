"""The published vocabulary with special tokens behind it: ids that others publish, and those of PaddleNLP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    family = load_family("chatglm2")
    return family.tokenizer(family.card.sizes["chatglm2-6b"], shared / "tokenizers" / "chatglm2")


def test_ids_of_a_prompt_equal_those_of_paddlenlp(tokenizer: Tokenizer, project: Path) -> None:
    with np.load(project / "tests" / "golden" / "chatglm2.npz") as arrays:
        texts = json.loads(str(arrays["texts"]))
    assert len(texts) == 6
    for text, ids in texts.items():
        assert tokenizer.prompt(tokenizer.encode(text)) == ids, text
        assert tokenizer.decode(ids) == text


def test_ids_of_a_prompt_equal_the_published_ones(tokenizer: Tokenizer) -> None:
    # github.com/li-plus/chatglm.cpp, chatglm_test.cpp
    assert tokenizer.prompt(tokenizer.encode("你好")) == [64790, 64792, 36474, 54591]


def test_special_tokens_have_the_published_ids(tokenizer: Tokenizer) -> None:
    blanks, roles = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"), ("system", "user", "assistant", "observation")
    appended = (*blanks, *(f"<|{role}|>" for role in roles))
    assert [tokenizer.token_id(token) for token in appended] == list(range(64789, 64798))
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids, tokenizer.vocab_size) == (2, 0, (2,), 64798)


def test_words_that_contain_the_spelling_of_a_token_stay_words(tokenizer: Tokenizer) -> None:
    for text in ("people philosophy isopod", "sop", "a [gMASK] b <|user|> c"):
        ids = tokenizer.encode(text)
        assert max(ids) < 64789
        assert tokenizer.decode(ids) == text


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    family = load_family("chatglm2")
    with pytest.raises(DataError) as refusal:
        family.tokenizer(family.card.sizes["tiny"], tmp_path)
    assert str(refusal.value) == f"{tmp_path}: holds no tokenizer of a chatglm2. This file is read: tokenizer.model."
