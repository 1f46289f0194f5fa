"""A tokenizer as the keys of a GGUF header: the inverse of ``gguf_vocabulary``.

Source: llama.cpp, gguf-py/gguf/constants.py (token types), convert_hf_to_gguf.py (what each kind of tokenizer needs).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Problem, RefusedError
from .gguf_vocabulary import BYTE_LEVEL, CONTROL, PATTERNS, SENTENCE_PIECE, UNKNOWN, USER_DEFINED

if TYPE_CHECKING:
    from ..data.tokenizer import Tokenizer

NORMAL, UNUSED, BYTE = 1, 5, 6
PREFIX = "tokenizer.ggml."
GPT2 = "gpt-2"


def describe_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Return the keys that say a tokenizer; ids above it, up to the model's vocabulary, are named as unused.

    Raises:
        RefusedError: it is of a kind that GGUF files do not hold.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder)
        keys = _read_files(folder, tokenizer)
    tokens, types = keys["tokens"], keys["token_type"]
    for number in range(len(tokens), vocab_size):
        tokens.append(f"[PAD{number}]")
        types.append(UNUSED)
        if "scores" in keys:
            keys["scores"].append(-10000.0)
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "padding": tokenizer.pad_id}
    keys |= {f"{role}_token_id": number for role, number in ids.items() if number is not None}
    keys["add_bos_token"] = tokenizer.bos_id is not None and tokenizer.prompt([])[:1] == [tokenizer.bos_id]
    turns = [number for number in tokenizer.stop_ids if number != tokenizer.eos_id]
    if turns:
        keys["eot_token_id"] = turns[0]
    return {f"{PREFIX}{key}": value for key, value in keys.items()}


def _read_files(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    if (folder / "tokenizer.json").is_file():
        return _of_json(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    models = sorted(folder.glob("*.model"))
    if models:
        return _of_sentence_piece(models[0], tokenizer)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [line for line in lines if line and not line.startswith("#version")]
        return {"model": BYTE_LEVEL, "pre": GPT2, "merges": merges, **_tokens(vocabulary, _special_types(tokenizer))}
    raise _refused("its files are of another kind")


def _of_json(content: dict[str, Any]) -> dict[str, Any]:
    model = content["model"]
    if model.get("type") != "BPE":
        raise _refused(f"it is a {model.get('type')} model, and not BPE")
    added = {
        token["content"]: (token["id"], CONTROL if token["special"] else USER_DEFINED)
        for token in content["added_tokens"]
    }
    vocabulary = model["vocab"] | {token: number for token, (number, _) in added.items()}
    types = {number: kind for number, kind in added.values()}
    if model.get("byte_fallback"):
        types |= {number: BYTE for token, number in vocabulary.items() if len(token) == 6 and token.startswith("<0x")}
        if model.get("unk_token") in vocabulary:
            types[vocabulary[model["unk_token"]]] = UNKNOWN
        keys = _tokens(vocabulary, types)
        # The order of the pieces is that of their scores in every such model.
        prepends = "Prepend" in json.dumps(content.get("normalizer")) or "Metaspace" in json.dumps(content)
        scores = [-float(number) for number in range(len(keys["tokens"]))]
        return {"model": SENTENCE_PIECE, "pre": "default", "scores": scores, "add_space_prefix": prepends, **keys}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {"model": BYTE_LEVEL, "pre": _pattern(content), "merges": merges, **_tokens(vocabulary, types)}


def _pattern(content: dict[str, Any]) -> str:
    """Return the name of the regular expressions that cut a text, which a GGUF file has instead of them.

    Raises:
        RefusedError: no name stands for them.
    """
    step = content.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    found: list[str] = []
    for each in steps:
        if each.get("type") == "Split":
            found.append(each["pattern"].get("Regex", ""))
        elif each.get("type") == "Digits" and each.get("individual_digits"):
            found.append(r"\p{N}")
        elif each.get("type") == "ByteLevel" and each.get("use_regex", True):
            found += PATTERNS[GPT2]
        elif each.get("type") != "ByteLevel":
            found.append(f"{each.get('type')}: not a regular expression")
    name = next((name for name, patterns in PATTERNS.items() if list(patterns) == found), None)
    if name is None:
        raise _refused("it cuts texts in a way that GGUF has no name for")
    return name


def _of_sentence_piece(file: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(file))
    count = model.get_piece_size()
    kinds = {number: _kind(model, number) for number in range(count)}
    vocabulary = {model.id_to_piece(number): number for number in range(count)}
    extra = _special_types(tokenizer)
    vocabulary |= {token: number for token in tokenizer.special_tokens if (number := tokenizer.token_id(token))}
    keys = _tokens(vocabulary, extra | kinds)
    scores = [model.get_score(number) if number < count else -1000.0 for number in range(len(keys["tokens"]))]
    prefix = model.encode("a") != model.encode(" a") or model.id_to_piece(model.encode("a")[0])[:1] == "\u2581"
    return {"model": SENTENCE_PIECE, "pre": "default", "scores": scores, "add_space_prefix": prefix, **keys}


def _kind(model: Any, number: int) -> int:
    if model.is_unknown(number):
        return UNKNOWN
    if model.is_control(number):
        return CONTROL
    if model.is_byte(number):
        return BYTE
    return UNUSED if model.is_unused(number) else NORMAL


def _special_types(tokenizer: Tokenizer) -> dict[int, int]:
    ids = [tokenizer.token_id(token) for token in tokenizer.special_tokens]
    return {number: CONTROL for number in ids if number is not None}


def _tokens(vocabulary: dict[str, int], types: dict[int, int]) -> dict[str, Any]:
    """Return tokens and their types in the order of their ids; ids without a token are named as unused."""
    by_id = {number: token for token, number in vocabulary.items()}
    numbers = range(max(by_id, default=-1) + 1)
    return {
        "tokens": [by_id.get(number, f"[PAD{number}]") for number in numbers],
        "token_type": [types.get(number, NORMAL) if number in by_id else UNUSED for number in numbers],
    }


def _refused(reason: str) -> RefusedError:
    remedy = "Convert to a Hugging Face directory instead."
    return RefusedError(Problem("--output_path", "", f"GGUF files cannot hold this tokenizer: {reason}", remedy))
