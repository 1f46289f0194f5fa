"""Prompts with blanks, and the ids that the published code gives them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

# github.com/THUDM/SwissArmyTransformer, sat/tokenization/glm/tokenization.py
END, CLS, MASK, SOP, EOP, SMASK, GMASK = 50000, 50002, 50003, 50006, 50007, 50008, 50009


@pytest.fixture(scope="module")
def chinese(shared: Path) -> Tokenizer:
    family = load_family("glm")
    return family.tokenizer(family.card.sizes["glm-10b-chinese"], shared / "tokenizers" / "glm")


@pytest.fixture(scope="module")
def english(shared: Path) -> Tokenizer:
    family = load_family("glm")
    return family.tokenizer(family.card.sizes["glm-10b"], shared / "tokenizers" / "gpt")


def test_ids_of_a_text_equal_those_of_paddlenlp(chinese: Tokenizer, golden: ModuleType) -> None:
    expected = np.load(golden.FILE)
    for number, text in enumerate(golden.TEXTS):
        assert chinese.encode(text) == expected[f"ids{number}"].tolist(), text


def test_chinese_special_tokens_have_the_published_ids(chinese: Tokenizer) -> None:
    tokens = ("<|endoftext|>", "[CLS]", "[MASK]", "<|startofpiece|>", "<|endofpiece|>", "[sMASK]", "[gMASK]")
    assert [chinese.token_id(token) for token in tokens] == [END, CLS, MASK, SOP, EOP, SMASK, GMASK]
    assert (chinese.bos_id, chinese.eos_id, chinese.pad_id, chinese.stop_ids) == (SOP, EOP, END, (EOP, END))


def test_english_special_tokens_have_the_published_ids(english: Tokenizer) -> None:
    tokens = ("<|endoftext|>", "[CLS]", "[MASK]", "<|startofpiece|>", "<|endofpiece|>", "[sMASK]", "[gMASK]")
    assert [english.token_id(token) for token in tokens] == [50256, 50259, 50260, 50257, 50258, 50264, 50263]
    assert (english.bos_id, english.eos_id, english.pad_id) == (50257, 50258, 50256)


@pytest.mark.parametrize("blank", ["[MASK]", "[sMASK]", "[gMASK]"])
def test_a_prompt_keeps_its_own_blank(chinese: Tokenizer, blank: str) -> None:
    number = chinese.token_id(blank)
    ids = chinese.prompt(chinese.encode(f"北京是 {blank} 的首都"))
    assert ids == [CLS, *chinese.encode("北京是"), number, *chinese.encode("的首都"), END, SOP]


def test_a_prompt_without_blank_gets_one_at_its_end(chinese: Tokenizer) -> None:
    assert chinese.prompt(chinese.encode("北京是")) == [CLS, *chinese.encode("北京是"), GMASK, END, SOP]


def test_a_blank_swallows_the_space_before_it(english: Tokenizer) -> None:
    assert english.encode("Paris is [MASK] of France") == [
        *english.encode("Paris is"),
        50260,
        *english.encode(" of France"),
    ]


def test_other_special_tokens_in_a_text_stay_text(chinese: Tokenizer, english: Tokenizer) -> None:
    text = "a <|endofpiece|> b [CLS]"
    for tokenizer in (chinese, english):
        ids = tokenizer.encode(text)
        assert not {tokenizer.token_id(token) for token in ("<|endofpiece|>", "[CLS]")} & set(ids)
        assert tokenizer.decode(ids) == text


def test_the_end_of_a_piece_is_the_end_whatever_the_settings_file_says(shared: Path, tmp_path: Path) -> None:
    # As in THUDM/glm-10b-chinese.
    shutil.copy(shared / "tokenizers" / "glm" / "cog-pretrain.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    )
    family = load_family("glm")
    tokenizer = family.tokenizer(family.card.sizes["glm-10b-chinese"], tmp_path)
    assert (tokenizer.eos_id, tokenizer.pad_id) == (EOP, END)
    assert set(tokenizer.stop_ids) == {EOP, END}


def test_a_vocabulary_of_another_model_is_refused(shared: Path) -> None:
    family, directory = load_family("glm"), shared / "tokenizers" / "glm"
    with pytest.raises(DataError) as refusal:
        family.tokenizer(family.card.sizes["glm-10b"], directory)
    assert str(refusal.value) == (
        f"{directory}: <|startofpiece|> is token 50006, but config.json says sop_token_id 50257. "
        "Are tokenizer and model of one release?"
    )


def test_a_new_model_takes_the_ids_of_the_vocabulary(shared: Path) -> None:
    family, directory = load_family("glm"), shared / "tokenizers" / "glm"
    loaded = family.tokenizer(family.card.sizes["tiny"], directory)
    grown = replace(family.card.sizes["tiny"], vocab_size=50048).with_tokenizer(loaded)
    published = family.card.sizes["glm-10b-chinese"].to_fields()
    names = ("sop_token_id", "blank_token_ids")
    assert [grown.to_fields()[name] for name in names] == [published[name] for name in names]
