"""tiktoken vocabularies against tiktoken itself."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_run.core.data.tokenizers import TiktokenTokenizer, TokenFacts
from llm_run.core.errors import DataError

PATTERN = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIALS = ["<|endoftext|>", "<|im_end|>"]
FACTS = TokenFacts(eos="<|endoftext|>", stop=("<|im_end|>",))


def write_ranks(path: Path, merges: list[bytes]) -> Path:
    """Write a ranks file of all bytes and some merges."""
    tokens = [bytes([byte]) for byte in range(256)] + merges
    path.write_bytes(b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens)))
    return path


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ranks file."""
    return write_ranks(tmp_path_factory.mktemp("ranks") / "small.tiktoken", [b"th", b"the", b"  "])


@pytest.fixture(scope="module")
def tokenizer(ranks: Path) -> TiktokenTokenizer:
    """The tokenizer of the small ranks file."""
    return TiktokenTokenizer(ranks, pattern=PATTERN, specials=SPECIALS, facts=FACTS)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["a<|im_end|>b", "<|endoftext|>"]))
def test_a_users_text_comes_back_whole_and_holds_no_special_token(tokenizer: TiktokenTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert max(ids, default=0) < 259
    assert tokenizer.decode(ids) == text


def test_special_tokens_follow_the_ranks(tokenizer: TiktokenTokenizer) -> None:
    assert (tokenizer.eos_id, tokenizer.stop_ids, tokenizer.vocab_size) == (259, (259, 260), 261)
    ids = tokenizer.encode("the<|im_end|>", allow_special=True)
    assert ids == [257, 260]
    assert tokenizer.decode(ids) == "the"
    assert tokenizer.decode(ids, skip_special=False) == "the<|im_end|>"


def test_qwen_equals_tiktoken_on_real_text(shared: Path) -> None:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    path = shared / "tokenizers/qwen/qwen.tiktoken"
    peer = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=load_tiktoken_bpe(str(path)),
                             special_tokens={"<|endoftext|>": 151643, "<|im_end|>": 151644})  # fmt: skip
    ours = TiktokenTokenizer(path, pattern=PATTERN, specials=SPECIALS, facts=FACTS)
    for language in ("en", "zh"):
        for line in (shared / f"pretrain/pretrain_{language}.dev.jsonl").read_text().splitlines()[:8]:
            text = json.loads(line)["text"] + "<|im_end|>"
            assert ours.encode(text) == peer.encode(text, disallowed_special=())
            assert ours.encode(text, allow_special=True) == peer.encode(text, allowed_special="all")
            assert ours.decode(ours.encode(text)) == text


def test_text_is_normalized_where_the_family_says_so(ranks: Path) -> None:
    tokenizer = TiktokenTokenizer(ranks, pattern=PATTERN, specials=SPECIALS, facts=FACTS, normalize=True)
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "\u00e9"


@pytest.mark.parametrize("letter", ["a", " ", "^", "\n"])
def test_a_million_equal_characters_are_encoded(tokenizer: TiktokenTokenizer, letter: str) -> None:
    assert tokenizer.decode(tokenizer.encode(letter * 1_000_000)) == letter * 1_000_000


def test_half_a_character_is_shown_as_the_replacement_character(tokenizer: TiktokenTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("人")[:2]) == "\ufffd"


def test_saving_writes_the_same_bytes(ranks: Path, tokenizer: TiktokenTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert (tmp_path / "small.tiktoken").read_bytes() == ranks.read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"the ranks are not all different, or there are none\."),
        (b"YQ== 0\nnonsense\n", r"small\.tiktoken: line 2: b'nonsense' is not a base64 token and its rank\."),
        (b"YQ== x\n", r"line 1: b'YQ== x' is not a base64 token and its rank\."),
        (b"YQ== 0\nYg== 0\n", r"the ranks are not all different"),
        (b"YQ== 0\n", r"byte 0 has no rank, so that not every text can be encoded\."),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "small.tiktoken").write_bytes(content)
    with pytest.raises(DataError, match=said):
        TiktokenTokenizer(tmp_path / "small.tiktoken", pattern=PATTERN, specials=SPECIALS)
