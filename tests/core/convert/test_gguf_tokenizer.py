from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from llm_run.core.convert.gguf_tokenizer import load_gguf_tokenizer, read_chat_template
from llm_run.core.errors import DataError

TEXTS = [
    "Hello, world!", " leading  and   inner    spaces ", "Ünïcödé, 中文字符 and 🤖🦾", "tabs\tand\nnew\n\n\nlines \r\n",
    "12345 3.14159 1,000,000", "don't DON'T I'LL we've", "", " ", "a", "<|weird|> [INST] </s>", "\u00a0nbsp\u3000wide",
    "def f(x):\n    return x**2  # ok", "tatlı dil", "e\u0301 combining",
]  # fmt: skip


def _write(path: Path, model: str, tokens: list[str], **fields: Any) -> Path:
    writer = gguf.GGUFWriter(path, "some")
    writer.add_context_length(128)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(*(value if name == "array" else (value,)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _sentence_piece(model: Path, path: Path, **fields: Any) -> tuple[Path, Any]:
    """Write what llama.cpp's converter makes of a SentencePiece model."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(model))
    ids = range(processor.get_piece_size())
    kinds = [2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1
             for i in ids]  # fmt: skip
    _write(
        path, "llama", [processor.id_to_piece(i) for i in ids], token_scores=[processor.get_score(i) for i in ids],
        token_types=kinds, bos_token_id=1, eos_token_id=2, unk_token_id=0, **fields,
    )  # fmt: skip
    return path, processor


@pytest.mark.parametrize(
    ("place", "collapses"),
    [("tokenizers/llama/tokenizer.model", False), ("weights/stories260K/tok512.model", True)],
)
def test_sentencepiece_pieces_are_those_of_sentencepiece(
    place: str, collapses: bool, shared: Path, tmp_path: Path
) -> None:
    """The small model makes one of several spaces, which neither GGUF files nor llama.cpp know: it gets no others."""
    path, processor = _sentence_piece(shared / place, tmp_path / "x.gguf")
    tokenizer = load_gguf_tokenizer(path)
    english = (shared / "pretrain/pretrain_en.dev.jsonl").read_text().splitlines()[:40]
    chinese = (shared / "pretrain/pretrain_zh.dev.jsonl").read_text().splitlines()[:20]
    corpus = [json.loads(line)["text"][:2000] for line in (*english, *chinese)]
    for text in (*TEXTS, *corpus):
        text = " ".join(text.split()) if collapses else text
        if "</s>" in text:
            continue
        ids = processor.encode(text)
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == processor.decode(ids), text
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, processor.get_piece_size())
    assert tokenizer.prompt([5]) == [1, 5]


def test_text_without_the_space_in_front_stays_so(shared: Path, tmp_path: Path) -> None:
    path, _ = _sentence_piece(
        shared / "weights/stories260K/tok512.model", tmp_path / "x.gguf", add_space_prefix=False, add_bos_token=False
    )
    tokenizer = load_gguf_tokenizer(path)
    assert tokenizer.decode(tokenizer.encode(" once")) == " once"
    assert tokenizer.prompt([5]) == [5]


def _byte_level(directory: Path, path: Path, pre: str | None, **fields: Any) -> Path:
    """Write what llama.cpp's converter makes of vocab.json and merges.txt."""
    vocabulary = json.loads((directory / "vocab.json").read_text())
    merges = [line for line in (directory / "merges.txt").read_text().split("\n") if line and line[0:8] != "#version"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [3 if token == "<|endoftext|>" else 1 for token in tokens]
    options = {} if pre is None else {"tokenizer_pre": pre}
    end = vocabulary["<|endoftext|>"]
    return _write(
        path, "gpt2", tokens, token_types=kinds, token_merges=merges, bos_token_id=end, eos_token_id=end, **options,
        **fields,
    )  # fmt: skip


def test_gpt_2_pieces_are_llama_cpps_reference_vectors(shared: Path, tmp_path: Path) -> None:
    tokenizer = load_gguf_tokenizer(_byte_level(shared / "tokenizers/gpt", tmp_path / "x.gguf", "gpt-2"))
    folder = shared / "tokenizers/reference_vectors"
    texts = (folder / "ggml-vocab-gpt-2.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    expected = (folder / "ggml-vocab-gpt-2.gguf.out").read_text().splitlines()
    assert len(texts) - 1 <= len(expected) and len(expected) > 30
    for text, line in zip(texts, expected, strict=False):
        assert tokenizer.encode(text) == [int(number) for number in line.split()], text


@pytest.mark.parametrize(
    ("pre", "pattern"),
    [
        ("smollm", None),
        ("llama-bpe", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                      r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
        ("qwen2", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
    ],
)  # fmt: skip
def test_texts_are_cut_as_the_models_own_tokenizer_json_does(
    pre: str, pattern: str | None, shared: Path, tmp_path: Path
) -> None:
    """The pre-tokenizers as SmolLM2's, Llama 3's and Qwen2's published tokenizer.json spell them."""
    from tokenizers import Regex, pre_tokenizers

    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        if pattern is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])
    )
    path = _byte_level(shared / "tokenizers/gpt", tmp_path / "x.gguf", pre)
    tokenizer = load_gguf_tokenizer(path)
    tokenizer.save(tmp_path)
    from tokenizers import Tokenizer

    published = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    published.pre_tokenizer = cut
    for text in TEXTS:
        assert tokenizer.encode(text) == published.encode(text, add_special_tokens=False).ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_saved_tokenizer_is_the_same_in_transformers(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    path = _byte_level(shared / "tokenizers/gpt", tmp_path / "x.gguf", "llama-bpe", add_bos_token=True)
    tokenizer = load_gguf_tokenizer(path)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    for text in TEXTS:
        assert theirs.encode(text) == tokenizer.prompt(tokenizer.encode(text, allow_special=True))


def test_control_tokens_come_from_our_own_text_only(shared: Path, tmp_path: Path) -> None:
    tokenizer = load_gguf_tokenizer(_byte_level(shared / "tokenizers/gpt", tmp_path / "x.gguf", "gpt-2"))
    assert tokenizer.encode("<|endoftext|>", allow_special=True) == [tokenizer.eos_id]
    assert tokenizer.eos_id not in tokenizer.encode("<|endoftext|>")


def test_an_unknown_pre_tokenizer_is_refused_rather_than_guessed(shared: Path, tmp_path: Path) -> None:
    path = _byte_level(shared / "tokenizers/gpt", tmp_path / "x.gguf", "brand-new")
    with pytest.raises(DataError, match=r"tokenizer\.ggml\.pre: 'brand-new' is unknown.*--tokenizer_name_or_path"):
        load_gguf_tokenizer(path)


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.ggml\.model: 'bert' cannot be read, only 'gpt2' and 'llama'"):
        load_gguf_tokenizer(_write(tmp_path / "x.gguf", "bert", ["a"]))


def test_a_file_without_tokenizer_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "some")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(DataError, match=r"holds no tokenizer\. Give the original one with --tokenizer_name_or_path"):
        load_gguf_tokenizer(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_merges": ["a b"], "eos_token_id": 9}, "the special token 9 is outside the vocabulary of 3"),
        ({"token_merges": ["ab"]}, r"tokenizer\.ggml\.merges: 'ab' does not make a token of two others"),
        ({"token_merges": ["a c"]}, r"tokenizer\.ggml\.merges: 'a c' does not make a token of two others"),
        ({"token_merges": ["b a"]}, r"tokenizer\.ggml\.merges: 'b a' does not make a token of two others"),
        ({}, r"tokenizer\.ggml\.merges is missing"),
        ({"array": ("tokenizer.ggml.merges", [1, 2])}, "merges, types or scores of the tokens are not lists"),
        ({"token_merges": ["a b"], "token_types": [1]}, "3 tokens have 1 types and 3 scores"),
    ],
)
def test_a_malformed_vocabulary_is_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_gguf_tokenizer(_write(tmp_path / "x.gguf", "gpt2", ["a", "b", "ab"], **fields))


def test_the_chat_template_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.gguf", "gpt2", ["a"], chat_template="{{ messages }}")
    assert read_chat_template(path) == "{{ messages }}"
    assert read_chat_template(_write(tmp_path / "y.gguf", "gpt2", ["a"])) is None


def test_smollm2_speaks_its_chat_format(smollm2: Path) -> None:
    """Ids as published with the model: <|im_start|> is 1, <|im_end|> is 2."""
    tokenizer = load_gguf_tokenizer(smollm2)
    text = "<|im_start|>user\nWhat is 2+2?<|im_end|>\n"
    ids = tokenizer.encode(text, allow_special=True)
    assert ids[:3] == [1, 4093, 198] and ids[-2:] == [2, 198]
    assert tokenizer.decode(ids, skip_special=False) == text
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.stop_ids) == (49152, 2, (2,))
    template = read_chat_template(smollm2)
    assert template is not None and "SmolLM" in template
