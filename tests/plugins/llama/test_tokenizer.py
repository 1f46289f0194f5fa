"""Which file a llama's tokenizer comes from, and ids that are published."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family


def load(directory: Path, size: str = "llama-2-7b") -> Tokenizer:
    family = load_family("llama")
    return family.tokenizer(family.card.sizes[size], directory)


def test_ids_of_llama_2(shared: Path) -> None:
    tokenizer = load(shared / "tokenizers" / "llama")
    assert tokenizer.encode("Hello world") == [15043, 3186]
    assert tokenizer.prompt([15043]) == [1, 15043]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.stop_ids, tokenizer.vocab_size) == (1, 2, (2,), 32000)


def test_paddlenlps_name_of_the_file_is_read(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").symlink_to(shared / "tokenizers" / "llama" / "tokenizer.model")
    assert load(tmp_path).encode("Hello world") == [15043, 3186]


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        load(tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path}: holds no tokenizer of a llama. "
        "One of these files is read: tokenizer.json, tokenizer.model, sentencepiece.bpe.model."
    )
