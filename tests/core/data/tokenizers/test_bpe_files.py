"""vocab.json and merges.txt against transformers and llama.cpp's published vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_run.core.data.tokenizers import BpeFilesTokenizer, TokenFacts
from llm_run.core.errors import DataError

FACTS = TokenFacts(eos="<|endoftext|>")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Files with a vocabulary of bytes and one merge."""
    from tokenizers import pre_tokenizers

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    return tmp_path


def test_gpt2_gives_the_published_ids(shared: Path) -> None:
    tokenizer = BpeFilesTokenizer(shared / "tokenizers/gpt", facts=FACTS)
    vectors = shared / "tokenizers/reference_vectors"
    texts = (vectors / "ggml-vocab-gpt-2.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    lines = (vectors / "ggml-vocab-gpt-2.gguf.out").read_text().split("\n")
    assert len(texts) == 47
    for text, line in zip(texts, lines, strict=False):
        assert tokenizer.encode(text) == [int(number) for number in line.split()]


def test_gpt2_equals_transformers_on_real_text(shared: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = shared / "tokenizers/gpt"
    peer = transformers.GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    ours = BpeFilesTokenizer(folder, facts=FACTS, specials=["<|endoftext|>"])
    for language in ("en", "zh"):
        for line in (shared / f"pretrain/pretrain_{language}.dev.jsonl").read_text().splitlines()[:6]:
            text = json.loads(line)["text"] + "<|endoftext|>\n  x"
            assert ours.encode(text, allow_special=True) == peer.encode(text, add_special_tokens=False)
            assert ours.decode(ours.encode(text)) == text


def test_special_tokens_outside_of_the_vocabulary_follow_it_in_order(small: Path) -> None:
    tokenizer = BpeFilesTokenizer(small, facts=FACTS, specials=["<|endoftext|>", "<|im_end|>"])
    assert (tokenizer.token_id("ab"), tokenizer.eos_id, tokenizer.token_id("<|im_end|>")) == (256, 257, 258)
    assert tokenizer.encode("ab<|im_end|>", allow_special=True) == [256, 258]
    assert 258 not in tokenizer.encode("ab<|im_end|>")


def test_saving_writes_the_same_files(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("saved")
    BpeFilesTokenizer(small).save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["merges.txt", "vocab.json"]
    assert all((folder / name).read_bytes() == (small / name).read_bytes() for name in ("merges.txt", "vocab.json"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("merges.txt", b"a b c\n", r"merges\.txt: line 1: 'a b c' is not two tokens with a space between\."),
        ("merges.txt", b"x yy\n", r"merges\.txt: does not fit vocab\.json: "),
        ("merges.txt", b"\xff\n", r"merges\.txt: is not UTF-8 text: "),
        ("vocab.json", b'{"a": -1}', r"vocab\.json: 'a': -1 is not a token id\."),
        ("vocab.json", b'{"a": true}', r"vocab\.json: 'a': True is not a token id\."),
        ("vocab.json", b"[]", r"vocab\.json: must hold a JSON object, not a list\."),
        ("added_tokens.json", b'{"<x>": 999}', r"the special token '<x>' should have id 999, but the vocabulary"),
    ],
)
def test_a_malformed_file_is_named(small: Path, name: str, content: bytes, said: str) -> None:
    (small / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        BpeFilesTokenizer(small)


def test_a_missing_file_is_named(small: Path) -> None:
    (small / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"merges\.txt: cannot be read: No such file or directory\."):
        BpeFilesTokenizer(small)
    shutil.rmtree(small)
