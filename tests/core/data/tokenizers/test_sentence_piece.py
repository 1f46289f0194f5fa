"""SentencePiece models against sentencepiece itself and against transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_run.core.data.tokenizers import SentencePieceTokenizer, TokenFacts
from llm_run.core.errors import DataError

MIXED = [
    "",
    " ",
    "Hello world",
    "  two spaces  and an end ",
    "def f(x):\n    return x\n\n\t# done",
    "人之初,性本善。",
    "emoji 😀 👩‍👩‍👧 and e\u0301",
    "<s> is not a token here, nor is </s>, nor <unk>",
    "\x00\ufeff\u3000",
]


@pytest.mark.parametrize("text", MIXED)
def test_plain_text_is_encoded_as_sentencepiece_encodes_it(
    piece_folder: Path, piece: SentencePieceTokenizer, text: str
) -> None:
    import sentencepiece

    peer = sentencepiece.SentencePieceProcessor(model_file=str(piece_folder / "tokenizer.model"))
    assert piece.encode(text) == peer.encode(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_decoding_gives_back_what_was_encoded(piece: SentencePieceTokenizer, text: str) -> None:
    assert piece.decode(piece.encode(text)) == text


def test_special_tokens_count_only_where_they_are_allowed(piece: SentencePieceTokenizer) -> None:
    text = "a</s>b"
    assert 2 not in piece.encode(text)
    assert piece.encode(text, allow_special=True).count(2) == 1
    assert piece.decode(piece.encode(text, allow_special=True), skip_special=False) == text
    assert piece.decode(piece.encode(text, allow_special=True)) == "ab"


def test_a_plain_span_keeps_its_special_token_as_text(piece: SentencePieceTokenizer) -> None:
    text = "<s>user: </s> done</s>"
    start = text.index("</s>")
    ids = piece.encode(text, allow_special=True, plain_spans=[(start, start + 4)])
    assert [number for number in ids if number < 3] == [1, 2]
    assert piece.decode(ids, skip_special=False) == text


def test_text_after_a_special_token_gets_a_space_only_in_legacy_mode(piece_folder: Path) -> None:
    new, old = (SentencePieceTokenizer(piece_folder / "tokenizer.model", legacy=legacy) for legacy in (False, True))
    assert new.decode(new.encode("<s>dog", allow_special=True), skip_special=False) == "<s>dog"
    assert old.decode(old.encode("<s>dog", allow_special=True), skip_special=False) == "<s> dog"


@pytest.mark.parametrize("legacy", [False, True])
def test_llama_ids_equal_those_of_transformers(shared: Path, tmp_path: Path, legacy: bool) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(shared / "tokenizers/llama/tokenizer.model", tmp_path)
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
    peer = transformers.LlamaTokenizer.from_pretrained(tmp_path)
    ours = SentencePieceTokenizer(tmp_path / "tokenizer.model")
    lines = (shared / "pretrain/pretrain_zh.dev.jsonl").read_text().splitlines()[:40]
    texts = [" ".join(json.loads(line)["text"].replace("\u2581", "").split()) for line in lines]
    # transformers 5.23 rebuilds merges from the scores and errs on runs of spaces (sentencepiece itself is the
    # reference for those, above), so runs are taken out here.
    for text in [*texts, "a</s>b <s>c", "<s>[INST] hi [/INST] yes </s>"]:
        assert ours.encode(text, allow_special=True) == peer.encode(text, add_special_tokens=False)
        ids = peer.encode(text)
        assert ours.prompt(ours.encode(text, allow_special=True)) == ids
        assert ours.decode(ids, skip_special=False) == peer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", ["llama", "baichuan", "chatglm2"])
def test_published_models_give_real_text_back(shared: Path, name: str) -> None:
    tokenizer = SentencePieceTokenizer(shared / "tokenizers" / name / "tokenizer.model")
    for language in ("en", "zh"):
        for line in (shared / f"pretrain/pretrain_{language}.dev.jsonl").read_text().splitlines()[:20]:
            text = json.loads(line)["text"]
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_appended_tokens_follow_the_pieces_and_settings_files_add_more(piece_folder: Path, tmp_path: Path) -> None:
    shutil.copy(piece_folder / "tokenizer.model", tmp_path)
    plain = SentencePieceTokenizer(tmp_path / "tokenizer.model")
    size = plain.vocab_size
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size + 1}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, size + 1]}))
    tokenizer = SentencePieceTokenizer(tmp_path / "tokenizer.model", appended=["[gMASK]"])
    assert tokenizer.token_id("[gMASK]") == size
    assert tokenizer.encode("<|im_end|>", allow_special=True) == [size + 1]
    assert tokenizer.stop_ids == (2, size + 1)
    assert tokenizer.vocab_size == size + 2


def test_a_special_token_that_is_an_ordinary_piece_is_not_spelt_by_users(tmp_path: Path) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words to count"] * 9), model_writer=model, vocab_size=300, byte_fallback=True,
        model_type="bpe", user_defined_symbols=["<|im_end|>"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = SentencePieceTokenizer(
        tmp_path / "tokenizer.model", facts=TokenFacts(bos="<s>", eos="</s>", stop=("<|im_end|>",))
    )
    end = tokenizer.token_id("<|im_end|>")
    text = "words<|im_end|>to <|im_end|>"
    assert end not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text, allow_special=True).count(end) == 2


def test_saving_writes_the_same_bytes(piece_folder: Path, tmp_path: Path) -> None:
    SentencePieceTokenizer(piece_folder / "tokenizer.model").save(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (piece_folder / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x0a\xff\xff\xff\xff", bytes(1000)])
def test_a_malformed_model_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.model: "):
        SentencePieceTokenizer(path)


def test_every_truncation_of_a_model_loads_or_is_named(piece_folder: Path, tmp_path: Path) -> None:
    content = (piece_folder / "tokenizer.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        try:
            SentencePieceTokenizer(path).encode("some text")
        except DataError as error:
            assert "tokenizer.model" in str(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.model: cannot be read: No such file or directory\."):
        SentencePieceTokenizer(tmp_path / "tokenizer.model")


def test_an_unknown_special_token_is_named(piece_folder: Path) -> None:
    with pytest.raises(DataError, match=r"the special token '<eot>' is not in the vocabulary\. Are all files"):
        SentencePieceTokenizer(piece_folder / "tokenizer.model", facts=TokenFacts(eos="<eot>"))
