"""tokenizer.json against the tokenizers library and transformers."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_run.core.data.tokenizers import JsonTokenizer, TokenFacts
from llm_run.core.errors import DataError

PARTS = [
    "Hello",
    " world",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "\n",
    "  ",
    "人之初",
    "😀",
    "<|im_",
    "end|>",
    "user",
]


def mixed_texts(count: int) -> list[str]:
    """Random mixes of words and special tokens."""
    random_ = random.Random(0)
    return ["".join(random_.choices(PARTS, k=random_.randint(0, 12))) for _ in range(count)]


def test_ids_equal_those_of_the_library(bpe_folder: Path, bpe: JsonTokenizer) -> None:
    import tokenizers

    peer = tokenizers.Tokenizer.from_file(str(bpe_folder / "tokenizer.json"))
    for text in mixed_texts(300):
        assert bpe.encode(text, allow_special=True) == peer.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.lists(st.sampled_from(PARTS)).map("".join))
def test_a_users_text_comes_back_whole_and_holds_no_special_token(bpe: JsonTokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert not {bpe.token_id(token) for token in bpe.special_tokens} & set(ids)
    assert bpe.decode(ids) == text


def test_only_special_tokens_outside_of_plain_spans_count(bpe: JsonTokenizer) -> None:
    text = "<|im_start|>user\nsay <|im_end|> now<|im_end|>\n"
    start = text.index("<|im_end|>")
    ids = bpe.encode(text, allow_special=True, plain_spans=[(start, start + 10)])
    assert ids.count(bpe.token_id("<|im_end|>")) == 1
    assert ids[0] == bpe.token_id("<|im_start|>")
    assert bpe.decode(ids, skip_special=False) == text


def test_a_plain_span_changes_nothing_else(bpe: JsonTokenizer) -> None:
    """The path for spans gives the library's ids where there is nothing to hide."""
    for text in mixed_texts(200):
        marked = text + "<|im_end|>"
        ids = bpe.encode(marked, allow_special=True, plain_spans=[(len(text), len(marked))])
        before = bpe.encode(text + "<|im_end|>", allow_special=True)[:-1]
        cut = len(bpe.encode(text.rstrip(), allow_special=True)) - 1
        assert ids[: max(cut, 0)] == before[: max(cut, 0)]
        assert bpe.decode(ids, skip_special=False) == marked


def test_llama_ids_are_exact_beside_plain_spans(shared: Path, tmp_path: Path) -> None:
    """A space is put before the first text only: also where the secret names are used."""
    import tokenizers

    transformers = pytest.importorskip("transformers")
    shutil.copy(shared / "tokenizers/llama/tokenizer.model", tmp_path)
    peer = transformers.LlamaTokenizer.from_pretrained(tmp_path)
    peer.save_pretrained(tmp_path / "json")
    ours = JsonTokenizer(tmp_path / "json")
    text = "<s>[INST] what is </s> for? [/INST] An end.</s>"
    start = text.index("</s>")
    ids = ours.encode(text, allow_special=True, plain_spans=[(start, start + 4)])
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "json" / "tokenizer.json"))
    plain.encode_special_tokens = True
    # The text after <s> as it stands in the middle of a text: without the space in front.
    middle = plain.encode("x" + text[3:-4], add_special_tokens=False).ids[1:]
    assert ids == [1, *middle, 2]
    assert ours.decode(ids, skip_special=False) == text
    assert ours.prompt(ours.encode("hi")) == peer.encode("hi")


def test_a_vocabulary_that_holds_a_special_token_as_a_piece_does_not_give_it_to_users(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models

    pieces = [("<unk>", 0.0), ("</s>", -1.0), *((letter, -5.0) for letter in "abcdefgh</>s")]
    pieces = list(dict(pieces).items())
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = JsonTokenizer(tmp_path, facts=TokenFacts(eos="</s>"))
    assert 1 not in ours.encode("a</s>b")
    assert ours.decode(ours.encode("a</s>b")) == "a</s>b"
    assert ours.encode("a</s>b", allow_special=True)[1] == 1


def test_roles_come_from_the_settings_files(bpe_folder: Path, tmp_path: Path) -> None:
    shutil.copy(bpe_folder / "tokenizer.json", tmp_path)
    config = {"bos_token": None, "eos_token": {"content": "<|im_end|>", "lstrip": False}, "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    tokenizer = JsonTokenizer(tmp_path, facts=TokenFacts(eos="<|endoftext|>"))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (None, 2, 0, (2, 0))


def test_a_post_processor_says_what_stands_before_a_prompt(bpe_folder: Path, tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import processors

    tokenizer = tokenizers.Tokenizer.from_file(str(bpe_folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = JsonTokenizer(tmp_path)
    assert ours.prompt([7, 8]) == [1, 7, 8]
    assert len(ours.encode("not cut to two tokens")) > 2


def test_saving_writes_all_files_as_they_were(bpe_folder: Path, tmp_path: Path) -> None:
    JsonTokenizer(bpe_folder).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in bpe_folder.iterdir()
    }


def test_ids_beyond_the_vocabulary_are_left_out_of_text(bpe: JsonTokenizer) -> None:
    assert bpe.decode([*bpe.encode("dog"), 599, -1]) == "dog"


def described(model: dict[str, Any], **rest: Any) -> bytes:
    """A tokenizer.json that holds one model and nothing else."""
    return json.dumps({"version": "1.0", "model": model, "added_tokens": [], **rest}).encode()


SPLIT = {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
HOSTILE = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "no model": b"{}",
    "deep": b'{"model":' + b"[" * 100_000,
    "wrong types": described({"type": "BPE", "vocab": {"a": "x"}, "merges": []}),
    "merge of nothing": described({"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}),
    "bad regex": described({"type": "BPE", "vocab": {"a": 0}, "merges": []}, pre_tokenizer=SPLIT),
    "unigram without unknown": described({"type": "Unigram", "vocab": [["b", 0.0]], "unk_id": None}),
    "unknown id outside": described({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}),
    "no vocabulary": described({"type": "WordLevel", "vocab": {}, "unk_token": "x"}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json: ") as caught:
        JsonTokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match=r"tokenizer\.json: 1073741824 bytes is too large for this file\."):
        JsonTokenizer(tmp_path)


def test_a_token_of_the_settings_that_the_file_lacks_is_named(bpe_folder: Path, tmp_path: Path) -> None:
    shutil.copy(bpe_folder / "tokenizer.json", tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<extra>": 5000}')
    with pytest.raises(DataError, match=r"has no token '<extra>' with id 5000, which the files beside it name\."):
        JsonTokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "tokenizer_config.json",
            '{"eos_token": 5}',
            r"tokenizer_config\.json: eos_token: 5 is not the text of a token\.",
        ),
        ("added_tokens.json", '{"a": "b"}', r"added_tokens\.json: 'a': 'b' is not a token id\."),
        ("generation_config.json", '{"eos_token_id": "x"}', r"eos_token_id: 'x' is not a token id or a list of them\."),
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"x": {"content": "a"}}}',
            r"'x' is not a token id with its token\.",
        ),
        ("tokenizer_config.json", "[1]", r"tokenizer_config\.json: must hold a JSON object, not a list\."),
        ("special_tokens_map.json", "{", r"special_tokens_map\.json: is not valid JSON: "),
    ],
)
def test_a_malformed_settings_file_is_named(
    bpe_folder: Path, tmp_path: Path, name: str, content: str, said: str
) -> None:
    shutil.copy(bpe_folder / "tokenizer.json", tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        JsonTokenizer(tmp_path)


def test_a_token_with_a_role_is_matched_though_the_file_does_not_call_it_special(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models

    vocabulary = {**{letter: place for place, letter in enumerate("ab</s>")}, "</s>": 9}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = JsonTokenizer(tmp_path, facts=TokenFacts(eos="</s>"))
    assert ours.encode("a</s>b", allow_special=True) == [0, 9, 1]
    assert 9 not in ours.encode("a</s>b")
