"""The published rules: line ends, tabs and runs of spaces as tokens, image tokens before the text, [gMASK]<sop>."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family


@pytest.fixture(scope="module")
def directory(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocabulary: real pieces and ids, splits that are nearly the original's."""
    folder = tmp_path_factory.mktemp("chatglm")
    shutil.copy(shared / "tokenizers" / "chatglm" / "ice_text.approx.model", folder / "ice_text.model")
    return folder


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    family = load_family("chatglm")
    return family.tokenizer(family.card.sizes["chatglm-6b"], directory)


def test_ids_of_a_prompt_equal_those_of_paddlenlp(tokenizer: Tokenizer, golden: ModuleType) -> None:
    expected = np.load(golden.FILE)
    for number, text in enumerate(golden.TEXTS):
        assert tokenizer.prompt(tokenizer.encode(text)) == expected[f"ids{number}"].tolist(), text


def test_layout_is_kept_to_the_space(tokenizer: Tokenizer) -> None:
    for text in (
        "a\n\n\tb",
        "  two",
        "three   ",
        " " * 79 + "x",
        " " * 80 + "x",
        " " * 203 + "x",
        "\n",
        "\t\t",
        "      ",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_layout_has_tokens_of_its_own(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a\n\tb" + " " * 80 + "c")
    assert [tokenizer.token_id(token) in ids for token in ("<n>", "<|tab|>", "<|blank_80|>")] == [True, True, True]


def test_text_that_spells_a_token_stays_text(tokenizer: Tokenizer) -> None:
    for text in ("Array<n>", "a <|blank_3|> b <|tab|>", "[gMASK] <sop> [MASK] [sMASK] <eop>"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert max(ids) < 130000


def test_special_tokens_have_the_published_ids(tokenizer: Tokenizer) -> None:
    tokens = ("[MASK]", "[gMASK]", "<sop>", "<eop>", "<pad>")
    assert [tokenizer.token_id(token) for token in tokens] == [130000, 130001, 130004, 130005, 3]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (130004, 130005, 3)
    assert tokenizer.stop_ids == (130005,)


def test_a_prompt_that_is_closed_already_is_not_closed_again(tokenizer: Tokenizer) -> None:
    assert tokenizer.prompt(tokenizer.prompt([9])) == [9, 130001, 130004]


def test_the_first_release_has_image_tokens_before_the_text(tokenizer: Tokenizer, directory: Path) -> None:
    family = load_family("chatglm")
    shifted = family.tokenizer(family.card.sizes["chatglm-6b-v0"], directory)
    text = "mixed 中文\n  and English"
    ids = shifted.prompt(shifted.encode(text))
    assert ids == [number + 20000 for number in tokenizer.prompt(tokenizer.encode(text))]
    assert shifted.decode([17, *ids]) == text
    assert (shifted.bos_id, shifted.eos_id, shifted.pad_id) == (150004, 150005, 20003)
    assert (shifted.token_id("[gMASK]"), shifted.stop_ids) == (150001, (150005,))
    assert shifted.vocab_size == tokenizer.vocab_size + 20000


def test_a_vocabulary_of_another_model_is_refused(directory: Path) -> None:
    family = load_family("chatglm")
    with pytest.raises(DataError) as refusal:
        family.tokenizer(replace(family.card.sizes["chatglm-6b"], bos_id=504), directory)
    assert str(refusal.value) == (
        f"{directory / 'ice_text.model'}: has <sop> at 130004, but config.json says bos_token_id 504. "
        "Are tokenizer and model of one release?"
    )


def test_a_new_model_takes_the_ids_of_the_vocabulary(directory: Path) -> None:
    family = load_family("chatglm")
    loaded = family.tokenizer(family.card.sizes["tiny"], directory)
    grown = replace(family.card.sizes["tiny"], vocab_size=loaded.vocab_size).with_tokenizer(loaded)
    fields = grown.to_fields()
    names = ("mask", "gmask", "bos", "eos", "pad")
    assert [fields[f"{name}_token_id"] for name in names] == [130000, 130001, 130004, 130005, 3]
    assert family.tokenizer(grown, directory).prompt([9]) == loaded.prompt([9]) == [9, 130001, 130004]


def test_an_end_that_the_settings_file_names_wrongly_is_put_right(directory: Path, tmp_path: Path) -> None:
    shutil.copy(directory / "ice_text.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<sop>", "eos_token": "</s>"}')
    family = load_family("chatglm")
    loaded = family.tokenizer(family.card.sizes["chatglm-6b"], tmp_path)
    assert loaded.eos_id == 130005 and 130005 in loaded.stop_ids
